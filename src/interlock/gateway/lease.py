"""The lease: what this process may start, and until when. Without a valid one it starts nothing, reads included.

Time is counted on the clock of this process, from before a renewal was sent; no other clock matters. The database says only
which controls have changed, numbered by the control epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from interlock.core.claim import LineageState
from interlock.core.ports import Clock
from interlock.core.terms import QUARANTINE, RESTORED, Posture
from interlock.gateway.limits import LAST_START_S, LEASE_MARGIN_S, LEASE_S, MAX_REMEMBERED_STOPS, SWEEP_MS
from interlock.policy.permit import Permit
from interlock.tools.port import PauseGuard

_NEVER: Final = float("-inf")
_Value = TypeVar("_Value")


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


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides whether something may start. Never changed, only replaced as a whole.

    `stops` gives the epoch at which a scope was last halted; what was permitted before `floor` is stopped whatever its scope.
    """

    epoch: int = 0
    incarnation: str = ""
    floor: int = 0
    stops: Mapping[str, int] = {}
    postures: Mapping[str, Posture] = {}
    until_s: float = _NEVER
    not_before_s: float = _NEVER
    settles_s: float = _NEVER


class Lease:
    """Belongs to two threads: the keeper's, which says what was granted, and the gate's, which asks before anything starts.

    There is no lock that one holds while the other waits. What is known is one frozen struct, replaced by the keeper's thread
    alone; what is on its way to its first byte is noted by the gate's thread alone. In CPython the reading or replacing of a
    reference and each change of a dict or list is one step, which both threads see in the same order. The promise hangs on it:

    - the gate opens a section, reads what is known, uses up the permit, writes the first byte, and closes the section;
    - the keeper replaces what is known, revokes the unsent permits, waits for the sections that are open (`swept`), and
      acknowledges.

    A section that has read what was known before is open when the keeper looks, so the acknowledgement comes after its write.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known = _Known()
        self._surrendered = False
        self._unsent: dict[str, _Unsent] = {}
        self._sections: dict[int, Section] = {}
        self._stopped: list[str] = []
        self._home: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.wanted: Callable[[], None] = lambda: None

    # -- what the keeper tells, in its thread ----------------------------------------------------------------------------

    def granted(self, granted: Granted, *, sent_at_s: float) -> bool:
        """Take over a renewal that was sent at `sent_at_s`. True when it told of something that must be acknowledged."""
        known = self._known
        news = granted.epoch > known.epoch or granted.incarnation != known.incarnation
        if granted.incarnation != known.incarnation:
            # What was known is of another life of the database: nothing that was permitted in it may start in this one.
            over_s = LEASE_S + LEASE_MARGIN_S
            wait = bool(known.incarnation) or not granted.settled
            self._known = msgspec.structs.replace(
                known,
                epoch=granted.epoch,
                floor=granted.epoch,
                stops={},
                incarnation=granted.incarnation,
                not_before_s=sent_at_s + over_s if wait else known.not_before_s,
                settles_s=self._clock.monotonic_s() + over_s,
            )
            self._revoke(list(_values(self._unsent)))
        if granted.postures is not None:
            self._known = msgspec.structs.replace(self._known, postures=dict(granted.postures))
        self.learn(granted.epoch, granted.stops)
        self._known = msgspec.structs.replace(self._known, until_s=max(self._known.until_s, sent_at_s + LEASE_S))
        if self._waiting and self.is_valid():
            self._at_home(self._wake)
        return news

    def learn(self, epoch: int, stops: Mapping[str, int]) -> None:
        """Act on controls up to `epoch`: unsent permits in the scopes that were halted are used up, and their calls stopped."""
        known = self._known
        if epoch <= known.epoch and not stops:
            return
        floor, kept = known.floor, dict(known.stops)
        for scope, halted_epoch in stops.items():
            kept[scope] = max(halted_epoch, kept.pop(scope, 0))
        while len(kept) > MAX_REMEMBERED_STOPS:
            # INVARIANT: what is forgotten stops everything that it could have stopped.
            floor = max(floor, kept.pop(next(iter(kept))))
        self._known = known = msgspec.structs.replace(known, epoch=max(known.epoch, epoch), floor=floor, stops=kept)
        if stops:
            self._revoke([unsent for unsent in _values(self._unsent) if _stopped_by(known, unsent.permit) is not None])

    async def swept(self) -> None:
        """Wait for the first bytes that are being written at this moment. What was learnt may be acknowledged after it.

        INVARIANT: after it no permit is spent, and no first byte written, that what was learnt before has stopped.
        """
        for section in _values(self._sections):
            while self._sections.get(id(section)) is section:  # noqa: ASYNC110  # an event would cost every call
                await asyncio.sleep(SWEEP_MS / 1000)

    def take_stopped(self) -> tuple[str, ...]:
        """The claims that were stopped before their first byte since this was asked last."""
        stopped, self._stopped = tuple(self._stopped), []
        return stopped

    def give_back_stopped(self, claim_ids: Iterable[str]) -> None:
        """The database did not hear of these: they are told again."""
        self._stopped += claim_ids

    def outlived(self) -> bool:
        """Whether a whole lease has passed since this life of the database was first seen."""
        return self._clock.monotonic_s() >= self._known.settles_s > _NEVER

    # -- what the gate asks, in its own ----------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The control epoch that this process has acted on."""
        return self._known.epoch

    @property
    def incarnation(self) -> str:
        """The life of the database that is known."""
        return self._known.incarnation

    @property
    def until_s(self) -> float:
        """When the lease ends, on this process's clock."""
        return self._known.until_s

    def surrender(self) -> None:
        """Start nothing more, whatever is granted later."""
        self._surrendered = True

    def is_valid(self) -> bool:
        """Whether anything may start now."""
        return self.remaining_s() > 0

    def remaining_s(self) -> float:
        """How long things may still start; never more than a lease, not positive when they may not."""
        return self._remaining_s(self._known)

    async def ready(self, wait_ms: int, *, epoch: int = 0) -> bool:
        """Whether a lease is held that knows of `epoch`, waiting a moment for it."""
        if self._suffices(epoch):
            return True
        self._home = asyncio.get_running_loop()
        until_s = self._clock.monotonic_s() + wait_ms / 1000
        while True:
            future: asyncio.Future[None] = self._home.create_future()
            self._waiting.append(future)
            # Asked after it was noted that we wait: what is granted from now on wakes us.
            if self._suffices(epoch):
                return True
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return False
            self.wanted()
            await asyncio.wait((future,), timeout=left_s)

    def in_force(self, state: LineageState, scopes: Iterable[str]) -> LineageState:
        """The lineage's state with the posture in force: its own, or that of a scope which is more worried."""
        known = self._known.postures
        if not known:
            return state
        postures = (known.get(scope, Posture.NORMAL) for scope in (*scopes, RESTORED))
        return msgspec.structs.replace(state, posture=max((state.posture, *postures), key=_ORDER.index))

    @property
    def is_restored(self) -> bool:
        """Whether the database was restored to an earlier point, and nobody has resumed it."""
        return self._known.postures.get(RESTORED) is Posture.READ_ONLY

    def check(self, permit: Permit) -> None:
        """Raise `NotStartedError` unless the call of this permit may start now.

        Ask again right where the first byte leaves, inside of a `section`.
        """
        known = self._known
        if self._remaining_s(known) < LAST_START_S:
            raise NotStartedError("control_plane_unavailable", "this process holds no lease")
        scope = _stopped_by(known, permit)
        if scope is not None:
            code = "quarantined" if scope.startswith(f"{QUARANTINE}:") else "halted"
            raise NotStartedError(code, f"stopped: {scope}", scope)

    def section(self, guard: PauseGuard | None) -> Section:
        """What one call stands in between its last check and its first byte, with the guard against pauses inside of it."""
        return Section(self._sections, guard)

    def hold(self, permit: Permit, stop: Callable[[], None]) -> None:
        """A claimed call is on its way to its first byte: `stop` is called here if a control halts it before. Pair with `drop`.

        Raises `NotStartedError` when it is halted already.
        """
        self._home = asyncio.get_running_loop()
        self._unsent[permit.claim_id] = _Unsent(permit, stop)
        try:
            self.check(permit)  # after it is noted, so that nothing which is learnt in between is missed
        except NotStartedError:
            self.drop(permit)
            raise

    def drop(self, permit: Permit) -> None:
        """The call is sent, or over."""
        self._unsent.pop(permit.claim_id, None)

    # -- both ------------------------------------------------------------------------------------------------------------

    def _suffices(self, epoch: int) -> bool:
        known = self._known
        return known.epoch >= epoch and self._remaining_s(known) > 0

    def _remaining_s(self, known: _Known) -> float:
        now_s = self._clock.monotonic_s()
        if self._surrendered or not known.not_before_s <= now_s < known.until_s:
            return 0.0
        return known.until_s - now_s

    def _revoke(self, unsent: list[_Unsent]) -> None:
        for one in unsent:
            if one.permit.revoke():
                self._stopped.append(one.permit.claim_id)
                self._at_home(self._stop, one)

    def _stop(self, one: _Unsent) -> None:
        # A call that has ended meanwhile is settling what became of it, and must not be disturbed.
        if self._unsent.get(one.permit.claim_id) is one:
            one.stop()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _at_home(self, act: Callable[..., object], *arguments: object) -> None:
        home = self._home
        if home is not None:
            with contextlib.suppress(RuntimeError):  # the gate's loop is closed: nobody is left to be told
                home.call_soon_threadsafe(act, *arguments)


class Section:
    """Implements `StartGuard` for one call. Entered and left in the gate's thread; the keeper's waits until it is left."""

    __slots__ = ("_guard", "_open")

    def __init__(self, sections: dict[int, Section], guard: PauseGuard | None) -> None:
        self._open = sections
        self._guard = guard

    def arm(self) -> None:
        """From here on nothing is acknowledged, and a pause that outlasts the lease ends this process."""
        self.enter()
        if self._guard is not None:
            try:
                self._guard.arm()
            except BaseException:
                self.leave()
                raise

    def disarm(self) -> None:
        """The write has been handed to the kernel, or will not happen."""
        try:
            if self._guard is not None:
                self._guard.disarm()
        finally:
            self.leave()

    def begin(self) -> None:
        """From here on a pause ends nothing any more; still nothing is acknowledged before `leave`."""
        if self._guard is not None:
            self._guard.disarm()

    def enter(self) -> None:
        """From here on nothing is acknowledged."""
        self._open[id(self)] = self

    def leave(self) -> None:
        """What was to start has started, or will not."""
        self._open.pop(id(self), None)


def _stopped_by(known: _Known, permit: Permit) -> str | None:
    if permit.control_epoch < known.floor:
        return "something since its claim"
    if permit.control_epoch >= known.epoch:
        return None
    for scope in permit.scopes:
        if known.stops.get(scope, 0) > permit.control_epoch:
            return scope
    return None


def _values(changing: Mapping[Any, _Value]) -> list[_Value]:
    """The values of a dict that another thread changes."""
    while True:
        try:
            return list(changing.values())
        except RuntimeError:
            continue  # it changed size meanwhile


_ORDER: Final = tuple(Posture)
