"""Every figure of one process: what its calls left, how it stands now, and what the database says of all of them."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from interlock import __version__
from interlock.app.risk import RiskWatch
from interlock.app.shelf import StoredReleases
from interlock.core.ports import Clock
from interlock.gateway.lease import Lease
from interlock.gateway.stability import Stability
from interlock.identity.refusals import RefusalCounter
from interlock.store.budgets import Budgets
from interlock.store.database import Database
from interlock.store.errors import StoreError
from interlock.store.figures import standing_figures
from interlock.store.writer import Writer
from interlock.telemetry import catalogue as c
from interlock.telemetry.calls import CallTelemetry
from interlock.telemetry.figures import Figure, Figures, counted, spread
from interlock.telemetry.tallies import Labels

DATABASE_WAIT_S: Final = 1.0
DATABASE_EVERY_S: Final = 5.0
TIGHT_PERCENT: Final = 50
MAX_TIGHT: Final = 200


class Watched(Protocol):
    """The parts of a process that have figures of their own."""

    budgets: Budgets
    writer: Writer
    risk: RiskWatch
    lease: Lease
    stability: Stability
    refusals: RefusalCounter


class ProcessFigures:
    """Gathers figures for whoever asks; the database is asked once in five seconds, and waited for a second at most."""

    def __init__(
        self,
        database: Database,
        environment: str,
        telemetry: CallTelemetry,
        shelf: StoredReleases,
        *,
        clock: Clock,
        of: Watched,
    ) -> None:
        self._telemetry = telemetry
        self._database = database
        self._environment = environment
        self._budgets = of.budgets
        self._writer = of.writer
        self._risk = of.risk
        self._lease = of.lease
        self._stability = of.stability
        self._refusals = of.refusals
        self._shelf = shelf
        self._clock = clock
        self._since_us = clock.wall_us()
        self._shared: tuple[Figure, ...] = ()
        self._asked_s = float("-inf")
        self._asking = asyncio.Lock()

    async def now(self) -> Figures:
        """All figures. Never raises for what the database does: what it says of all processes is then left out."""
        async with self._asking:
            if self._clock.monotonic_s() - self._asked_s >= DATABASE_EVERY_S:
                self._shared = await self._of_database()
                self._asked_s = self._clock.monotonic_s()
        shared = self._shared
        return Figures(since_us=self._since_us, at_us=self._clock.wall_us(), all=(*self._of_process(), *shared))

    def _of_process(self) -> tuple[Figure, ...]:
        kept, pool, release = self._telemetry, self._database.pool(), self._shelf.latest
        idle, size = pool.get_idle_size(), pool.get_size()
        queues = {"writer": self._writer.waiting, "risk": self._risk.waiting, **kept.waiting()}
        return (
            counted(c.CALLS, kept.calls),
            _gauge(c.IN_FLIGHT, {(): kept.in_flight}),
            spread(c.CALL_SECONDS, kept.call_seconds),
            spread(c.STAGE_SECONDS, kept.stage_seconds),
            spread(c.TOOL_SECONDS, kept.tool_seconds),
            _gauge(c.QUEUE, {(name,): length for name, length in queues.items()}),
            _gauge(c.LEASE_LEFT, {(): max(0.0, self._lease.remaining_s())}),
            _gauge(c.BREAKERS, {(phase,): number for phase, number in self._stability.phases().items()}),
            _gauge(c.POOL, {("idle",): idle, ("in_use",): size - idle, ("most",): pool.get_max_size()}),
            _gauge(c.BUILD, {(__version__,): 1}),
            _gauge(c.RELEASE, {} if release is None else {(release.digest, release.name): 1}),
            Figure(c.TOKENS, {(code,): number for code, number in self._refusals.ever.items()}),
            Figure(c.SPANS, kept.sent()),
            Figure(c.LOGS_DROPPED, {(): kept.lines_dropped()}),
        )

    async def _of_database(self) -> tuple[Figure, ...]:
        try:
            async with asyncio.timeout(DATABASE_WAIT_S):
                found = await standing_figures(self._database)
                tight = await self._budgets.tight(
                    tenant="", environment=self._environment, percent=TIGHT_PERCENT, limit=MAX_TIGHT
                )
        except (StoreError, TimeoutError):
            return (_gauge(c.DATABASE_UP, {(): 0}),)
        fullest: dict[Labels, float] = {}
        for usage in tight:
            ratio = usage.used / usage.cap if usage.cap > 0 else 1.0
            fullest[(usage.name,)] = max(ratio, fullest.get((usage.name,), 0.0))
        return (
            _gauge(c.DATABASE_UP, {(): 1}),
            _gauge(c.PROCESSES, {(): found.processes}),
            _gauge(c.STOPPED, {(): found.stopped}),
            _gauge(c.APPROVALS, {(): found.approvals}),
            _gauge(c.DOUBTS, {(): found.doubts}),
            _gauge(c.UNSETTLED, {(): found.unsettled}),
            _gauge(c.BUDGET, fullest),
        )


def _gauge(metric: c.Metric, values: dict[Labels, float]) -> Figure:
    return Figure(metric, values)
