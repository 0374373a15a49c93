"""Laws of facts about the past, over any timeline."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.history import PastCall, keep
from interlock.policy.history import Present, recall
from tests.history.test_history_forms import CONTRACTS, FACTS, LINEAGE, NOW_US

ORDERS = st.sampled_from(["A1", "A2", "A3"])


@st.composite
def calls(draw, states=("claimed", "succeeded", "failed", "in_doubt")):
    name = draw(st.sampled_from(["shop.pay", "shop.person"]))
    arguments = {"order_id": draw(ORDERS), "amount": "1.00"} if name == "shop.pay" else {}
    kept = keep(CONTRACTS[name], arguments, arguments if draw(st.booleans()) else (), LINEAGE)
    return PastCall(
        claim_id=draw(st.uuids()).hex,
        call_id="call",
        session_id=draw(st.sampled_from(["s1", "s2"])),
        lineage_id=LINEAGE,
        keyed_by=LINEAGE,
        operation=name,
        at_us=NOW_US - draw(st.integers(-5, 700)) * 1_000_000,
        state=draw(st.sampled_from(states)),
        unsent=draw(st.booleans()),
        values=kept.v,
        units=kept.u,
    )


def says(fact, past, order, **more):
    arguments = {"order_id": order, "amount": "1.00"}
    present = Present(contract=CONTRACTS["shop.pay"], arguments=arguments, lineage_id=LINEAGE, session_id="s1", at_us=NOW_US)
    value = recall(fact, past, present, CONTRACTS, **more).value
    return float(value)


@settings(max_examples=60, deadline=None)
@given(st.lists(calls(), max_size=5), calls(), ORDERS)
def test_of_what_may_have_happened_a_call_more_never_makes_it_less(past, more, order):
    for fact in FACTS.values():
        if not fact.done and more.operation not in fact.since:
            assert says(fact, [*past, more], order) >= says(fact, past, order), fact.name
            assert says(fact, past, order, is_complete=False) >= says(fact, past, order), fact.name


@settings(max_examples=60, deadline=None)
@given(st.lists(calls(), max_size=5), calls(states=("claimed", "failed", "in_doubt")), ORDERS)
def test_of_what_was_done_a_call_that_has_not_succeeded_never_makes_it_more(past, more, order):
    for fact in FACTS.values():
        if fact.done:
            assert says(fact, [*past, more], order) == says(fact, past, order), fact.name
