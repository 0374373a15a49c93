"""Keeps this process's lease renewed, and closes those of others that have run out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from interlock.core.ports import Clock
from interlock.core.terms import Posture
from interlock.gateway.lease import Granted, Lease
from interlock.gateway.limits import LEASE_MARGIN_S, LEASE_S
from interlock.store.errors import StoreError, StoreUnavailableError
from interlock.store.leases import Holder, LeaseLine, Leases, Told

_log = logging.getLogger(__name__)

RENEW_EVERY_S: Final = 0.25
RETRY_AFTER_S: Final = 0.05


class LeaseKeeper:
    """Renews in time, at once when a control has changed, and acknowledges what the lease has acted on."""

    def __init__(self, *, lease: Lease, line: LeaseLine, leases: Leases, clock: Clock) -> None:
        self._lease = lease
        self._line = line
        self._leases = leases
        self._clock = clock
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        lease.wanted = self._wake.set

    async def start(self) -> None:
        """Get the first lease. Raises `StoreUnavailableError`."""
        await self.renew()
        self._task = asyncio.create_task(self._run(), name="lease")

    async def stop(self) -> None:
        """Renew no more. What is still to be started runs out within a lease."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._line.reset()

    def told(self, told: Told) -> None:
        """A control has changed: act at once where all is said, and renew at once, which acknowledges or asks."""
        lease = self._lease
        if told.whole and told.epoch == lease.epoch + 1:
            lease.learn(told.epoch, {told.scope: told.epoch} if told.halted else {})
        self._wake.set()

    async def renew(self) -> None:
        """Renew until everything that the renewals tell has been acknowledged. Raises `StoreUnavailableError`."""
        lease = self._lease
        while True:
            sent_at_s, known = self._clock.monotonic_s(), lease.epoch
            stopped = lease.take_stopped()
            try:
                renewal = await self._line.renew(lease.incarnation, known, stopped)
            except BaseException:
                lease.give_back_stopped(stopped)
                raise
            if renewal is None:
                raise StoreUnavailableError("this process is not registered, so it gets no lease")
            postures = renewal.postures
            if postures is None and renewal.epoch != known:
                postures = {}  # there was a change, and none of it is a posture
            granted = Granted(
                epoch=renewal.epoch,
                incarnation=renewal.incarnation,
                settled=renewal.settled,
                stops=renewal.stops or {},
                postures=None if postures is None else {scope: Posture(name) for scope, name in postures.items()},
            )
            if not lease.granted(granted, sent_at_s=sent_at_s):
                break
        if not renewal.settled and lease.outlived():
            await self._leases.settle(renewal.incarnation)

    async def close_run_out(self) -> None:
        """Close the leases that have stood still for longer than a lease on our own clock."""
        now_s = self._clock.monotonic_s()
        holders = await self._leases.holders()
        seen: dict[str, tuple[int, float]] = {}
        for holder in holders:
            renewals, since_s = self._seen.get(holder.process_id, (-1, 0.0))
            if renewals != holder.renewals:
                seen[holder.process_id] = (holder.renewals, now_s)
            elif now_s - since_s > LEASE_S + LEASE_MARGIN_S:
                await self._close(holder)
            else:
                seen[holder.process_id] = (renewals, since_s)
        self._seen = seen

    async def _close(self, holder: Holder) -> None:
        _log.warning("the lease of %s has run out; it renews no more", holder.process_id)
        await self._leases.close(holder)

    async def _run(self) -> None:
        while True:
            # Cleared before renewing: what is heard meanwhile leads to another renewal.
            self._wake.clear()
            try:
                await self.renew()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), RENEW_EVERY_S)
                continue
            except StoreError as error:
                if self._lease.is_valid():
                    _log.warning("%s", error)
            except Exception:  # noqa: BLE001  # the keeper outlives every renewal; without one nothing starts
                _log.exception("a lease was not renewed")
            await self._line.reset()
            await asyncio.sleep(RETRY_AFTER_S)
