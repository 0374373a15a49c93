"""The postures of lineages, as people see and set them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

import asyncpg
import msgspec

from interlock.core.event import EventDraft
from interlock.core.terms import Posture
from interlock.store.database import Database


class LineageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lineage as it stands. `posture_by` and `posture_reason` tell of the last change."""

    lineage_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    posture: Posture
    posture_by: str
    posture_reason: str
    tainted: bool
    confidentiality: int


class SetPosture(StrEnum):
    """What became of setting a posture: it is `changed` meanwhile, or an agent `above` is more worried than it would be."""

    SET = "set"
    CHANGED = "changed"
    ABOVE = "above"


class Postures:
    """Reads and writes postures. Every method raises `StoreUnavailableError`. `noted` is told before the answer."""

    def __init__(self, database: Database, noted: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._noted = noted

    async def get(self, lineage_id: str) -> LineageRow | None:
        """One lineage, or None."""
        row = await self._database.row("lineage", lineage_id)
        return None if row is None else _lineage(row)

    async def worried(self, *, tenant: str, limit: int) -> tuple[LineageRow, ...]:
        """Lineages that are not `normal`, of one tenant or of all (empty)."""
        return tuple(_lineage(row) for row in await self._database.rows("worried_lineages", tenant, limit))

    async def less_worried_below(self, lineage_id: str, to: Posture) -> tuple[str, ...]:
        """The lineages that act for this one now and that raising it to `to` would raise as well."""
        return tuple(row[0] for row in await self._database.rows("less_worried_below", lineage_id, to.value))

    async def set(
        self, lineage: LineageRow, to: Posture, *, by: str, reason: str, raised: tuple[str, ...], event: EventDraft
    ) -> SetPosture:
        """Set a posture, and that of the lineages `raised` below it. Unless it is `SET`, nothing was changed."""
        row = await self._database.row(
            "set_posture",
            lineage.lineage_id,
            lineage.posture.value,
            to.value,
            by,
            reason,
            list(raised),
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        became = SetPosture.CHANGED if row is None else SetPosture(row[0])
        if became is SetPosture.SET:
            await self._noted()
        return became


class ScopePosture(msgspec.Struct, frozen=True, kw_only=True):
    """The posture of a scope, and who set it."""

    scope: str
    posture: Posture
    posture_by: str


class ScopePostures:
    """Postures of whole scopes. Every method raises `StoreUnavailableError`. `noted` is told before the answer."""

    def __init__(self, database: Database, noted: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._noted = noted

    async def get(self, scope: str) -> ScopePosture:
        """The posture of a scope; `normal` when nobody ever set one."""
        row = await self._database.row("scope_posture", scope)
        if row is None:
            return ScopePosture(scope=scope, posture=Posture.NORMAL, posture_by="")
        return ScopePosture(scope=scope, posture=Posture(row["posture"]), posture_by=row["posture_by"])

    async def set(self, was: ScopePosture, to: Posture, *, by: str, reason: str, event: EventDraft) -> int | None:
        """Set it; gives the new control epoch, None and nothing changed when it is no longer what `was` says."""
        row = await self._database.row(
            "set_scope_posture",
            was.scope,
            was.posture.value,
            to.value,
            by,
            reason,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        if row is None or row[0] is None:
            return None
        await self._noted()
        return int(row[0])


def _lineage(row: asyncpg.Record) -> LineageRow:
    known = {name: row[name] for name in LineageRow.__struct_fields__ if name not in {"user", "posture"}}
    return LineageRow(**known, user=row["user_id"], posture=Posture(row["posture"]))
