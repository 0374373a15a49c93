"""Keeps this process's lease renewed, and closes those of others that have run out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from typing import Final

from interlock.core.ports import Clock
from interlock.core.terms import Posture
from interlock.gateway.lease import Granted, Lease
from interlock.gateway.limits import LEASE_MARGIN_S, LEASE_S, LEASE_WAIT_MS
from interlock.store.errors import StoreError, StoreUnavailableError
from interlock.store.leases import Holder, LeaseLine, Leases, Renewal, Told

_log = logging.getLogger(__name__)

RENEW_EVERY_S: Final = 0.25
RETRY_AFTER_S: Final = 0.05
THREAD: Final = "lease"
# A busy gate gives the interpreter away to the lease's thread after this long, not after Python's 5 ms; there is no cost
# while no other thread wants it.
SWITCH_INTERVAL_S: Final = 0.0005


class LeaseKeeper:
    """Renews in time, at once when a control has changed, and acknowledges what the lease has acted on.

    It does so in a thread and an event loop of its own: however many calls the gate's loop has to carry, an acknowledgement
    waits for none of them. A hung gate keeps its lease, and knows what was stopped when it goes on. When the thread ends, for
    whatever reason, the lease runs out and nothing starts.
    """

    def __init__(self, *, lease: Lease, line: LeaseLine, leases: Leases, clock: Clock) -> None:
        self._lease = lease
        self._line = line
        self._leases = leases
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # Of the thread's loop:
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        lease.wanted = self.hurry

    # -- in the gate's thread --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Get the first lease. Raises `StoreUnavailableError`."""
        sys.setswitchinterval(min(SWITCH_INTERVAL_S, sys.getswitchinterval()))
        home = asyncio.get_running_loop()
        started: asyncio.Future[None] = home.create_future()
        self._ended = home.create_future()
        # The same kind of loop as the gate's: uvloop where there is one.
        self._thread = threading.Thread(target=self._live, args=(home, started), name=THREAD, daemon=True)
        self._thread.start()
        await started
        await self._lease.ready(LEASE_WAIT_MS)  # in a new life of the database it is not valid at once

    async def stop(self) -> None:
        """Renew no more, and end the thread. What is still to be started runs out within a lease."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._from_elsewhere(lambda: self._task is None or self._task.cancel())
        await self._ended
        thread.join()

    def is_alive(self) -> bool:
        """Whether the thread that renews is there."""
        return self._thread is not None and self._thread.is_alive()

    def hurry(self) -> None:
        """Renew now. From any thread."""
        self._from_elsewhere(self._wake.set)

    async def renew(self) -> None:
        """Renew until everything that the renewals tell has been acknowledged. Raises `StoreUnavailableError`."""
        if self._loop is None:
            raise StoreUnavailableError("the lease is not kept: its thread has ended")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._renew(), self._loop))

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
        about = {"event": "lease.run_out", "process_id": holder.process_id}
        _log.warning("the lease of %s has run out; it renews no more", holder.process_id, extra=about)
        await self._leases.close(holder)

    def _from_elsewhere(self, act: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(act)

    # -- in the thread of its own ----------------------------------------------------------------------------------------

    def told(self, told: Told) -> None:
        """A control has changed: act at once where all is said, and renew at once, which acknowledges or asks."""
        lease = self._lease
        if told.whole and told.epoch == lease.epoch + 1:
            lease.learn(told.epoch, {told.scope: told.epoch} if told.halted else {})
        self._wake.set()

    def _live(self, home: asyncio.AbstractEventLoop, started: asyncio.Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=type(home)) as runner:
                runner.run(self._main(home, started))
        except BaseException as error:  # noqa: BLE001  # whatever it is, the process must say so
            if not (self._stopping and isinstance(error, asyncio.CancelledError)):
                _log.critical(
                    "the thread that keeps the lease has died: this process starts nothing more; restart it",
                    exc_info=True,
                    extra={"event": "lease.keeper_died"},
                )
        finally:
            self._loop = None
            with contextlib.suppress(RuntimeError):  # the gate's loop has gone before us
                home.call_soon_threadsafe(_settle, self._ended, None)
                home.call_soon_threadsafe(_settle, started, StoreUnavailableError("no lease: its thread has ended"))

    async def _main(self, home: asyncio.AbstractEventLoop, started: asyncio.Future[None]) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self._stopping:  # before we were there to be told
                return
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is for whoever starts us
                home.call_soon_threadsafe(_settle, started, error)
                return
            home.call_soon_threadsafe(_settle, started, None)
            await self._run()
        finally:
            self._line.reset()

    async def _run(self) -> None:
        while True:
            # Cleared before renewing: what is heard meanwhile leads to another renewal.
            self._wake.clear()
            try:
                await self._renew()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), RENEW_EVERY_S)
                continue
            except StoreError as error:
                if self._lease.is_valid():
                    _log.warning("%s", error, extra={"event": "lease.not_renewed"})
            except Exception:  # noqa: BLE001  # the keeper outlives every renewal; without one nothing starts
                _log.exception("a lease was not renewed", extra={"event": "lease.not_renewed"})
            self._line.reset()
            await asyncio.sleep(RETRY_AFTER_S)

    async def _renew(self) -> None:
        lease = self._lease
        async with self._turn:
            while True:
                sent_at_s, known = self._clock.monotonic_s(), lease.epoch
                # INVARIANT: what is acknowledged was learnt before this wait, so no first byte that it stops is still to come.
                await lease.swept()
                stopped = lease.take_stopped()
                try:
                    renewal = await self._line.renew(lease.incarnation, known, stopped)
                except BaseException:
                    lease.give_back_stopped(stopped)
                    raise
                if renewal is None:
                    raise StoreUnavailableError("this process is not registered, so it gets no lease")
                if not lease.granted(_granted(renewal, known), sent_at_s=sent_at_s):
                    break
            if not renewal.settled and lease.outlived():
                await self._line.settle(renewal.incarnation)


def _granted(renewal: Renewal, known: int) -> Granted:
    postures = renewal.postures
    if postures is None and renewal.epoch != known:
        postures = {}  # there was a change, and none of it is a posture
    return Granted(
        epoch=renewal.epoch,
        incarnation=renewal.incarnation,
        settled=renewal.settled,
        stops=renewal.stops or {},
        postures=None if postures is None else {scope: Posture(name) for scope, name in postures.items()},
    )


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
