"""Leaving: from the signal to the end, in a time that is said before.

First a notice: this process answers `/readyz` with 503 and goes on serving, so that a load balancer sends nobody here any more.
Then nothing new is taken, and what is under way settles. Shortly before the time is up, or when somebody asks a second time,
whoever still waits is told to repeat the call elsewhere, and what is not settled by the end is left in doubt, by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from interlock.core.ports import Clock
from interlock.gateway.calls import Calls

LEAVE_WITHIN_S: Final = 25.0
LEAVE_NOTICE_S: Final = 5.0
# Of the time: for settling, signing and saying goodbye, once nobody waits for an answer any more.
LAST_WORDS_S: Final = 5.0
# How long ago a load balancer may have asked to count as one that is there.
WATCHED_S: Final = 60.0


class LeaveRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a process leaves. Without `notice_s`: 5 s when somebody has asked `/readyz` within the last minute, else none."""

    within_s: float = LEAVE_WITHIN_S
    notice_s: float | None = None
    last_words_s: float = LAST_WORDS_S

    def words_s(self) -> float:
        """What is kept of the time for last words; never more than half of it."""
        return min(self.last_words_s, self.within_s / 2)


class Leaving:
    """Whether this process is leaving, and until when. Belongs to the event loop's thread."""

    def __init__(self, rules: LeaveRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._began_s: float | None = None
        self._notice_s = 0.0
        self._watched_s: float | None = None
        self._hurried = asyncio.Event()
        self.begun: Callable[[], None] = lambda: None
        """Called once, at the beginning."""

    def has_begun(self) -> bool:
        """Whether nobody should be sent here any more."""
        return self._began_s is not None

    def watched(self) -> None:
        """Note that somebody has asked whether this process is ready."""
        self._watched_s = self._clock.monotonic_s()

    def begin(self, *, at_once: bool = False) -> None:
        """Begin to leave; `at_once` gives no notice. A second time changes nothing."""
        if self._began_s is not None:
            return
        self._began_s = self._clock.monotonic_s()
        self._notice_s = 0.0 if at_once else min(self._notice(), self._rules.within_s / 2)
        self.begun()

    def began_s(self) -> float:
        """When it began, on the process's clock; for ever after now when it has not."""
        return float("inf") if self._began_s is None else self._began_s

    def hurry(self) -> None:
        """Somebody has asked a second time: no notice any more, and no waiting for answers."""
        self._hurried.set()

    async def noticed(self) -> None:
        """Wait until the notice is over."""
        await self._sleep(self._notice_s)

    async def time_to_answer(self) -> None:
        """Wait until whoever still waits for an answer must get one."""
        await self._sleep(self._rules.within_s - self._rules.words_s())

    def words_s(self) -> float:
        """For how long to wait for calls that nobody waits for any more."""
        return min(self._rules.words_s(), self.left_s()) / 2

    def left_s(self) -> float:
        """How much of the time is left; all of it when the leaving has not begun."""
        return self._rules.within_s if self._began_s is None else max(0.0, self._until(self._rules.within_s))

    def _notice(self) -> float:
        if self._rules.notice_s is not None:
            return self._rules.notice_s
        watched = self._watched_s is not None and self._clock.monotonic_s() - self._watched_s < WATCHED_S
        return LEAVE_NOTICE_S if watched else 0.0

    def _until(self, after_s: float) -> float:
        return (self._clock.monotonic_s() if self._began_s is None else self._began_s) + after_s - self._clock.monotonic_s()

    async def _sleep(self, after_s: float) -> None:
        try:
            await asyncio.wait_for(self._hurried.wait(), max(0.0, self._until(after_s)))
        except TimeoutError:
            return


async def drained(calls: Calls, leaving: Leaving) -> tuple[str, ...]:
    """Wait until every call under way has settled, or there is no more time for it; gives those that have not."""
    ended = asyncio.ensure_future(calls.drain())
    no_more = asyncio.ensure_future(leaving.time_to_answer())
    try:
        await asyncio.wait({ended, no_more}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            calls.answer_now()
            await asyncio.wait({ended}, timeout=leaving.words_s())
    finally:
        ended.cancel()
        no_more.cancel()
    # INVARIANT: whoever is left is named: their claims become in doubt when this process is gone.
    return calls.unsettled(leaving.began_s())
