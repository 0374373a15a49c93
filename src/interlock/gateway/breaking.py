"""When a tool counts as unstable, and when it is tried again: pure functions of counts, rules and the time they are given."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

import msgspec

from interlock.core.stability import Breaker, Retry

# Few calls leave no room for a share of them: this many retries within the window are always allowed.
FEW_RETRIES: Final = 2
RETRY_WINDOW_S: Final = 30
SPREAD: Final = 0.25


class Phase(StrEnum):
    """Where a breaker stands: calls go through, none does, or a few try whether it is over."""

    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"


class Counts(msgspec.Struct, frozen=True):
    """Calls that ended within a window, and how many of them failed."""

    calls: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(self.calls + other.calls, self.failed + other.failed)


class Window:
    """Counts of the last seconds, forgotten a second at a time."""

    def __init__(self, window_s: int) -> None:
        self.window_s = window_s
        self._seconds: deque[list[int]] = deque()

    def add(self, now_s: float, counts: Counts) -> None:
        """Count now. A clock that stood still counts into the second it stands at."""
        second = int(now_s)
        if self._seconds and self._seconds[-1][0] >= second:
            last = self._seconds[-1]
            last[1] += counts.calls
            last[2] += counts.failed
        else:
            self._forget(now_s)
            self._seconds.append([second, counts.calls, counts.failed])

    def counts(self, now_s: float) -> Counts:
        """What was counted within the window."""
        self._forget(now_s)
        return Counts(sum(item[1] for item in self._seconds), sum(item[2] for item in self._seconds))

    def _forget(self, now_s: float) -> None:
        while self._seconds and self._seconds[0][0] <= now_s - self.window_s:
            self._seconds.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._seconds.clear()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as it stands. `until_s` is when an open one may be tried; trials are `under_way` and `passed`."""

    phase: Phase = Phase.CLOSED
    since_s: float = 0.0
    until_s: float = 0.0
    under_way: int = 0
    passed: int = 0


def trips(rule: Breaker, counts: Counts) -> bool:
    """Whether these counts make an operation unstable."""
    return counts.calls >= rule.min_calls and counts.failed * 100 >= counts.calls * rule.failing_percent


def opened(rule: Breaker, now_s: float, dice: float) -> State:
    """Just opened. `dice` in [0, 1) spreads when processes try again."""
    return State(phase=Phase.OPEN, since_s=now_s, until_s=now_s + rule.open_s * (1 - SPREAD + 2 * SPREAD * dice))


def admitted(state: State, rule: Breaker, now_s: float, *, reads: bool, read_ok_s: float) -> tuple[State, bool]:
    """Whether a call goes through, and the state then. Anything else than closed makes it a trial.

    A read is tried first. What changes something goes one at a time, once a read of the same tool has succeeded
    (at `read_ok_s`) since the breaker may be tried, or nobody has read for one more open time.
    """
    if state.phase is Phase.CLOSED:
        return state, True
    if now_s < state.until_s:
        return state, False
    if not reads and read_ok_s < state.until_s and now_s < state.until_s + rule.open_s:
        return state, False
    at_once = rule.trials - state.passed if reads else 1
    if state.under_way >= at_once:
        return state, False
    trying = msgspec.structs.replace(state, phase=Phase.TRYING, under_way=state.under_way + 1)
    return trying, True


def tried(state: State, rule: Breaker, now_s: float, dice: float, *, passed: bool | None) -> State:
    """After a trial: `passed` is None when it says nothing about the tool (it was stopped, or its end is not known)."""
    if state.phase is not Phase.TRYING:
        return state  # another trial has decided meanwhile
    if passed is False:
        return opened(rule, now_s, dice)
    state = msgspec.structs.replace(state, under_way=state.under_way - 1, passed=state.passed + (passed is True))
    return State(since_s=now_s) if state.passed >= rule.trials else state


def wait_s(state: State, rule: Breaker, now_s: float) -> float:
    """When to come back to a breaker that let nothing through."""
    return max(state.until_s - now_s, rule.open_s / 10)


def may_retry(retry: Retry, made: Counts) -> bool:
    """Whether one more retry stays within the tool's budget; `made.failed` counts the retries among its calls."""
    return made.failed < FEW_RETRIES or (made.failed + 1) * 100 <= made.calls * retry.budget_percent


def pause_s(retry: Retry, retries: int, dice: float) -> float:
    """How long to wait before a retry when `retries` were made: anywhere below a cap that doubles (full jitter)."""
    return float(min(retry.most_ms, retry.first_ms * 2**retries)) * dice / 1000
