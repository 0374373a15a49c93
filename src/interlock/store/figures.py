"""What operators watch, counted in the database."""

from __future__ import annotations

import msgspec

from interlock.store.database import Database


class StandingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the whole database: live processes, stopped scopes, open requests to people, doubts, claims that are not settled."""

    processes: int
    stopped: int
    approvals: int
    doubts: int
    unsettled: int


async def standing_figures(database: Database) -> StandingFigures:
    """Count now. Raises `StoreUnavailableError`."""
    (row,) = await database.rows("standing_figures")
    return StandingFigures(**dict(row))
