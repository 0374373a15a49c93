"""What a call takes of budgets is put together once a session and operation, and is what it would be if it were made anew."""

import itertools
from types import SimpleNamespace

import msgspec
import pytest

from interlock.core.budget import CEILINGS, Budget, Counted, Per
from interlock.core.contract import EntitiesOf
from interlock.core.who import Lineage, Parent, Session
from interlock.gateway import budgeting
from interlock.gateway.budgeting import Taking, Takings, charges
from interlock.gateway.reading import UnreadableProposalError
from tests.gateway.test_gateway_keys import REFUND

PAY = msgspec.structs.replace(REFUND, operation="pay.refund", once_per=())
AGENTS = Budget(name="agents", counted=Counted.CALLS, per=Per.AGENT, limit=9, window_s=60)
PAID = Budget(name="paid", counted=Counted.SUM, per=Per.LINEAGE, limit=100, window_s=60, argument="amount")
TIME = Budget(name="time", counted=Counted.WALL_MS, per=Per.USER, limit=10**6, window_s=60)
STEADY = (*CEILINGS, AGENTS, TIME)
ANA = Session(
    session_id="s1",
    lineage=Lineage(tenant="acme", environment="prod", agent="bot", user="ana"),
    task="t",
    roles=(),
    expires_at_us=1,
)
ABOVE = Parent(session_id="s0", agent="boss", max_calls=4)
USUAL = {"contract": PAY, "budgets": STEADY, "session": ANA, "run": "", "count": 1, "lifted": frozenset()}
OTHERS = {
    "contract": [
        msgspec.structs.replace(PAY, timeout_ms=7_000),
        msgspec.structs.replace(PAY, entities=3),
        msgspec.structs.replace(PAY, entities=EntitiesOf(argument="count")),
        msgspec.structs.replace(PAY, operation="pay.other"),
    ],
    "budgets": [
        CEILINGS,
        (*STEADY, PAID),
        (*CEILINGS, msgspec.structs.replace(AGENTS, limit=8), TIME),
        (*STEADY, Budget(name="none", counted=Counted.ENTITIES, per=Per.CALL, limit=0)),
    ],
    "session": [
        msgspec.structs.replace(ANA, session_id="s2"),
        msgspec.structs.replace(ANA, lineage=msgspec.structs.replace(ANA.lineage, user="ben")),
        msgspec.structs.replace(ANA, parents=(ABOVE,)),
        msgspec.structs.replace(ANA, parents=(msgspec.structs.replace(ABOVE, max_calls=2),)),
        msgspec.structs.replace(ANA, max_calls=3),
        msgspec.structs.replace(ANA, run="r9"),
    ],
    "run": ["r1"],
    "count": [50],
    "lifted": [frozenset({"agents"}), frozenset({"paid"})],
}
CHANGES = [(what, value) for what, values in OTHERS.items() for value in values]


def both(takings, *, contract, budgets, session, run, count, lifted):
    """The charges of one call as the gate finds them, and as they are when nothing is kept."""
    # The digest of a release names its contracts and its budgets.
    digest = repr((contract, budgets))
    governed = SimpleNamespace(release=SimpleNamespace(digest=digest), budgets=lambda _: budgets)
    arguments = {"count": count, "amount": count}
    taking = Taking(contract=contract, arguments=arguments, entities=contract.entities_in(arguments))
    return takings.of(governed, session, run, taking, lifted).charges, charges(budgets, session, run, taking, lifted)


def test_what_is_kept_is_what_would_be_put_together_anew():
    for first, then in itertools.product([("count", 2), *CHANGES], CHANGES):
        usual = {**USUAL, first[0]: first[1]}
        changed = {**usual, then[0]: then[1]}
        takings = Takings()
        for call in (usual, changed, usual, changed):
            found, anew = both(takings, **call)
            assert found == anew, (first, then)


def test_an_amount_that_is_not_one_is_refused_however_often_the_operation_was_called():
    governed = SimpleNamespace(release=SimpleNamespace(digest="d"), budgets=lambda _: (*STEADY, PAID))
    takings = Takings()
    for amount in (1, "2.50"):
        assert takings.of(governed, ANA, "", Taking(contract=PAY, arguments={"amount": amount}, entities=1), frozenset())
    with pytest.raises(UnreadableProposalError):
        takings.of(governed, ANA, "", Taking(contract=PAY, arguments={"amount": -1}, entities=1), frozenset())


def test_what_is_kept_is_bounded_whatever_names_of_runs_callers_send(monkeypatch):
    monkeypatch.setattr(budgeting, "MAX_CACHED_TAKINGS", 10)
    governed = SimpleNamespace(release=SimpleNamespace(digest="d"), budgets=lambda _: CEILINGS)
    takings = Takings()
    for number in range(100):
        takings.of(governed, ANA, f"run{number}", Taking(contract=PAY, arguments={}, entities=1), frozenset())
    assert len(takings._known) == 10
