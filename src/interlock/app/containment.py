"""Stopping: bump the epoch, wait for every lease to acknowledge it or to run out, and say what became of what was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from interlock.core.event import EventDraft
from interlock.core.ports import Clock
from interlock.gateway.limits import LEASE_MARGIN_S, LEASE_S
from interlock.store.controls import ControlAnswer, Controls, InFlight
from interlock.store.errors import StoreUnavailableError
from interlock.store.leases import EndedClaim, Holder, Leases

FIRST_LOOK_MS: Final = 2.0
MOST_BETWEEN_LOOKS_MS: Final = 4.0
MAX_TOLD_CALLS: Final = 1_000

ACKNOWLEDGED: Final = "acknowledged"
RUN_OUT: Final = "ran out"
GONE: Final = "gone"
NOT_IN_MARK: Final = (
    "It is not in the mark yet, so a restore of the database could lose it: look at the disk of the marks. "
    "It is tried every second."
)


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one process: it `acknowledged`, its lease `ran out`, or it is `gone`."""

    process_id: str
    environment: str
    lease: str


class StoppedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was claimed when the kill came.

    `became` is `cancelled` (certainly not sent), `finished`, `failed`, `in_doubt`, or `may_still_take_effect`.
    """

    claim_id: str
    call_id: str
    operation: str
    process_id: str
    became: str


class KillAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is certain when it is given: no claim in the scope commits, and no process writes a first byte of one.

    `processes` is None when the database went away while we waited: then every lease has run out. `in_flight` are
    the first thousand of `in_flight_total`.
    """

    scope: str
    epoch: int
    halted: bool = True
    took_ms: float
    processes: tuple[HeldLease, ...] | None
    in_flight: tuple[StoppedCall, ...]
    in_flight_total: int
    note: str = ""


class Containment:
    """The kill switch. Raises `StoreUnavailableError` only when nothing is known to have been stopped."""

    def __init__(self, *, controls: Controls, leases: Leases, clock: Clock, noted: Callable[[], Awaitable[bool]]) -> None:
        """`noted` puts what is stopped where a restore of the database cannot lose it; false when it could not."""
        self._noted = noted
        self._controls = controls
        self._leases = leases
        self._clock = clock

    async def stop(self, *, scope: str, reason: str, by: str, event: EventDraft, note: str = "") -> KillAnswer:
        """Halt a scope and wait until that is true everywhere."""
        began_s = self._clock.monotonic_s()
        changed = await self._controls.change(scope=scope, halted=True, reason=reason, by=by, event=event)
        # INVARIANT: a lease that does not know of this epoch was asked for before now, so it ends within a lease of now.
        over_s = self._clock.monotonic_s() + LEASE_S + LEASE_MARGIN_S
        told = changed.in_flight[:MAX_TOLD_CALLS]
        processes: tuple[HeldLease, ...] | None
        ended: Mapping[str, EndedClaim] = {}
        unsent: frozenset[str] = frozenset()
        try:
            processes, unsent = await self._acknowledged(changed, over_s)
            ended = await self._leases.ended([call.claim_id for call in told]) if told else {}
        except StoreUnavailableError:
            await self._wait_until(over_s)
            processes = None
        if not await self._noted():
            note = f"{note} {NOT_IN_MARK}".strip()
        took_ms = (self._clock.monotonic_s() - began_s) * 1000
        calls = tuple(_became(call, ended.get(call.claim_id), unsent) for call in told)
        return KillAnswer(
            scope=scope,
            epoch=changed.epoch,
            took_ms=round(took_ms, 1),
            processes=processes,
            in_flight=calls,
            in_flight_total=len(changed.in_flight),
            note=note,
        )

    async def _acknowledged(self, changed: ControlAnswer, over_s: float) -> tuple[tuple[HeldLease, ...], frozenset[str]]:
        """Wait for every lease to acknowledge the epoch or run out; gives what became of each, and the claims never sent."""
        first = {holder.process_id: holder for holder in await self._leases.holders()}
        now = first
        pause_ms = FIRST_LOOK_MS
        while self._clock.monotonic_s() < over_s:
            silent = [name for name in first if name in now and now[name].acked_epoch < changed.epoch]
            if not silent and changed.settled:
                break
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(MOST_BETWEEN_LOOKS_MS, pause_ms * 2)
            now = {holder.process_id: holder for holder in await self._leases.holders()}
        found = tuple(_held(holder, now.get(name), changed.epoch) for name, holder in first.items())
        return found, frozenset(claim for holder in now.values() for claim in holder.unsent)

    async def _wait_until(self, until_s: float) -> None:
        await asyncio.sleep(max(0.0, until_s - self._clock.monotonic_s()))


def _held(before: Holder, now: Holder | None, epoch: int) -> HeldLease:
    lease = GONE if now is None else ACKNOWLEDGED if now.acked_epoch >= epoch else RUN_OUT
    return HeldLease(process_id=before.process_id, environment=before.environment, lease=lease)


def _became(call: InFlight, ended: EndedClaim | None, unsent: frozenset[str]) -> StoppedCall:
    if call.claim_id in unsent or (ended is not None and (ended.state, ended.code) == ("failed", "halted")):
        became = "cancelled"
    elif ended is None or ended.state == "claimed":
        became = "may_still_take_effect"
    else:
        became = {"succeeded": "finished"}.get(ended.state, ended.state)
    return StoppedCall(
        claim_id=call.claim_id, call_id=call.call_id, operation=call.operation, process_id=call.process_id, became=became
    )
