"""What stands about a session may be written into the policies: that changes no decision."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.decision import Allow, Deny, Facts
from interlock.core.terms import Posture
from interlock.policy import case
from interlock.policy.engine import Engine
from tests.policy import world
from tests.policy.world import forbid, refund

MOVING = ['context.args.amount.lessThan(decimal("90.0"))', "context.args has currency", "context.call.entities > 2"]
STANDING = [
    'context.session.task == "refund-case"',
    'context.session.posture != "normal"',
    "context.session.tainted",
    "context.session.confidentiality >= 2",
    "context.data.rank <= 1",
    'context.agent.id like "b*"',
    'context.user.roles.contains("Support")',
    'context.user.roles.containsAny(["Boss", "Support"])',
    "context.user.roles.isEmpty()",
    "context.user has limit",
    "context.user has limit && context.user.limit < 0",
    "context.user.limit + 1 > 0",  # an error where the user has none
    'context.user has team && context.user.team == "no\\"r\\u{74}h\\\\ * \\u{e9}"',
    'context.user has sites && context.user.sites.containsAll(["ams", "ber"])',
    "context.user has senior && context.user.senior",
    "context has session && context.session has purpose",
    "context has nothing",
    "context.session has nothing",
    "context.user == context.user",
    'if context.session.tainted then context.user.id == "sam" else context.args has currency',
    '{tenant: context.session.tenant, one: 1}.tenant == "acme"',
    '[context.user.tenant, "other"].contains(context.session.tenant)',
    "context.session.tenant == resource.tenant",
]  # fmt: skip


def conditions() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(MOVING + STANDING)
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: f"(({two[0]}) && ({two[1]}))"),
            st.tuples(inner, inner).map(lambda two: f"(({two[0]}) || ({two[1]}))"),
            inner.map(lambda one: f"!({one})"),
        ),
        max_leaves=5,
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[world.Policy, ...], list[Facts]]:
    drawn = draw(st.lists(st.tuples(st.sampled_from(["capability", "data", "guard"]), conditions()), min_size=1, max_size=3))
    policies = tuple(
        forbid(layer, f"{condition} && ({draw(st.sampled_from(MOVING))} || true)", f"p{index}", approval="refunds")
        for index, (layer, condition) in enumerate(drawn)
    )
    attributes = st.fixed_dictionaries(
        {},
        optional={
            "limit": st.integers(-(2**53) + 1, 2**53 - 1),
            "team": st.sampled_from(["north", 'no"rth\\ * é', "", '{"__entity":{}}']),
            "sites": st.sampled_from([(), ("ams",), ("ber", "ams", "ams")]),
            "senior": st.booleans(),
        },
    )
    facts = st.builds(
        refund,
        st.sampled_from(['{"amount":80,"order_id":"A1"}', '{"amount":95,"currency":"EUR","order_id":"A2"}']),
        posture=st.sampled_from([Posture.NORMAL, Posture.GUARDED]),
        tainted=st.booleans(),
        confidentiality=st.integers(0, 3),
        attributes=attributes,
        roles=st.sampled_from([("Support",), ("Support", "Boss")]),
        user=st.sampled_from(["sam", "ana"]),
    )
    return policies, draw(st.lists(facts, min_size=1, max_size=4))


def engine_of(policies: tuple[world.Policy, ...]) -> Engine:
    return Engine(world.release(*world.permits(), *policies))


@given(worlds())
@settings(max_examples=120)
def test_a_decision_is_the_same_whether_what_stands_is_shown_or_written_in(
    made: tuple[tuple[world.Policy, ...], list[Facts]],
) -> None:
    policies, facts = made
    shown = [engine_of(policies).decide(one) for one in facts]
    with patch.object(case, "PIN_AFTER_USES", 1):
        engine = engine_of(policies)
        assert [engine.decide(one) for one in facts] == shown
        assert [engine.decide(one) for one in facts] == shown  # and when it is asked again


TAINT = 'context.session.tainted && context.args.amount.greaterThan(decimal("10.0"))'


def pinned_sets(engine: Engine) -> list[object]:
    return [pin.policies for pin in engine.prepared.pins.values() if pin.policies is not None]


def test_what_is_asked_often_under_one_standing_is_written_in_and_what_is_asked_rarely_is_not() -> None:
    engine = world.engine(forbid("guard", TAINT))
    for _ in range(case.PIN_AFTER_USES - 1):
        engine.decide(refund())
    assert not pinned_sets(engine)
    engine.decide(refund())
    assert pinned_sets(engine)


def test_a_session_whose_standing_moves_is_decided_on_where_it_stands_now() -> None:
    engine = world.engine(forbid("guard", TAINT))
    for _ in range(2 * case.PIN_AFTER_USES):
        assert isinstance(engine.decide(refund()), Allow)
    for _ in range(2 * case.PIN_AFTER_USES):
        assert isinstance(engine.decide(refund(tainted=True)), Deny)
    assert isinstance(engine.decide(refund()), Allow)


@pytest.mark.parametrize("whole", ["context.user == context.user", "context == context", "context has session.tainted.more"])
def test_policies_that_read_a_part_as_a_whole_are_shown_it(whole: str) -> None:
    engine = world.engine(forbid("guard", f"{whole} && {TAINT}"))
    expected = world.engine(forbid("guard", f"{whole} && {TAINT}")).decide(refund(tainted=True))
    for _ in range(2 * case.PIN_AFTER_USES):
        assert engine.decide(refund(tainted=True)) == expected
    assert not pinned_sets(engine)


def test_a_user_attribute_with_the_name_of_everything_stands_for_nothing_else() -> None:
    policies = (*world.permits(), forbid("guard", f'context.user["*"] == "no" && {TAINT}'))
    engine = Engine(world.release(*policies, user_attributes={"*": "string"}))
    for _ in range(2 * case.PIN_AFTER_USES):
        assert isinstance(engine.decide(refund(tainted=True, attributes={"*": "yes"})), Allow)
        assert isinstance(engine.decide(refund(tainted=True, attributes={"*": "no"})), Deny)
