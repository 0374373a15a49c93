"""The lease: what this process may start, and until when. Without a valid one it starts nothing, reads included.

Time is counted on the clock of this process, from before a renewal was sent; no other clock matters. The database says only
which controls have changed, numbered by the control epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from interlock.core.claim import LineageState
from interlock.core.ports import Clock
from interlock.core.terms import QUARANTINE, Posture
from interlock.gateway.limits import LAST_START_S, LEASE_MARGIN_S, LEASE_S, MAX_REMEMBERED_STOPS
from interlock.policy.permit import Permit

_NO_LEASE: Final = float("-inf")


class NotStartedError(Exception):
    """The call may not start now; nothing of it was sent. `code` is a refusal code, `scope` the control that stopped it."""

    def __init__(self, code: str, detail: str, scope: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.scope = scope


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a renewal brought back. `stops` gives scopes halted since what was known, with the epoch at which they were.

    `postures` are those of all scopes that are not `normal`; None when nothing has changed.
    """

    epoch: int
    incarnation: str
    settled: bool
    stops: Mapping[str, int] = {}
    postures: Mapping[str, Posture] | None = None


class _Unsent(msgspec.Struct, frozen=True):
    permit: Permit
    stop: Callable[[], None]


class Lease:
    """Belongs to one event loop. Whoever renews it tells it what was granted; the gate asks it before anything starts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s = _NO_LEASE
        self._not_before_s = _NO_LEASE
        self._settles_s = _NO_LEASE
        self._stops: dict[str, int] = {}
        self._floor = 0
        self._postures: Mapping[str, Posture] = {}
        self._unsent: dict[str, _Unsent] = {}
        self._stopped: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.epoch = 0
        self.incarnation = ""
        self.wanted: Callable[[], None] = lambda: None

    # -- what the keeper tells -----------------------------------------------------------------------------------------

    def granted(self, granted: Granted, *, sent_at_s: float) -> bool:
        """Take over a renewal that was sent at `sent_at_s`. True when it told of something that must be acknowledged."""
        news = granted.epoch > self.epoch or granted.incarnation != self.incarnation
        if granted.incarnation != self.incarnation:
            # What was known is of another life of the database: nothing that was permitted in it may start in this one.
            self._revoke(list(self._unsent.values()))
            self._stops.clear()
            self._floor, self.epoch = granted.epoch, granted.epoch
            if self.incarnation or not granted.settled:
                self._not_before_s = sent_at_s + LEASE_S + LEASE_MARGIN_S
            self.incarnation = granted.incarnation
            self._settles_s = self._clock.monotonic_s() + LEASE_S + LEASE_MARGIN_S
        if granted.postures is not None:
            self._postures = dict(granted.postures)
        self.learn(granted.epoch, granted.stops)
        self._until_s = max(self._until_s, sent_at_s + LEASE_S)
        if self.is_valid():
            self._wake()
        return news

    def learn(self, epoch: int, stops: Mapping[str, int]) -> None:
        """Act on controls up to `epoch`: unsent permits in the scopes that were halted are used up, and their calls stopped."""
        if epoch <= self.epoch and not stops:
            return
        for scope, halted_epoch in stops.items():
            self._stops[scope] = max(halted_epoch, self._stops.pop(scope, 0))
        while len(self._stops) > MAX_REMEMBERED_STOPS:
            # INVARIANT: what is forgotten stops everything that it could have stopped.
            self._floor = max(self._floor, self._stops.pop(next(iter(self._stops))))
        self.epoch = max(self.epoch, epoch)
        if stops:
            self._revoke([waiting for waiting in self._unsent.values() if self._stopped_by(waiting.permit) is not None])

    def take_stopped(self) -> tuple[str, ...]:
        """The claims that were stopped before their first byte since this was asked last."""
        stopped, self._stopped = tuple(self._stopped), []
        return stopped

    def give_back_stopped(self, claim_ids: Iterable[str]) -> None:
        """The database did not hear of these: they are told again."""
        self._stopped += claim_ids

    def surrender(self) -> None:
        """Start nothing more, whatever is granted later."""
        self._not_before_s = float("inf")

    def outlived(self) -> bool:
        """Whether a whole lease has passed since this life of the database was first seen."""
        return self._clock.monotonic_s() >= self._settles_s > _NO_LEASE

    # -- what the gate asks ----------------------------------------------------------------------------------------------

    def is_valid(self) -> bool:
        """Whether anything may start now."""
        return self._not_before_s <= self._clock.monotonic_s() < self._until_s

    @property
    def until_s(self) -> float:
        """When the lease ends, on this process's clock."""
        return self._until_s

    def remaining_s(self) -> float:
        """How long things may still start; never more than a lease, not positive when they may not."""
        return self._until_s - self._clock.monotonic_s() if self.is_valid() else 0.0

    async def ready(self, wait_ms: int, *, epoch: int = 0) -> bool:
        """Whether a lease is held that knows of `epoch`, waiting a moment for it."""
        until_s = self._clock.monotonic_s() + wait_ms / 1000
        while not (self.is_valid() and self.epoch >= epoch):
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return False
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self.wanted()
            await asyncio.wait((future,), timeout=left_s)
        return True

    def in_force(self, state: LineageState, scopes: Iterable[str]) -> LineageState:
        """The lineage's state with the posture in force: its own, or that of a scope which is more worried."""
        if not self._postures:
            return state
        postures = (self._postures.get(scope, Posture.NORMAL) for scope in scopes)
        return msgspec.structs.replace(state, posture=max((state.posture, *postures), key=_ORDER.index))

    def check(self, permit: Permit) -> None:
        """Raise `NotStartedError` unless the call of this permit may start now. Ask again right where the first byte leaves."""
        if not self.is_valid() or self.remaining_s() < LAST_START_S:
            raise NotStartedError("control_plane_unavailable", "this process holds no lease")
        scope = self._stopped_by(permit)
        if scope is not None:
            code = "quarantined" if scope.startswith(f"{QUARANTINE}:") else "halted"
            raise NotStartedError(code, f"stopped: {scope}", scope)

    def hold(self, permit: Permit, stop: Callable[[], None]) -> None:
        """A claimed call is on its way to its first byte: `stop` is called if a control halts it before. Pair with `drop`."""
        self._unsent[permit.claim_id] = _Unsent(permit, stop)

    def drop(self, permit: Permit) -> None:
        """The call is sent, or over."""
        self._unsent.pop(permit.claim_id, None)

    def _stopped_by(self, permit: Permit) -> str | None:
        if permit.control_epoch < self._floor:
            return "something since its claim"
        if permit.control_epoch >= self.epoch:
            return None
        for scope in permit.scopes:
            if self._stops.get(scope, 0) > permit.control_epoch:
                return scope
        return None

    def _revoke(self, waiting: list[_Unsent]) -> None:
        for unsent in waiting:
            if unsent.permit.revoke():
                self._stopped.append(unsent.permit.claim_id)
                unsent.stop()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


_ORDER: Final = tuple(Posture)
