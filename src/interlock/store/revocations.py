"""Revocations as rows: what was issued before them is refused in every process that shares the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from interlock.core.event import EventDraft
from interlock.store.database import Database


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """After this answer nothing that rests on what was revoked is claimed.

    `sessions` were ended; `in_flight` of their calls were claimed before and may still take effect.
    """

    target: str
    tenant: str
    epoch: int
    sessions: int
    in_flight: int


class Revocations:
    """Reads and writes revocations of one environment. Every method raises `StoreUnavailableError`.

    `noted` is told of each before its answer.
    """

    def __init__(self, database: Database, environment: str, noted: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._noted = noted
        self._environment = environment

    async def revoke(self, *, kind: str, name: str, tenant: str, by: str, reason: str, event: EventDraft) -> Revoked | None:
        """Revoke a `user` of a tenant, an `agent` of all tenants, or a `session`; None when no such session is live."""
        row = await self._database.row(
            "revoke",
            self._environment,
            kind,
            tenant,
            name,
            by,
            reason,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        if row is None or row["sessions"] < 0:
            return None
        await self._noted()
        return Revoked(
            target=f"{kind}:{name}",
            tenant=tenant,
            epoch=row["epoch"],
            sessions=row["sessions"],
            in_flight=row["in_flight"],
        )

    async def person_is_revoked(self, tenant: str, user: str, told_at_us: int) -> bool:
        """Whether a token that was issued to a person then is refused by now."""
        row = await self._database.row("person_revoked", self._environment, tenant, user, told_at_us)
        # INVARIANT: no answer is a refusal.
        return row is None or bool(row["revoked"])

    async def agent_is_revoked(self, agent: str, told_at_us: int) -> bool:
        """Whether a token that was issued to an agent then is refused by now."""
        row = await self._database.row("agent_revoked", self._environment, agent, told_at_us)
        return row is None or bool(row["revoked"])

    async def tenant_of(self, session_id: str) -> str | None:
        """The tenant of a session of this environment, whatever became of it; None when there is none."""
        row = await self._database.row("tenant_of_session", session_id, self._environment)
        return None if row is None else str(row["tenant"])
