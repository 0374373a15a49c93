"""Budgets as rows: drawing slices of those that lineages share, and what is used of each."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from interlock.core.budget import Charge
from interlock.core.claim import ClaimRequest, OverBudget
from interlock.store.database import Database

FORGET_AFTER_S: Final = 2 * 24 * 3600
"""Counters of a run or session are kept at least so long: far longer than a session lives."""
MAX_FORGOTTEN_AT_ONCE: Final = 10_000


class _Report(msgspec.Struct, frozen=True):
    used: int = 0
    in_flight: int = 0
    after_ms: int | None = None
    batch: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How one budget stands for one of those it is counted for, in units. `used` includes `held`, which is reserved."""

    account: str
    name: str
    tenant: str
    environment: str
    about: str
    cap: int
    window_s: int
    held: int
    used: int
    slices: int


def over_budget(charge: Charge, report: str) -> OverBudget:
    """What a claim is told when a budget has no room, from the store's report as JSON text."""
    found = msgspec.json.decode(report, type=_Report)
    return OverBudget(
        charge=charge, used=found.used + found.batch, in_flight=found.in_flight + found.batch, after_ms=found.after_ms
    )


class Slices:
    """Draws slices of shared budgets for one process: one draw at a time for each budget, and who waited looks again first."""

    def __init__(self, database: Database, *, process_id: str) -> None:
        self._database = database
        self._process_id = process_id
        self._drawing: dict[str, tuple[asyncio.Lock, int]] = {}

    async def draw(self, charge: Charge, request: ClaimRequest) -> OverBudget | None:
        """None when the claim is worth another try. Raises `StoreUnavailableError`."""
        lock, wanted = self._drawing.get(charge.account, (asyncio.Lock(), 0))
        self._drawing[charge.account] = (lock, wanted + 1)
        try:
            async with lock:
                return await self._draw(charge, request)
        finally:
            lock, wanted = self._drawing[charge.account]
            if wanted == 1:
                del self._drawing[charge.account]
            else:
                self._drawing[charge.account] = (lock, wanted - 1)

    async def _draw(self, charge: Charge, request: ClaimRequest) -> OverBudget | None:
        row = await self._database.row(
            "draw_budget",
            charge.account,
            self._process_id,
            request.session_id,
            charge.budget,
            charge.about,
            charge.limit,
            charge.window_s,
            0 if charge.lifted else charge.amount,
            request.epochs.release,
        )
        # What people have let through needs a row to be counted in, and no room.
        if charge.lifted or row is None or row["answer"] != "short":
            return None
        return over_budget(charge, row["report"])


class Budgets:
    """Reads and tidies up. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, *, tenant: str, environment: str, name: str, limit: int) -> tuple[Usage, ...]:
        """The fullest budgets, of one tenant or of all (empty), of one name or of all (empty)."""
        rows = await self._database.rows("budgets", tenant, environment, name, limit)
        return tuple(Usage(**dict(row)) for row in rows)

    async def tight(self, *, tenant: str, environment: str, percent: int, limit: int) -> tuple[Usage, ...]:
        """The fullest budgets of which at least `percent` is used, of one tenant or of all (empty)."""
        rows = await self._database.rows("tight_budgets", tenant, environment, percent, limit)
        return tuple(Usage(**dict(row)) for row in rows)

    async def forget(self) -> int:
        """Forget counters that nothing can ask for any more; gives how many."""
        row = await self._database.row("forget_budgets", FORGET_AFTER_S, MAX_FORGOTTEN_AT_ONCE)
        return 0 if row is None else int(row[0])
