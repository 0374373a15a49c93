"""Labels of lineages as they reach everybody at the same work."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from interlock.core.claim import LineageState
from interlock.core.event import EventDraft
from interlock.core.who import Session
from interlock.store.database import Database


class Taint(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a lineage is tainted and by which call (its id and operation), and its live sessions."""

    tainted: bool
    tainted_by: str
    sessions: tuple[str, ...]


class StartFresh(StrEnum):
    """What became of starting afresh: calls are `under_way`, or something is `changed` meanwhile."""

    FRESH = "fresh"
    UNDER_WAY = "under_way"
    CHANGED = "changed"


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

    async def taint(self, lineage_id: str) -> Taint | None:
        """How a lineage stands; None when there is none."""
        row = await self._database.row("taint_of", lineage_id)
        if row is None:
            return None
        return Taint(tainted=row["tainted"], tainted_by=row["tainted_by"], sessions=tuple(row["sessions"]))

    async def start_fresh(self, lineage_id: str, was: Taint, event: EventDraft) -> StartFresh:
        """End its sessions and take its taint away. Unless it is `FRESH`, nothing was changed."""
        row = await self._database.row(
            "start_fresh",
            lineage_id,
            was.tainted_by,
            list(was.sessions),
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        return StartFresh.CHANGED if row is None else StartFresh(row[0])
