"""Calls as they move, read back for people who watch: which have moved, and their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from interlock.store.database import Database

MAX_OVERLAP_S: Final = 15
"""Longer than any statement may take: no event comes to light later than this."""
MAX_ARGUMENT_CHARS: Final = 300


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the database. Every event before `horizon_us` can be seen by whoever reads after this."""

    horizon_us: int
    control_seq: int


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a call; `said` is what a list shows of its event, JSON text, None when it was forgotten."""

    call_id: str
    session_id: str
    seq: int
    kind: str
    at_us: int
    tenant: str
    environment: str
    agent: str
    user_id: str
    task: str
    said: str | None


class LiveRows:
    """Reads what moves. Every method raises `StoreUnavailableError`; none of them is on the way of a call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tick(self) -> Tick:
        """This moment."""
        row = await self._database.row("live_tick", MAX_OVERLAP_S)
        if row is None:
            return Tick(horizon_us=0, control_seq=0)
        return Tick(horizon_us=row["horizon_us"], control_seq=row["control_seq"])

    async def moved(self, since_us: int, known: Mapping[str, int], *, limit: int) -> tuple[str, ...]:
        """Calls proposed since a time, and `known` ones (call id to the last step seen), that have steps beyond that."""
        rows = await self._database.rows("live_moved", since_us, list(known), list(known.values()), limit)
        return tuple(row["call_id"] for row in rows)

    async def newest(self, *, tenant: str, user: str, agent_has: str, user_has: str, limit: int) -> tuple[str, ...]:
        """The calls proposed last; `tenant` and `user` are exact, the others occur in the names. Empty matches everything."""
        rows = await self._database.rows("live_newest", tenant, agent_has.lower(), user_has.lower(), limit, user)
        return tuple(dict.fromkeys(row["call_id"] for row in rows))

    async def waiting(self, *, limit: int) -> tuple[str, ...]:
        """Calls that wait for people."""
        return tuple(row["call_id"] for row in await self._database.rows("live_waiting", limit))

    async def steps(self, call_ids: Sequence[str]) -> tuple[StepRow, ...]:
        """The steps of these calls, in order."""
        rows = await self._database.rows("call_steps", list(call_ids), MAX_ARGUMENT_CHARS)
        return tuple(StepRow(**dict(row)) for row in rows)
