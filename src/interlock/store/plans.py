"""Plans as rows: one a session, sealed under the lock of its lineage, never changed."""

from __future__ import annotations

import msgspec

from interlock.core.event import EventDraft
from interlock.core.plan import Plan, SealedPlan
from interlock.core.who import Session
from interlock.store.database import Database


class PlanRows:
    """Implements the gate's `PlanShelf`. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seal(self, session: Session, digest: str, body: str, event: EventDraft) -> str:
        """Seal a plan with its event: `sealed`, `same` (it is sealed already), or why not, as in the SQL function."""
        row = await self._database.row(
            "seal_plan",
            session.session_id,
            session.lineage.id,
            digest,
            body,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        return "ended" if row is None else str(row[0])

    async def plan(self, session: Session) -> tuple[int, SealedPlan | None]:
        """The plan that holds in a session, that of its root, with the version of the facts that it was read with."""
        row = await self._database.row("plan_of", session.root, session.lineage.id)
        if row is None:
            return 0, None
        if row["digest"] is None:
            return row["facts_version"], None
        return row["facts_version"], SealedPlan(digest=row["digest"], plan=msgspec.json.decode(row["body"], type=Plan))

    async def refused(self, session: Session, event: EventDraft) -> None:
        """Put on record that a plan was refused."""
        await self._database.row(
            "append_to_session", session.session_id, event.kind, event.call_id, event.body, event.salt, event.commitment
        )
