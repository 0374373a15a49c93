"""What is unusual for an agent, on small timelines: order, sizes, rate, refusals; and nothing while nobody knows the agent."""

import pytest

from interlock.core.risk import SignalKind
from interlock.risk.habits import ALL, MIN_KNOWN_CALLS, Done, Window, features, rate_feature, unusual

KNOWN = {
    ALL: MIN_KNOWN_CALLS,
    "op:pay": 100,
    "op:read": 100,
    "after:->read": 50,
    "after:read>pay": 50,
    "size:pay.amount:5": 40,
    "rate:10": 3,
}
SECOND = 1_000_000


def played(*steps, baseline=KNOWN):
    """What is unusual at the last of some calls: operation, outcome, arguments, seconds."""
    window, found = Window(), ()
    for number, (operation, outcome, arguments, at_s) in enumerate(steps):
        done = Done(
            at_us=int(at_s * SECOND),
            call_id=f"call_{number}",
            operation=operation,
            outcome=outcome,
            features=features(window.last, operation, arguments),
        )
        window.add(done)
        found = unusual(done, window, baseline)
    return [(signal.kind, signal.subject) for signal in found]


def test_what_it_always_does_is_not_unusual():
    assert played(("read", "made", {}, 0), ("pay", "made", {"amount": "20.00"}, 1)) == []


def test_an_operation_it_never_called_is_new_and_so_is_an_order():
    assert played(("read", "made", {}, 0), ("drop", "made", {}, 1)) == [(SignalKind.NOVELTY, "op:drop")]
    assert played(("read", "made", {}, 0), ("read", "made", {}, 1)) == [(SignalKind.NOVELTY, "after:read>read")]


@pytest.mark.parametrize(("amount", "is_odd"), [("20.00", False), ("99.99", False), ("4.00", False), ("100.00", True)])
def test_a_number_beyond_all_it_ever_sent_is_an_outlier_a_small_one_is_not(amount, is_odd):
    found = played(("read", "made", {}, 0), ("pay", "made", {"amount": amount}, 1))
    assert ((SignalKind.OUTLIER, "pay.amount") in found) == is_odd


def test_many_calls_in_a_minute_are_many_for_this_agent():
    calm = [("read", "made", {}, number) for number in range(39)]
    busy = [("read", "made", {}, number) for number in range(40)]
    known = {**KNOWN, "after:read>read": 9}
    assert (SignalKind.RATE, "minute") not in played(*calm, baseline=known)
    assert (SignalKind.RATE, "minute") in played(*busy, baseline=known)


def test_of_an_agent_that_nobody_knows_nothing_is_unusual_but_its_refusals():
    young = {ALL: MIN_KNOWN_CALLS - 1}
    assert played(("drop", "made", {"amount": "9.00"}, 0), baseline=young) == []
    refused = [("drop", "denied", {}, number) for number in range(8)]
    assert played(*refused[:7], baseline=young) == []
    assert played(*refused, baseline=young) == [(SignalKind.DENIALS, "ratio")]


def test_plans_that_contradict_each_other_are_evidence():
    assert played(("read", "contradiction", {}, 0)) == [(SignalKind.CONTRADICTION, "plan")]


def test_the_rate_counts_a_minute_and_not_more():
    window = Window()
    for at_s in (0, 30, 61):
        window.add(Done(at_us=at_s * SECOND, call_id="", operation="read", outcome="made"))
    assert rate_feature(window, 61 * SECOND) == "rate:2"
