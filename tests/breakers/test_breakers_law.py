"""The laws of breakers, retries and windows, for whatever happens in whatever order."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from interlock.core.stability import Breaker, Retry
from interlock.gateway.breaking import (
    FEW_RETRIES,
    SPREAD,
    Counts,
    Phase,
    State,
    Window,
    admitted,
    may_retry,
    opened,
    pause_s,
    tried,
    trips,
)

RULE = Breaker(failing_percent=50, min_calls=4, window_s=10, open_s=8, trials=2)
dice = st.floats(0, 1, exclude_max=True)


class ABreaker(RuleBasedStateMachine):
    """Whatever comes: nothing goes through while it is open, and no more trials than there may be."""

    def __init__(self):
        super().__init__()
        self.state, self.now_s, self.read_ok_s = State(), 100.0, float("-inf")
        self.under_way = 0
        self.last_failed = False

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(roll=dice)
    def it_opens(self, roll):
        if self.state.phase is Phase.CLOSED:
            self.state, self.under_way = opened(RULE, self.now_s, roll), 0

    @rule()
    def another_read_of_the_tool_succeeds(self):
        self.read_ok_s = self.now_s

    @rule(reads=st.booleans())
    def a_call_comes(self, reads):
        before = self.state
        self.state, goes = admitted(before, RULE, self.now_s, reads=reads, read_ok_s=self.read_ok_s)
        if before.phase is Phase.CLOSED:
            assert goes
            return
        if self.now_s < before.until_s:
            assert not goes
        if goes and not reads:
            assert before.under_way == 0
            assert self.read_ok_s >= before.until_s or self.now_s >= before.until_s + RULE.open_s
        self.under_way += goes
        assert goes == (self.state is not before)

    @rule(passed=st.sampled_from([True, False, None]), roll=dice)
    def a_trial_ends(self, passed, roll):
        if not self.under_way or self.state.phase is not Phase.TRYING:
            return
        before = self.state
        self.state = tried(before, RULE, self.now_s, roll, passed=passed)
        self.under_way -= 1
        if passed is False:
            assert self.state.phase is Phase.OPEN
            assert RULE.open_s * (1 - SPREAD) <= self.state.until_s - self.now_s <= RULE.open_s * (1 + SPREAD)
            self.under_way = 0
        elif self.state.phase is Phase.CLOSED:
            assert before.passed + (passed is True) >= RULE.trials
            self.under_way = 0

    @invariant()
    def trials_are_few(self):
        assert 0 <= self.state.under_way <= RULE.trials
        assert self.state.passed < RULE.trials


TestABreaker = ABreaker.TestCase


def test_few_calls_never_trip_and_many_failures_always_do():
    assert not trips(RULE, Counts(3, 3))
    assert trips(RULE, Counts(4, 2))
    assert not trips(RULE, Counts(5, 2))


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60))
def test_a_window_counts_exactly_what_happened_within_it(steps):
    window, now_s, happened = Window(10), 1000.0, []
    for pause, failed in steps:
        now_s += pause
        window.add(now_s, Counts(1, int(failed)))
        happened.append((int(now_s), failed))
        within = [item for item in happened if item[0] > now_s - 10]
        assert window.counts(now_s) == Counts(len(within), sum(failed for _, failed in within))


@given(st.lists(st.booleans(), max_size=400), st.integers(0, 100))
def test_retries_never_are_more_than_their_share_of_the_calls(wishes, percent):
    retry, calls, retries = Retry(attempts=5, budget_percent=percent), 0, 0
    for wishes_to_retry in wishes:
        calls += 1
        if wishes_to_retry and may_retry(retry, Counts(calls, retries)):
            calls, retries = calls + 1, retries + 1
        assert retries <= max(FEW_RETRIES, calls * percent / 100)


@given(st.integers(0, 4), dice)
def test_a_pause_is_anywhere_below_a_cap_that_doubles(retries, roll):
    retry = Retry(attempts=5, first_ms=100, most_ms=500)
    assert 0 <= pause_s(retry, retries, roll) <= min(0.5, 0.1 * 2**retries)
