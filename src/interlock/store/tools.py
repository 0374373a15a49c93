"""Tools as the store knows them: quarantined operations, accepted listings, how servers answered, how operations are used."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from interlock.core.event import EventDraft
from interlock.store.database import Database


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that is stopped because its listing changed. `pin` is the listing's digest, `detail` the difference.

    `findings` are what looks suspicious in it.
    """

    operation: str
    reviewed: str
    pin: str
    detail: str
    noticed_at_us: int
    findings: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a server answered when it was last asked what it lists. `error` is empty when it did."""

    tool: str
    asked_at_us: int
    listed_at_us: int | None
    error: str
    vanished: tuple[str, ...]
    unpinned: tuple[str, ...]
    new: tuple[str, ...]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation was used in the last week."""

    operation: str
    calls: int
    failed: int
    in_doubt: int
    last_at_us: int


class ToolRecords(msgspec.Struct, frozen=True):
    """The records of one environment. Every method raises `StoreUnavailableError`."""

    database: Database
    environment: str

    async def quarantine(
        self,
        operation: str,
        *,
        reviewed: str,
        pin: str,
        detail: str,
        findings: Collection[str],
        most_told: int,
        event: EventDraft,
    ) -> bool:
        """Stop an operation; False when it is stopped for this listing already, or a person accepted it.

        While it is stopped, at most `most_told` further changes are put on record.
        """
        about = (self.environment, operation, reviewed, pin, detail, list(findings), most_told)
        row = await self.database.row("quarantine_operation", *about, *_parts(event))
        return row is not None and bool(row[0])

    async def accept(self, operation: str, *, pin: str, by: str, reason: str, event: EventDraft) -> bool:
        """Let an operation run again; False when it is not quarantined for exactly this listing."""
        row = await self.database.row("accept_operation", self.environment, operation, pin, by, reason, *_parts(event))
        return row is not None and bool(row[0])

    async def quarantined(self) -> tuple[Quarantined, ...]:
        """What is stopped now."""
        rows = await self.database.rows("quarantined", self.environment)
        return tuple(Quarantined(**{**dict(row), "findings": tuple(row["findings"])}) for row in rows)

    async def accepted(self) -> frozenset[tuple[str, str, str]]:
        """Operation, reviewed digest and listed digest of every listing that a person accepted."""
        rows = await self.database.rows("accepted_pins", self.environment)
        return frozenset((row["operation"], row["reviewed"], row["pin"]) for row in rows)

    async def note(
        self,
        tool: str,
        *,
        error: str = "",
        vanished: Collection[str] = (),
        unpinned: Collection[str] = (),
        new: Collection[str] = (),
    ) -> None:
        """Keep what came of asking a server."""
        await self.database.rows("note_health", self.environment, tool, error, list(vanished), list(unpinned), list(new))

    async def health(self) -> tuple[Health, ...]:
        """How every server answered last."""
        return tuple(
            Health(**{**dict(row), **{name: tuple(row[name]) for name in ("vanished", "unpinned", "new")}})
            for row in await self.database.rows("tool_health", self.environment)
        )

    async def use(self, *, tenant: str = "") -> dict[str, Use]:
        """How operations were used here in the last week, by one tenant or by all."""
        rows = await self.database.rows(
            "operation_use", f"tenant:{tenant}" if tenant else "", f"environment:{self.environment}"
        )
        return {row["operation"]: Use(**dict(row)) for row in rows}


def _parts(event: EventDraft) -> tuple[str, str, bytes, bytes]:
    return event.kind, event.body, event.salt, event.commitment
