"""The past calls of lineages, read for the facts that a release declares about them."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from interlock.core.history import Kept, PastCall
from interlock.store.database import Database


class PastCalls:
    """Implements the gate's `PastShelf`. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def whole(
        self, lineage_id: str, operations: frozenset[str], window_s: int, most: int
    ) -> tuple[int, tuple[PastCall, ...]]:
        """The newest calls of these operations, at most so many, with the version of the history that they add up to.

        They are those of the lineage, and of whatever came of its sessions by handing work down.
        """
        rows = await self._database.rows("history_whole", lineage_id, sorted(operations), window_s, most)
        return _read(rows, lineage_id)

    async def after(self, lineage_id: str, version: int, most: int) -> tuple[int, tuple[PastCall, ...]]:
        """Calls that came or ended after a version, with the version that they add up to."""
        return _read(await self._database.rows("history_after", lineage_id, version, most), lineage_id)


def _read(rows: Sequence[asyncpg.Record], lineage_id: str) -> tuple[int, tuple[PastCall, ...]]:
    if not rows:
        return 0, ()
    return rows[0]["history_version"], tuple(_call(row, lineage_id) for row in rows if row["claim_id"] is not None)


def _call(row: asyncpg.Record, lineage_id: str) -> PastCall:
    kept = Kept() if row["remembered"] is None else msgspec.json.decode(row["remembered"], type=Kept)
    return PastCall(
        claim_id=row["claim_id"],
        call_id=row["call_id"],
        session_id=row["session_id"],
        lineage_id=row["lineage_id"],
        keyed_by=lineage_id,
        operation=row["operation"],
        at_us=row["at_us"],
        state=row["state"],
        unsent=row["unsent"],
        values=kept.v if row["lineage_id"] == lineage_id else kept.w,
        units=kept.u,
    )
