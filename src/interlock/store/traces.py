"""What is read back from the ledger for people: lists of calls, the events of one, and counts of refused tokens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from interlock.store.database import Database


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded call: `proposed` and `ended` are event bodies as JSON text, None when forgotten or not there yet."""

    call_id: str
    session_id: str
    agent: str
    user: str
    tenant: str
    environment: str
    task: str
    at_us: int
    proposed: str | None
    ended: str | None


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event as stored."""

    chain_id: str
    seq: int
    kind: str
    at_us: int
    call_id: str
    body: str | None


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens were refused in one minute for one reason."""

    minute_s: int
    environment: str
    code: str
    hint: str
    count: int


class Traces:
    """Reads the ledger. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def calls(
        self,
        *,
        agent: str = "",
        user: str = "",
        session_id: str = "",
        operation: str = "",
        since_us: int = 0,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[TraceRow, ...]:
        """Recorded calls, newest first; an empty filter matches everything."""
        rows = await self._database.rows("trace_calls", agent, user, session_id, operation, since_us, limit, offset)
        return tuple(
            TraceRow(
                call_id=row["call_id"],
                session_id=row["session_id"],
                agent=row["agent"],
                user=row["user_id"],
                tenant=row["tenant"],
                environment=row["environment"],
                task=row["task"],
                at_us=row["at_us"],
                proposed=row["proposed"],
                ended=row["ended"],
            )
            for row in rows
        )

    async def events(self, identifier: str) -> tuple[EventRow, ...]:
        """The events of a call or of a whole chain (a session id, or `control`), in their order."""
        rows = await self._database.rows("trace_events", identifier)
        return tuple(EventRow(**dict(row)) for row in rows)

    async def count_refusals(self, counts: Sequence[RefusalCount]) -> None:
        """Add to the counts of refused tokens."""
        await self._database.rows(
            "count_refusals",
            [count.minute_s for count in counts],
            [count.environment for count in counts],
            [count.code for count in counts],
            [count.hint for count in counts],
            [count.count for count in counts],
        )
