"""Labels of lineages as they reach everybody at the same work."""

from __future__ import annotations

from interlock.core.claim import LineageState
from interlock.core.event import EventDraft
from interlock.core.who import Session
from interlock.store.database import Database


class LabelRows:
    """Implements the gate's `LabelShelf`. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def labelled_less(self, session: Session, to: LineageState) -> tuple[str, ...]:
        """The lineages that work together with the session's, itself among them, and are labelled less than `to`."""
        row = await self._database.row("labelled_less", session.lineage.id, session.session_id, to.tainted, to.confidentiality)
        return () if row is None else tuple(row["lineages"])

    async def spread(self, session: Session, to: LineageState, raised: tuple[str, ...], event: EventDraft) -> bool:
        """Label those `raised` as `to` says, with an event in the session's chain; False when they are others by now."""
        row = await self._database.row(
            "spread_labels",
            session.session_id,
            session.lineage.id,
            to.tainted,
            to.confidentiality,
            to.tainted_by,
            to.confidential_by,
            list(raised),
            event.call_id,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        return row is not None and row[0] == "spread"
