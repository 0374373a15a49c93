"""What is unusual for an agent, on small timelines: order, sizes, rate, refusals; and nothing while nobody knows the agent."""

import pytest

from interlock.core.risk import SignalKind
from interlock.risk import habits
from interlock.risk.habits import ALL, MIN_KNOWN_CALLS, Done, Window, Windows, aimed, features, rate_feature, unusual

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


def proposed(window, number, about="refund A1", aim="", outcome="asked"):
    done = Done(at_us=number, call_id=f"call_{number}", operation="shop.refund", outcome=outcome, about=about, aim=aim)
    window.add(done)
    return [signal for signal in unusual(done, window, {}) if signal.kind is SignalKind.DISAGREEMENT]


def test_an_agent_that_wants_three_different_things_with_one_object_does_not_know_what_it_wants():
    window = Window()
    assert proposed(window, 1, aim="20.00") == proposed(window, 2, aim="45.00") == proposed(window, 3, aim="20.00") == []
    (found,) = proposed(window, 4, aim="80.00")
    assert (found.subject, found.score, found.reference) == ("shop.refund", 25, "call_4")
    assert found.evidence == "of the last 4 calls, shop.refund was asked for on one object in 3 different ways"
    scores = [proposed(window, number, aim=f"{number}.00")[0].score for number in range(5, 20)]
    assert scores == sorted(scores)
    assert scores[-1] == 60


def test_an_agent_that_does_not_what_its_own_plan_says_is_the_more_evidence_the_more_often():
    window, scores = Window(), []
    for number in range(15):
        done = Done(at_us=number, call_id=f"call_{number}", operation="shop.pay", outcome="denied", contrary=number != 1)
        window.add(done)
        scores.append([signal.score for signal in unusual(done, window, {}) if signal.kind is SignalKind.CONTRADICTION])
    assert scores[:4] == [[], [], [20], [25]]
    assert scores[2:] == sorted(scores[2:])
    assert scores[-1] == [60]


def test_other_objects_and_calls_that_change_nothing_known_do_not_disagree():
    window = Window()
    assert not any(proposed(window, number, about=f"refund A{number}", aim=f"{number}") for number in range(9))
    assert not any(proposed(window, number, about="", aim="") for number in range(9))


def test_what_a_call_is_about_is_its_object_and_what_it_aims_at_are_its_other_targets():
    refund = {"order_id": "A1", "amount": "20.00", "note": "a"}
    targets = ("order_id", "amount")
    first = aimed("shop.refund", refund, "order_id", targets)
    assert aimed("shop.refund", {**refund, "note": "b"}, "order_id", targets) == first
    assert aimed("shop.refund", {**refund, "amount": "21.00"}, "order_id", targets)[0] == first[0]
    assert aimed("shop.refund", {**refund, "amount": "21.00"}, "order_id", targets)[1] != first[1]
    assert aimed("shop.refund", {"amount": "20.00"}, "order_id", targets) == ("", "")
    assert aimed("shop.note", {"text": "a"}, "", ()) == aimed("shop.close", {"id": 1}, "id", ("id",)) == ("", "")


def done(number, at_us):
    return Done(at_us=at_us, call_id=f"call_{number}", operation="read", outcome="made", features=(ALL,))


def test_a_window_holds_the_last_calls_and_of_the_others_their_time_for_a_minute():
    window = Window()
    for number in range(1_000):
        window.add(done(number, number * 200_000))
    assert [call.call_id for call in window.recent()] == [f"call_{number}" for number in range(980, 1_000)]
    assert window.a_minute(999 * 200_000) == 300
    assert len(window) == 20 + 300
    window.add(done(1_000, 3600 * SECOND))
    assert (window.a_minute(3600 * SECOND), len(window)) == (1, 20 + 1)


def test_the_windows_of_many_lineages_are_bounded_by_all_that_they_hold_and_the_latest_are_kept(monkeypatch):
    monkeypatch.setattr(habits, "MAX_WINDOWS_SIZE", 100)
    windows = Windows()
    for number in range(1_000):
        for _ in range(number % 7 + 1):
            windows.add(f"lineage{number}", done(number, number))
        assert windows.size <= 100
    assert windows.size == sum(len(windows.of(f"lineage{number}")) for number in range(999, 999 - len(windows), -1))
    assert [call.call_id for call in windows.of("lineage999").recent()] == ["call_999"] * (999 % 7 + 1)


def test_many_lineages_that_call_once_are_bounded_by_their_number(monkeypatch):
    monkeypatch.setattr(habits, "MAX_LINEAGES", 10)
    windows = Windows()
    for number in range(100):
        windows.add(f"lineage{number}", done(number, number))
    assert len(windows) == 10
