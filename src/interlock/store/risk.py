"""Evidence of risk as rows, and what is usual for an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from interlock.core.event import EventDraft
from interlock.core.risk import Signal, SignalKind
from interlock.core.who import Session
from interlock.store.database import Database

MAX_HABITS_READ: Final = 5_000


class RiskRows:
    """Reads and writes evidence. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database, environment: str) -> None:
        self._database = database
        self._environment = environment

    async def note(
        self, session: Session, signals: Sequence[Signal], event: EventDraft, *, forget_after_s: int
    ) -> tuple[Signal, ...]:
        """Note signals with their event; gives all that count for the lineage now."""
        rows = await self._database.rows(
            "note_risk",
            session.session_id,
            session.lineage.id,
            [signal.kind.value for signal in signals],
            [signal.subject for signal in signals],
            [signal.score for signal in signals],
            forget_after_s,
            event.kind,
            event.call_id,
            event.body,
            event.salt,
            event.commitment,
        )
        return tuple(Signal(kind=SignalKind(row["kind"]), subject=row["subject"], score=row["score"]) for row in rows)

    async def habits(self, tenant: str, agent: str) -> dict[str, int]:
        """What an agent of a tenant usually does: how often by feature."""
        rows = await self._database.rows("habits", self._environment, tenant, agent, MAX_HABITS_READ)
        return {row["feature"]: row["seen"] for row in rows}

    async def add_habits(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Count what was done, by tenant, agent and feature."""
        ordered = sorted(counts)
        await self._database.rows(
            "add_habits",
            self._environment,
            [key[0] for key in ordered],
            [key[1] for key in ordered],
            [key[2] for key in ordered],
            [counts[key] for key in ordered],
        )
