"""Changes to the control plane: halt, resume, releases, each with its event in the chain `control`."""

from __future__ import annotations

import asyncpg
import msgspec

from interlock.core.claim import Epochs
from interlock.core.event import EventDraft
from interlock.store.database import Database
from interlock.store.errors import UnknownReleaseError


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was claimed before a control changed: it may still take effect."""

    claim_id: str
    call_id: str
    operation: str
    process_id: str


class ControlAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """After this answer no claim in the scope commits. `in_flight` were claimed before and may still take effect.

    `settled` is false when leases of an earlier life of the database may still be held. `note` is what else is to be known.
    """

    scope: str
    halted: bool
    epoch: int
    settled: bool = True
    in_flight: tuple[InFlight, ...]
    note: str = ""


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """A control as it stands."""

    scope: str
    halted: bool
    reason: str
    by: str
    changed_at_us: int
    posture: str = "normal"
    posture_by: str = ""
    posture_reason: str = ""


class Controls:
    """Controls and releases in the database. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def change(self, *, scope: str, halted: bool, reason: str, by: str, event: EventDraft) -> ControlAnswer:
        """Halt or resume a scope. Waits for the claims that are being made at this moment."""
        rows = await self._database.rows(
            "change_control", scope, halted, reason, by, event.kind, event.body, event.salt, event.commitment
        )
        in_flight = tuple(
            InFlight(
                claim_id=row["claim_id"],
                call_id=row["call_id"],
                operation=row["operation"],
                process_id=row["process_id"],
            )
            for row in rows
            if row["claim_id"] is not None
        )
        return ControlAnswer(
            scope=scope, halted=halted, epoch=rows[0]["epoch"], settled=rows[0]["settled"], in_flight=in_flight
        )

    async def all(self) -> tuple[ControlState, ...]:
        """Every control that was ever set, halted ones first."""
        return tuple(
            ControlState(
                scope=row["scope"],
                halted=row["halted"],
                reason=row["reason"],
                by=row["by_user"],
                changed_at_us=row["changed_at_us"],
                posture=row["posture"],
                posture_by=row["posture_by"],
                posture_reason=row["posture_reason"],
            )
            for row in await self._database.rows("controls")
        )

    async def epochs(self) -> tuple[Epochs, str]:
        """The epochs, and the digest of the release in force (empty when there is none)."""
        row = await self._database.row("epochs")
        if row is None:
            return Epochs(control=0, release=0, revocation=0), ""
        epochs = Epochs(control=row["control"], release=row["release"], revocation=row["revocation"])
        return epochs, row["release_digest"]

    async def append(self, event: EventDraft) -> None:
        """Append one event to the control chain."""
        await self._database.rows("append_control", event.kind, event.body, event.salt, event.commitment)

    async def in_flight(self) -> dict[str, int]:
        """How many calls are claimed and not settled, by operation."""
        return {row["operation"]: row["calls"] for row in await self._database.rows("in_flight")}

    async def save_release(self, digest: str, name: str, files: dict[str, str]) -> None:
        """Store a release under its digest; what is stored already stays as it is."""
        await self._database.rows("save_release", digest, name, msgspec.json.encode(files).decode())

    async def release_files(self, digest: str) -> dict[str, str]:
        """The files of a stored release. Raises `UnknownReleaseError`."""
        row = await self._database.row("release_files", digest)
        if row is None:
            raise UnknownReleaseError(f"no release {digest or '(none is active)'} is stored; activate one first")
        return msgspec.json.decode(row["files"], type=dict[str, str])

    async def activate(self, digest: str, *, expected: str, by: str, reason: str, event: EventDraft) -> int | None:
        """Put a stored release in force; gives the new release epoch, None when not `expected` is in force by now.

        Raises:
            UnknownReleaseError: it is not stored.
        """
        try:
            row = await self._database.row(
                "activate_release", digest, expected, by, reason, event.kind, event.body, event.salt, event.commitment
            )
        except asyncpg.RaiseError as error:
            raise UnknownReleaseError(f"{error}; propose it first") from error
        return None if row is None or row[0] is None else int(row[0])
