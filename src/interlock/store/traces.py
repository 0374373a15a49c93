"""What is read back from the ledger for people: lists of calls, the events of one, and counts of refused tokens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from interlock.store.database import Database


class CallQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls to find; what is empty matches everything. Times are microseconds, `until_us` excluded."""

    tenant: str = ""
    user: str = ""
    agent: str = ""
    session_id: str = ""
    call_id: str = ""
    operation: str = ""
    decision: str = ""
    outcome: str = ""
    since_us: int = 0
    until_us: int = 2**62


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded call in a line.

    `decision` is `allow`, `deny`, `require_approval` or empty; `outcome` is `succeeded`, `failed`, `in_doubt`, `denied`,
    `needs_approval`, `invalid`, `unavailable`, `halted`, `replayed`, `running`, `waiting`, `deciding` or `forgotten`.
    """

    call_id: str
    at_us: int
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    session_id: str
    operation: str
    decision: str
    outcome: str
    code: str
    release_digest: str


class AgentUse(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent is used: live sessions, and when its last one was opened."""

    agent: str
    live: int
    last_opened_at_us: int


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

    async def events(self, identifier: str) -> tuple[EventRow, ...]:
        """The events of a call or of a whole chain (a session id, or `control`), in their order."""
        rows = await self._database.rows("trace_events", identifier)
        return tuple(EventRow(**dict(row)) for row in rows)

    async def search(self, query: CallQuery, *, after: tuple[int, str] = (2**62, ""), limit: int = 1) -> tuple[CallRow, ...]:
        """Recorded calls, newest first; `after` is the time and the id of the last one seen."""
        rows = await self._database.rows(
            "search_calls",
            query.since_us,
            query.until_us,
            *after,
            query.tenant,
            query.user,
            query.agent,
            query.session_id,
            query.call_id,
            query.operation,
            query.decision,
            query.outcome,
            limit,
        )
        same = [name for name in CallRow.__struct_fields__ if name != "user"]
        return tuple(CallRow(**{name: row[name] for name in same}, user=row["user_id"]) for row in rows)

    async def agent_use(self, tenant: str) -> tuple[AgentUse, ...]:
        """How agents are used in a tenant, or in all (empty)."""
        return tuple(AgentUse(**dict(row)) for row in await self._database.rows("agent_use", tenant))

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
