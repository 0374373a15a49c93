"""Records that belong to no call: appended to a session's chain, or to a chain of their own."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from interlock.core.event import EventDraft
from interlock.store.database import Database


def chain_of(what: str, tenant: str) -> str:
    """The chain in which a tenant's `reads` or `decisions` stand. Never another's, whatever the tenant is called."""
    return f"{what}:{quote(tenant, safe='')}"


class Records:
    """Appends to the ledger. Every method raises `StoreUnavailableError`: what was to be recorded is then not done."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, chain: str, events: Sequence[EventDraft]) -> None:
        """Append to a chain of `chain_of`, in this order."""
        await self._database.rows(
            "append_to_chain",
            chain,
            [event.kind for event in events],
            [event.call_id for event in events],
            [event.body for event in events],
            [event.salt for event in events],
            [event.commitment for event in events],
        )

    async def append_to_session(self, session_id: str, event: EventDraft) -> bool:
        """Append to a live session's chain; False, and nothing changed, when it has ended."""
        row = await self._database.row(
            "append_to_session", session_id, event.kind, event.call_id, event.body, event.salt, event.commitment
        )
        return row is not None and bool(row[0])
