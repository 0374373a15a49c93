"""Who may call which tool now: breakers, places and retry budgets of one process, and what it knows of the others'.

Each process counts for itself and opens at once. What the others have counted it learns a second later, and not at all while
the database cannot be reached: it then goes by its own counts alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from interlock.core.contract import Contract
from interlock.core.ports import Clock
from interlock.gateway.breaking import (
    RETRY_WINDOW_S,
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
    wait_s,
)

OTHERS_HOLD_S: Final = 3.0
MAX_UNTOLD_CHANGES: Final = 1_000
_NEVER: Final = float("-inf")
_ONCE: Final = Counts(1, 0)
_AGAIN: Final = Counts(1, 1)  # a call that failed, or one that is a retry
UNSTABLE: Final = "tool_unavailable"
BUSY: Final = "tool_busy"


class Shut(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was sent: the tool is unstable (`tool_unavailable`) or has no place left (`tool_busy`)."""

    code: str
    after_ms: int
    detail: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker that opened, or closed again; with the counts it was decided by."""

    operation: str
    open: bool
    own: Counts = Counts()
    others: Counts = Counts()
    opens_for_ms: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What this process tells the others about an operation."""

    operation: str
    counts: Counts
    phase: Phase
    waits_ms: int


class _Kept:
    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.state = State()
        self.window = Window(contract.breaker.window_s)
        self.places = asyncio.Semaphore(contract.bulkhead.at_once)
        self.deaf_until_s = _NEVER


class Place:
    """A place among the calls under way. Whoever has it calls `leave`, once, whatever happens."""

    def __init__(self, leave: Callable[[bool | None], None]) -> None:
        self._leave: Callable[[bool | None], None] | None = leave

    def leave(self, passed: bool | None) -> None:
        """Give it back: True when the tool answered, False when it did not, None when this says nothing about it."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(passed)


Entered: TypeAlias = Place | Shut


class Stability:
    """Belongs to one event loop. Nothing here waits for anything but a place."""

    def __init__(self, *, clock: Clock, dice: Callable[[], float]) -> None:
        self._clock = clock
        self._dice = dice
        self._kept: dict[str, _Kept] = {}
        self._made: dict[str, Window] = {}
        self._read_ok_s: dict[str, float] = {}
        self._others: Mapping[str, Counts] = {}
        self._learned_s = _NEVER
        self._changes: list[Change] = []

    async def enter(self, contract: Contract, *, retry: bool = False) -> Entered:
        """A place for one call, or why there is none; `retry` says that it was made before."""
        kept = self._of(contract)
        if kept.state.phase is not Phase.CLOSED:
            shut = self._closed_to(kept)
            if shut is not None:
                return shut
        if kept.places.locked():
            try:
                async with asyncio.timeout(contract.bulkhead.wait_ms / 1000):
                    await kept.places.acquire()
            except TimeoutError:
                return Shut(code=BUSY, after_ms=1_000, detail=f"{contract.bulkhead.at_once} calls are under way")
        else:
            await kept.places.acquire()  # does not wait
        now_s = self._clock.monotonic_s()
        trial = kept.state.phase is not Phase.CLOSED
        if trial:
            read_ok_s = self._read_ok_s.get(contract.tool, _NEVER)
            kept.state, goes = admitted(kept.state, contract.breaker, now_s, reads=contract.is_read_only, read_ok_s=read_ok_s)
            if not goes:
                kept.places.release()
                return self._shut(kept)
        self._made_of(contract).add(now_s, _AGAIN if retry else _ONCE)
        return Place(lambda passed: self._left(kept, passed, trial=trial))

    def retry_in_s(self, contract: Contract, retries: int) -> float | None:
        """How long to wait before making a failed call again; None when it must not be."""
        rule = contract.retry
        safe = contract.is_read_only or contract.idempotency_argument is not None
        if not safe or retries + 1 >= rule.attempts:
            return None
        kept = self._of(contract)
        if kept.state.phase is not Phase.CLOSED:
            return None
        if not may_retry(rule, self._made_of(contract).counts(self._clock.monotonic_s())):
            return None
        return pause_s(rule, retries, self._dice())

    # -- what is shared ----------------------------------------------------------------------------------------------------

    def told(self) -> tuple[Told, ...]:
        """What the others should know: operations that were called lately or that are not let through."""
        now_s = self._clock.monotonic_s()
        found = []
        for operation, kept in self._kept.items():
            counts, state = kept.window.counts(now_s), kept.state
            if counts.calls or state.phase is not Phase.CLOSED:
                waits_ms = 0 if state.phase is Phase.CLOSED else max(0, int((state.until_s - now_s) * 1000))
                found.append(Told(operation=operation, counts=counts, phase=state.phase, waits_ms=waits_ms))
        return tuple(found)

    def phases(self) -> Counter[str]:
        """How many operations stand in each phase; every phase is named."""
        found = Counter({phase.value: 0 for phase in Phase})
        found.update(kept.state.phase.value for kept in self._kept.values())
        return found

    def learn(self, others: Mapping[str, Counts]) -> None:
        """What all other processes have counted, as it is now. Opens what this makes unstable."""
        self._others = dict(others)
        self._learned_s = self._clock.monotonic_s()
        for operation in others:
            kept = self._kept.get(operation)
            if kept is not None:
                self._judge(kept)

    def take_changes(self) -> list[Change]:
        """The breakers that opened or closed since this was asked last."""
        changes, self._changes = self._changes, []
        return changes

    def give_back(self, changes: list[Change]) -> None:
        """These could not be put on record: they are given again, the newest when there are too many."""
        self._changes = (changes + self._changes)[-MAX_UNTOLD_CHANGES:]

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _of(self, contract: Contract) -> _Kept:
        kept = self._kept.get(contract.operation)
        if kept is None:
            kept = self._kept[contract.operation] = _Kept(contract)
            self._judge(kept)
        elif kept.contract is not contract:
            kept = self._renewed(kept, contract)
        return kept

    def _renewed(self, kept: _Kept, contract: Contract) -> _Kept:
        """Another release: what is known of the tool stays, its rules are the new ones."""
        if kept.contract.bulkhead != contract.bulkhead or kept.contract.breaker.window_s != contract.breaker.window_s:
            fresh = _Kept(contract)
            fresh.state, fresh.deaf_until_s = kept.state, kept.deaf_until_s
            if kept.state.phase is Phase.TRYING:
                # The trials under way report to the place they came from; here they begin anew.
                fresh.state = msgspec.structs.replace(kept.state, phase=Phase.OPEN, under_way=0, passed=0)
            kept = self._kept[contract.operation] = fresh
        kept.contract = contract
        return kept

    def _made_of(self, contract: Contract) -> Window:
        made = self._made.get(contract.tool)
        if made is None:
            made = self._made[contract.tool] = Window(RETRY_WINDOW_S)
        return made

    def _closed_to(self, kept: _Kept) -> Shut | None:
        """Refuse before waiting for a place; nothing is taken yet."""
        contract = kept.contract
        _, goes = admitted(
            kept.state,
            contract.breaker,
            self._clock.monotonic_s(),
            reads=contract.is_read_only,
            read_ok_s=self._read_ok_s.get(contract.tool, _NEVER),
        )
        return None if goes else self._shut(kept)

    def _shut(self, kept: _Kept) -> Shut:
        after_s = wait_s(kept.state, kept.contract.breaker, self._clock.monotonic_s())
        return Shut(code=UNSTABLE, after_ms=int(after_s * 1000) + 1, detail=f"its breaker is {kept.state.phase.value}")

    def _left(self, kept: _Kept, passed: bool | None, *, trial: bool) -> None:
        kept.places.release()
        contract, now_s = kept.contract, self._clock.monotonic_s()
        if passed is not None:
            kept.window.add(now_s, _ONCE if passed else _AGAIN)
        if passed and contract.is_read_only:
            self._read_ok_s[contract.tool] = now_s
        if not trial:
            if passed is False:
                self._judge(kept)
            return
        before = kept.state
        kept.state = tried(before, contract.breaker, now_s, self._dice(), passed=passed)
        if kept.state.phase is Phase.CLOSED and before.phase is not Phase.CLOSED:
            kept.window.clear()
            # What the others counted before they knew is old by then.
            kept.deaf_until_s = now_s + contract.breaker.window_s
            self._note(Change(operation=contract.operation, open=False))

    def _judge(self, kept: _Kept) -> None:
        if kept.state.phase is not Phase.CLOSED:
            return
        now_s, rule = self._clock.monotonic_s(), kept.contract.breaker
        own, others = kept.window.counts(now_s), self._counted_by_others(kept, now_s)
        if trips(rule, own) or trips(rule, own + others):
            kept.state = opened(rule, now_s, self._dice())
            opens_for_ms = int((kept.state.until_s - now_s) * 1000)
            self._note(Change(operation=kept.contract.operation, open=True, own=own, others=others, opens_for_ms=opens_for_ms))

    def _counted_by_others(self, kept: _Kept, now_s: float) -> Counts:
        if now_s - self._learned_s > OTHERS_HOLD_S or now_s < kept.deaf_until_s:
            return Counts()
        return self._others.get(kept.contract.operation, Counts())

    def _note(self, change: Change) -> None:
        self._changes = [*self._changes, change][-MAX_UNTOLD_CHANGES:]
