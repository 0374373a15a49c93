"""Calls in doubt as rows: who looks into them, who is asked, and what contradicts the answer later."""

from __future__ import annotations

import msgspec

from interlock.core.event import EventDraft
from interlock.store.database import Database


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose end is not known, or was told in two ways. Times are microseconds since the epoch.

    `orphaned`: its process was thought dead, else the attempt is over and said so. `proposed` is the body of the event that
    proposed it, None when it was forgotten; `keyed` says that a repeated call is taken for this one;
    `awaits` that its tool asked something and goes on with the answers.
    """

    claim_id: str
    call_id: str
    session_id: str
    lineage_id: str
    operation: str
    release_digest: str
    attempt: int
    orphaned: bool
    looks: int
    asks_people: str
    conflict: str
    state: str
    keyed: bool
    awaits: bool
    claimed_at_us: int
    since_us: int
    tenant: str
    environment: str
    agent: str
    user_id: str
    proposed: str | None


class Doubts:
    """Reads and writes doubts of one environment. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database, *, environment: str, process_id: str) -> None:
        self._database = database
        self._environment = environment
        self._process_id = process_id

    async def to_look_into(self, most: int) -> tuple[Doubt, ...]:
        """Those that no person was asked about, the oldest first."""
        return tuple(_doubt(row) for row in await self._database.rows("doubts_to_look_into", self._environment, most))

    async def listed(self, *, tenant: str, name: str = "", limit: int) -> tuple[Doubt, ...]:
        """The newest first, also those settled against what was said later; of all tenants when `tenant` is empty."""
        rows = await self._database.rows("doubts", self._environment, tenant, name, limit)
        return tuple(_doubt(row) for row in rows)

    async def look(self, doubt: Doubt, hold_s: float) -> int | None:
        """Take one to look into, alone, for `hold_s`; gives which look it is, None when it is not ours."""
        row = await self._database.row("look_into_doubt", doubt.claim_id, doubt.attempt, float(hold_s))
        return None if row is None else int(row["looks"])

    async def look_again_after(self, doubt: Doubt, pause_s: float, *, counts: bool) -> None:
        """Leave it alone for a while; a look that does not count came to nothing for no fault of the tool."""
        await self._database.rows("look_again_after", doubt.claim_id, float(pause_s), 0 if counts else 1)

    async def attempt_again(
        self, doubt: Doubt, *, settle_by_ms: int, control_epoch: int, release_digest: str, event: EventDraft
    ) -> int | None:
        """Take it up again as this process's; gives the new attempt number, None when it may not start."""
        row = await self._database.row(
            "attempt_again",
            doubt.claim_id,
            doubt.attempt,
            self._process_id,
            settle_by_ms,
            control_epoch,
            release_digest,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        return None if row is None or row[0] is None else int(row[0])

    async def ask_people(self, doubt: Doubt, why: str, event: EventDraft) -> bool:
        """Leave it to people; False when it is not in doubt any more, or left to them already."""
        row = await self._database.row(
            "ask_people", doubt.claim_id, doubt.attempt, why, event.kind, event.body, event.salt, event.commitment
        )
        return row is not None and bool(row[0])

    async def conflict(self, claim_id: str, what: str, event: EventDraft) -> None:
        """Note what contradicts how a claim was settled; what stands is not changed."""
        await self._database.rows("note_conflict", claim_id, what, event.kind, event.body, event.salt, event.commitment)


def _doubt(row: object) -> Doubt:
    return msgspec.convert(dict(row), Doubt)  # type: ignore[call-overload]  # a record of asyncpg is a mapping
