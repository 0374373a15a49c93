"""Whether a call sends something, and to whom: what the contract says of its arguments, and everybody where it says nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.contract import RecordShape, SetShape, StringShape
from interlock.core.decision import Traced
from interlock.core.terms import Effect, Origin
from interlock.policy.encoding import sections
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from tests.policy import world
from tests.support.shop import FILES

EVENT = msgspec.structs.replace(
    world.SEARCH,
    operation="calendar.add",
    effects=frozenset({Effect.WRITE, Effect.EGRESS}),
    arguments=RecordShape({"at": StringShape(), "guests": SetShape(StringShape())}),
    targets=("at", "guests"),
    egress_to=("guests",),
)
PLAIN = msgspec.structs.replace(EVENT, egress_to=())


@pytest.mark.parametrize("guests", [["a@b.example"], [""], [[]], " ", "a", 0, False, {}, {"to": None}])
def test_whatever_is_there_and_not_empty_counts_as_somebody(guests):
    assert EVENT.sends({"guests": guests})


@pytest.mark.parametrize("arguments", [{}, {"guests": None}, {"guests": []}, {"guests": ""}, {"at": "today", "others": ["x"]}])
def test_nobody_is_nobody_and_without_a_word_of_the_contract_everybody(arguments):
    assert not EVENT.sends(arguments)
    assert PLAIN.sends(arguments)
    assert not msgspec.structs.replace(PLAIN, effects=frozenset({Effect.WRITE})).sends(arguments)


def seen(contract, arguments, **origins):
    facts = msgspec.structs.replace(
        world.refund(),
        operation=contract.operation,
        arguments=msgspec.json.encode(arguments, order="sorted").decode(),
        provenance={name: Traced(origin=origin) for name, origin in origins.items()} or None,
    )
    return sections(facts, contract, {})


def test_policy_reads_whether_it_sends_and_where_the_recipients_came_from():
    alone = seen(EVENT, {"at": "today"}, at=Origin.UNTRUSTED)
    assert (alone["call"]["sends"], alone["origins"]["targets"], alone["origins"]["recipients"]) == (False, "untrusted", "user")
    invited = seen(EVENT, {"at": "today", "guests": ["a"]}, at=Origin.UNTRUSTED, guests=Origin.FIELD)
    assert (invited["call"]["sends"], invited["origins"]["recipients"]) == (True, "field")
    assert seen(PLAIN, {"at": "today"}, at=Origin.UNTRUSTED)["origins"]["recipients"] == "untrusted"
    assert seen(EVENT, {"at": "today"})["origins"]["recipients"] == "untrusted"


@given(st.dictionaries(st.sampled_from(["at", "guests"]), st.sampled_from(Origin), min_size=1), st.booleans())
def test_recipients_are_never_told_to_be_better_than_the_worst_of_them_nor_worse_than_all_targets(origins, says_who):
    told = seen(EVENT if says_who else PLAIN, {}, **origins)["origins"]
    ranks = {name: Origin(told[name]).rank for name in ("targets", "recipients")}
    assert ranks["recipients"] <= ranks["targets"]
    assert ranks["recipients"] >= (origins["guests"].rank if "guests" in origins else 0)


@pytest.mark.parametrize(
    "said",
    [
        "effects: [write], targets: [order_id], egress_to: [order_id]",
        "effects: [write, egress], egress_to: [order_id]",
        "effects: [write, egress], targets: [order_id], egress_to: [nobody]",
    ],
)
def test_only_targets_of_what_may_send_say_who_it_goes_to(said):
    tool = FILES["tools/shop.yaml"].replace("pay: {effects: [write]", f"pay: {{{said}")
    with pytest.raises(ReleaseError, match="egress_to names targets of an operation whose effects hold egress"):
        from_files({**FILES, "tools/shop.yaml": tool})
