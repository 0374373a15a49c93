"""What stands about a session may be answered once for many calls, and all layers at once: that changes no decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.decision import Allow, Decision, Deny, Facts, ResourceFacts
from interlock.core.terms import Effect, Posture, Question
from interlock.policy import case, pinned
from interlock.policy.codes import Code
from interlock.policy.engine import Engine
from interlock.policy.prepared import Prepared
from tests.policy import world
from tests.policy.world import forbid, policy, refund, search

MOVING = [
    'context.args.amount.lessThan(decimal("90.0"))',
    "context.args has currency",
    'context.args.currency == "EUR"',  # an error where it is not there
    "context.call.entities > 2",
    'context.now < datetime("2026-01-05T13:00:00Z")',
    "context.plan.sealed",
    'context.origins.targets == "user"',
    "context.history.refunds > 3",  # an error: nothing was recalled
    "resource has tenant && resource.tenant == context.session.tenant",
    "resource.refunded",  # an error where it is not known
    'resource == Order::"A1"',
    'Order::"A1" == Order::"A2"',
    "context == context",
    'if context.session.tainted then context.user.id == "sam" else context.args has currency',
    '(principal in Role::"Boss") || context.call.entities > 2',
    '(principal == User::"ana") || context.args has currency',
    'User::"sam" in Role::"Boss" || context.call.entities > 2',
    "context.user has limit && context.call.entities < context.user.limit",
]  # fmt: skip
STANDING = [
    "true",
    "false",
    'context.session.task == "refund-case"',
    'context.session.posture != "normal"',
    "context.session.tainted",
    "context.session.confidentiality >= 2",
    "context.data.rank <= 1",
    'context.agent.id like "b*"',
    'context.user.roles.contains("Support")',
    'context.user.roles.containsAny(["Boss", "Support"])',
    "context.user.roles.isEmpty()",
    "context.user has limit && context.user.limit < 0",
    "context.user.limit + 1 > 0",  # an error where the user has none
    'context.user has team && context.user.team == "no\\"r\\u{74}h\\\\ * \\u{e9}"',
    'context.user has sites && context.user.sites.containsAll(["ams", "ber"])',
    "context has session && context.session has purpose",
    "context has nothing",
    "context.session has nothing",
    "context.user == context.user",
    '{tenant: context.session.tenant, one: 1}.tenant == "acme"',
    '[context.user.tenant, "other"].contains(context.session.tenant)',
    'principal in Role::"Boss"',
    'principal == User::"sam"',
    "principal is Agent",
    "principal.name == 1",  # an error
    'User::"sam" in Role::"Boss"',
    'action in Action::"writes"',
    'action in Action::"egress"',
    "1 == 1 && context.session.purpose",  # not a truth value
]  # fmt: skip
SCOPES = [
    "principal, action, resource",
    "principal, action, resource",
    'principal, action == Action::"payments.refund", resource',
    'principal, action in [Action::"writes", Action::"destructive"], resource is Order',
    'principal == Agent::"bot", action in Action::"tool:payments", resource',
    'principal == Agent::"other", action, resource',
    'principal, action == Action::"writes", resource',
    'principal in Role::"Support", action, resource is Order',
    'principal in Role::"Boss", action, resource',
    'principal == User::"ana", action, resource',
    'principal, action, resource == Order::"A1"',
    "principal is User, action, resource is Tool",
]  # fmt: skip
EXTRAS = [{}, {"approval": "refunds"}, {"approval": "refunds"}, {"obligations": ("redact:email",)}, {"obligations": ("log",)}]
LAYERS = ["identity", "delegation", "capability", "data", "guard"]


def conditions() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(MOVING + 2 * STANDING)
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: f"(({two[0]}) && ({two[1]}))"),
            st.tuples(inner, inner).map(lambda two: f"(({two[0]}) || ({two[1]}))"),
            inner.map(lambda one: f"!({one})"),
        ),
        max_leaves=4,
    )


@st.composite
def policies(draw: st.DrawFn) -> tuple[world.Policy, ...]:
    """Permits that may take the place of the wide ones, and forbids, each of one or two clauses."""
    made = []
    for index in range(draw(st.integers(1, 5))):
        layer = draw(st.sampled_from(LAYERS))
        is_permit = layer != "guard" and draw(st.integers(0, 3)) == 0
        clauses = draw(st.lists(st.tuples(st.sampled_from(["when", "when", "unless"]), conditions()), max_size=2))
        body = " ".join(f"{word} {{ {condition} }}" for word, condition in clauses)
        text = f"{'permit' if is_permit else 'forbid'} ({draw(st.sampled_from(SCOPES))}) {body};"
        made.append(policy(layer, text, f"p{index}", **({} if is_permit else draw(st.sampled_from(EXTRAS)))))
    left_out = draw(st.sampled_from([*LAYERS, "", "", "", ""]))
    return (*(permit for permit in world.permits() if permit.layer != left_out), *made)


def facts() -> st.SearchStrategy[Facts]:
    attributes = st.fixed_dictionaries(
        {},
        optional={
            "limit": st.integers(-3, 3),
            "team": st.sampled_from(["north", 'no"rth\\ * é', "", '{"__entity":{}}']),
            "sites": st.sampled_from([(), ("ams",), ("ber", "ams", "ams")]),
        },
    )
    known = [
        world.ORDER,
        world.ORDER,
        ResourceFacts(type="Order", id="A2"),
        ResourceFacts(type="Order", id="A1", attributes={}),
    ]
    return st.builds(
        refund,
        st.sampled_from(['{"amount":80,"order_id":"A1"}', '{"amount":95,"currency":"EUR","order_id":"A2"}', '{"amount":1}']),
        posture=st.sampled_from([Posture.NORMAL, Posture.NORMAL, Posture.GUARDED]),
        tainted=st.booleans(),
        confidentiality=st.integers(0, 3),
        attributes=attributes,
        roles=st.sampled_from([("Support",), ("Support", "Boss"), ()]),
        user=st.sampled_from(["sam", "ana"]),
        agent=st.sampled_from(["bot", "bot", "bot", "other"]),
        effects=st.sampled_from(
            [frozenset({Effect.WRITE}), frozenset({Effect.WRITE}), frozenset({Effect.WRITE, Effect.EGRESS})]
        ),
        entities=st.integers(1, 4),
        resource=st.sampled_from(known),
        now_us=st.sampled_from([world.REFUND_FACTS.now_us, 1_767_700_800_000_000]),
    )


@contextmanager
def as_written() -> Iterator[None]:
    """Each layer is asked by itself, with its policies as they were written."""
    with patch.object(Prepared, "apart", return_value=None):
        yield


def engine_of(made: tuple[world.Policy, ...]) -> Engine:
    return Engine(world.release(*made, guarded="refunds"))


@given(policies(), st.lists(facts(), min_size=1, max_size=4))
@settings(max_examples=250)
def test_a_decision_is_the_same_whether_layers_are_asked_as_written_or_all_at_once_with_what_stands_known(
    made: tuple[world.Policy, ...], asked: list[Facts]
) -> None:
    with as_written():
        written = engine_of(made)
        expected = [written.decide(one) for one in asked]
    engine = engine_of(made)
    assert [engine.decide(one) for one in asked] == expected
    assert [engine.decide(one) for one in asked] == expected  # and when it is asked again


TAINT = 'context.session.tainted && context.args.amount.greaterThan(decimal("10.0"))'


def evaluations(engine: Engine, asked: Facts) -> tuple[Decision, int]:
    """A decision, and how many times Cedar was called for it."""
    with patch.object(case, "evaluate", wraps=case.evaluate) as calls:
        return engine.decide(asked), calls.call_count


def test_one_call_of_cedar_answers_all_layers_once_what_stands_is_known() -> None:
    over = 'context.args.amount.greaterThan(decimal("50.0"))'
    own = "resource has tenant && resource.tenant == context.session.tenant"
    made = (
        policy("delegation", f'permit (principal in Role::"Support", action, resource) when {{ {own} }};', "own"),
        forbid("guard", f"{own} && {over}", "asks", approval="refunds"),
        forbid("data", own, "redacts", obligations=("redact:email",)),
    )
    engine = engine_of((*(item for item in world.permits() if item.id != "delegation"), *made))
    first, _ = evaluations(engine, refund())
    again, calls = evaluations(engine, refund('{"amount":81,"order_id":"A1"}', user="ana"))
    assert calls == 1
    assert again.policies == first.policies
    assert {"own", "asks", "redacts"} <= {ref.id for ref in again.policies}


def test_where_only_what_stands_is_read_cedar_is_not_called_again() -> None:
    engine = world.engine()
    assert evaluations(engine, search())[1] > 0
    assert evaluations(engine, search(arguments='{"query":"milk"}'))[1] == 0


def test_what_moves_and_is_the_same_as_before_is_known_beside_what_has_to_be_asked_again() -> None:
    few, small = "context.call.entities < 2", 'context.args.amount.lessThan(decimal("90.0"))'
    engine = world.engine(forbid("guard", f"!({few})", "few"), forbid("guard", f"!({small})", "small"))
    engine.decide(refund())
    with patch.object(case, "evaluate", wraps=case.evaluate) as calls:
        assert isinstance(engine.decide(refund('{"amount":81,"order_id":"A1"}')), Allow)
    ((_, request, _),) = (call.args for call in calls.call_args_list)
    assert "args" in request["context"]
    assert "call" not in request["context"]


def test_what_cannot_hold_under_a_standing_costs_its_calls_nothing() -> None:
    others = [
        forbid("guard", f'context.agent.id == "bot{index}" && context.args.amount > {index}', f"other{index}")
        for index in range(50)
    ]
    engine = world.engine(*others, forbid("guard", 'context.args.amount.greaterThan(decimal("90.0"))', "own"))
    engine.decide(refund())
    with patch.object(case, "evaluate", wraps=case.evaluate) as calls:
        assert isinstance(engine.decide(refund()), Allow)
    assert [len(call.args[0]) for call in calls.call_args_list] == [1]
    explained = engine.explain(refund())
    assert sum(voice.id.startswith("other") for layer in explained.layers for voice in layer.policies) == len(others)


def test_a_session_whose_standing_moves_is_decided_on_where_it_stands_now() -> None:
    engine = world.engine(forbid("guard", TAINT))
    for tainted in (False, True, False, True):
        assert isinstance(engine.decide(refund(tainted=tainted)), Deny if tainted else Allow)


def test_an_error_beside_an_allow_is_told_in_the_words_of_the_policies_as_they_were_written() -> None:
    broken = forbid("guard", 'context.session.task == "refund-case" && context.args.urgent', "broken")
    with as_written():
        expected = world.engine(broken).decide(refund())
    engine = world.engine(broken)
    for _ in range(2):
        decision = engine.decide(refund())
        assert isinstance(decision, Deny)
        assert decision.reasons[0].code == Code.EVALUATION_ERROR
        assert "broken" in decision.reasons[0].detail
        assert decision == expected


def test_a_policy_that_names_an_object_without_reading_the_call_s_own_is_asked_as_it_was_written() -> None:
    engine = world.engine(forbid("guard", 'Order::"A1" has tenant && context.args has amount'))
    slices = engine.prepared.slices.of(world.REFUND, world.REFUND.effects, "bot")
    assert engine.prepared.apart(slices) is None
    assert isinstance(engine.decide(refund()), Allow)  # the object is not shown to policies that do not read it


def test_users_share_what_is_known_of_a_standing_unless_a_policy_names_them() -> None:
    large = forbid("guard", 'context.args.amount.greaterThan(decimal("90.0"))')
    sharing = world.engine(large)
    naming = world.engine(policy("data", 'forbid (principal == User::"eve", action, resource);', "not-eve"), large)
    for engine in (sharing, naming):
        engine.decide(refund())
    assert evaluations(sharing, refund(user="ana"))[1] == 1
    assert evaluations(naming, refund(user="ana"))[1] > 1
    assert isinstance(naming.decide(refund(user="eve")), Deny)
    assert isinstance(naming.decide(refund(user="ana")), Allow)


def test_operations_share_what_their_policies_ask_alike_and_not_the_answers() -> None:
    egress = 'action in Action::"egress" && context.call.entities > 0'
    engine = world.engine(forbid("guard", 'action == Action::"docs.search"', "no-search"), forbid("guard", egress, "no-egress"))
    wider = frozenset({Effect.WRITE, Effect.EGRESS})
    for _ in range(2):
        assert isinstance(engine.decide(refund()), Allow)
        assert isinstance(engine.decide(search()), Deny)
        assert isinstance(engine.decide(refund(effects=wider)), Deny)
    slices = engine.prepared.slices
    refunds, searches = (
        slices.of(world.REFUND, world.REFUND.effects, "bot"),
        slices.of(world.SEARCH, world.SEARCH.effects, "bot"),
    )
    one, other = engine.prepared.apart(refunds), engine.prepared.apart(searches)
    assert one is not None
    assert other is not None
    assert one is not other
    assert one.standing == other.standing


def test_what_is_pinned_is_bounded_whatever_sessions_come() -> None:
    made = [
        forbid("guard", f'context.session.task == "t" || context.args.amount.lessThan(decimal("-{n}.0"))', f"p{n}")
        for n in range(5)
    ]
    by_team = [forbid("guard", f'context.user has team && context.user.team == "{n}" && {TAINT}', f"t{n}") for n in range(20)]
    with patch.object(pinned, "PINNED_MAX_CONDITIONS", 30):
        engine = world.engine(*made, *by_team)
        for number in range(20):
            assert isinstance(engine.decide(refund(attributes={"team": f"{number}"}, tainted=True)), Deny)
            assert len(engine.prepared.pins) <= 5
    assert isinstance(engine.decide(refund(attributes={"team": "0"})), Allow)


@pytest.mark.parametrize(
    "made",
    [
        forbid("guard", "context.user has limit && context.call.entities > 0 && context.user.limit > 3", "guarded"),
        forbid(
            "guard", 'context.session.task == "x" && context.now.offset(duration("1d")) > context.now && context.user.limit > 3'
        ),
        policy(
            "data",
            'forbid (principal == User::"eve", action, resource) when { resource has tenant && context.user.limit > 3 };',
            "scoped",
        ),
    ],
    ids=["has", "condition", "scope"],
)
def test_what_would_err_but_for_what_stands_before_it_is_not_asked_alone(made: world.Policy) -> None:
    engine = world.engine(made, forbid("guard", 'context.args.amount.greaterThan(decimal("90.0"))', "own"))
    for _ in range(2):
        decision, calls = evaluations(engine, refund(attributes={}))
        assert isinstance(decision, Allow)
    assert calls == 1


@pytest.mark.parametrize("whole", ["context.user == context.user", "context == context", "context has session.tainted.more"])
def test_policies_that_read_a_part_as_a_whole_are_shown_it(whole: str) -> None:
    with as_written():
        expected = world.engine(forbid("guard", f"{whole} && {TAINT}")).decide(refund(tainted=True))
    engine = world.engine(forbid("guard", f"{whole} && {TAINT}"))
    for _ in range(2):
        assert engine.decide(refund(tainted=True)) == expected


def test_a_user_attribute_with_the_name_of_everything_stands_for_nothing_else() -> None:
    made = (*world.permits(), forbid("guard", f'context.user["*"] == "no" && {TAINT}'))
    engine = Engine(world.release(*made, user_attributes={"*": "string"}))
    for _ in range(2):
        assert isinstance(engine.decide(refund(tainted=True, attributes={"*": "yes"})), Allow)
        assert isinstance(engine.decide(refund(tainted=True, attributes={"*": "no"})), Deny)


@pytest.mark.parametrize(
    "made",
    [
        forbid("guard", "context.args.urgent && context.session.tainted", "errs-before-what-is-false"),
        policy("guard", "forbid (principal, action, resource) unless { context.args.urgent };", "errs-unless"),
        forbid("data", "principal.name == 1", "names-the-user-in-its-error"),
    ],
    ids=lambda made: str(made.id),
)
def test_what_errs_denies_every_user_in_the_words_of_their_own_call(made: world.Policy) -> None:
    engine = world.engine(made)
    for asked in (refund(), refund(user="ana"), refund()):
        with as_written():
            expected = world.engine(made).decide(asked)
        decision = engine.decide(asked)
        assert isinstance(decision, Deny)
        assert decision.reasons[0].code == Code.EVALUATION_ERROR
        assert decision == expected


@pytest.mark.parametrize("who", ['principal in Role::"Boss"', 'User::"ana" in Role::"Boss"', 'principal == User::"ana"'])
@pytest.mark.parametrize("layer", ["delegation", "data"])
def test_a_condition_on_who_the_user_is_beside_one_on_the_call_is_asked_of_that_user(layer: str, who: str) -> None:
    engine = world.engine(forbid(layer, f"({who}) || context.call.entities > 2"))
    for _ in range(2):
        assert isinstance(engine.decide(refund(user="ana", roles=("Support", "Boss"))), Deny)
        assert isinstance(engine.decide(refund(user="sam", roles=("Support",))), Allow)
        assert isinstance(engine.decide(refund(user="sam", roles=("Support",), entities=3)), Deny)


@pytest.mark.parametrize("group", ["writes", "tool:payments"])
def test_a_policy_on_just_one_action_that_is_a_group_speaks_of_none_of_its_operations(group: str) -> None:
    others = [permit for permit in world.permits() if permit.id != "capability"]
    scope = f'principal, action == Action::"{group}", resource'
    made = (*others, policy("capability", f"permit ({scope});", "group"))
    for _ in range(2):
        assert isinstance(engine_of(made).decide(refund()), Deny)
    assert isinstance(world.engine(policy("guard", f"forbid ({scope});", "group")).decide(refund()), Allow)


@pytest.mark.parametrize("now_us", [10**18, -(10**18), 253_402_300_800_000_000, -62_135_596_800_000_001])
def test_a_time_that_is_none_is_a_no_also_from_a_policy_that_the_standing_keeps_silent(now_us: int) -> None:
    engine = world.engine(forbid("guard", 'context.session.tainted && context.now < datetime("2026-01-05T13:00:00Z")'))
    assert isinstance(engine.decide(refund()), Allow)
    assert isinstance(engine.decide(refund(now_us=now_us)), Deny)
    assert isinstance(world.engine().decide(refund(now_us=now_us)), Allow)  # nobody reads it


@pytest.mark.parametrize("now_us", [10**18, -(10**18), 253_402_300_800_000_000])
def test_a_call_at_a_time_that_is_none_is_explained_by_what_each_policy_says_of_it(now_us: int) -> None:
    late = forbid("guard", 'context.now < datetime("2026-01-05T13:00:00Z")', "late")
    for engine, said in ((world.engine(), Allow), (world.engine(late), Deny)):
        explained = engine.explain(refund(now_us=now_us))
        assert isinstance(explained.decision, said)
        assert explained.decision == engine.decide(refund(now_us=now_us))
        assert "now" not in msgspec.json.decode(explained.context)
    (voice,) = [voice for layer in explained.layers for voice in layer.policies if voice.id == "late"]
    assert voice.said == "error"
    assert "outside the years 1 to 9999" in voice.error
    assert "outside the years 1 to 9999" in explained.text()


@pytest.mark.parametrize(
    "answer",
    [
        '{"decision":"NoDecision","diagnostics":{"reason":[],"errors":[]}}',
        '{"decision":"Perhaps","diagnostics":{"reason":[],"errors":[]}}',
        '{"decision":"Deny","diagnostics":{"reason":["0"],"errors":[]}}',
        '{"decision":"Allow","diagnostics":{"reason":[],"errors":[]}}',
        '{"decision":"Allow","diagnostics":{"reason":["other"],"errors":[]}}',
        '{"decision":"Deny","diagnostics":{"errors":[]}}',
        "{}",
        "",
    ],
)
def test_an_answer_of_cedar_that_cannot_be_is_a_no_and_never_takes_a_forbid_for_silent(answer: str) -> None:
    engine = world.engine(forbid("guard", 'context.args.amount.greaterThan(decimal("10.0"))'))
    assert isinstance(engine.decide(refund()), Deny)
    with patch("cedarpy._internal.is_authorized_batch", return_value=[answer]):
        decision = engine.decide(refund('{"amount":81,"order_id":"A1"}'))
    assert isinstance(decision, Deny)


@given(policies(), facts())
@settings(max_examples=100)
def test_an_object_is_looked_up_for_exactly_those_whom_the_first_two_questions_let_pass(
    made: tuple[world.Policy, ...], asked: Facts
) -> None:
    engine = engine_of(made)
    decision = engine.decide(asked)
    stopped = isinstance(decision, Deny) and decision.question in {Question.WHICH_TOOL, Question.MAY_THE_AGENT}
    if asked.posture is Posture.NORMAL and not asked.tainted:
        assert engine.admits(asked) is not stopped
    elif stopped:
        assert not engine.admits(asked)


def test_nothing_is_looked_up_for_a_call_that_is_stopped_whoever_makes_it() -> None:
    engine = world.engine()
    assert engine.admits(refund())
    for stopped in (
        refund(operation="no.such"),
        refund(posture=Posture.HALTED),
        refund(posture=Posture.READ_ONLY),
        refund(canaries=("key",)),
        refund(agent="other"),
        refund(user="\ud800"),
    ):
        assert not engine.admits(stopped)
