"""What the database knows of its having been restored. Every method raises `StoreUnavailableError`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from interlock.core.event import EventDraft
from interlock.core.who import Lineage
from interlock.store.database import Database
from interlock.store.mark import Acting, Ended, Taken


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """A restore that was noticed. Times are microseconds since the epoch; `recovered` is the report of its reconciliation."""

    n: int
    why: str
    reached_us: int
    noticed_us: int
    reconciled: bool
    complete: bool
    recovered: str
    resumed: bool
    resumed_by: str
    guarded_until_us: int | None


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the wish to resume: the posture that holds now (`normal`, `guarded`) with its epoch.

    Without an epoch nothing was changed: there is `none` to resume, it is `unreconciled`, or `guarded` until `until_us`.
    """

    stands: str
    epoch: int | None
    until_us: int | None


class Noticed(msgspec.Struct, frozen=True, kw_only=True):
    """That a restore was noticed: whether it is news, and the control epoch by which every process knows."""

    news: bool
    epoch: int


class OpenDoubts(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls in doubt machinery still looks into, and how many ask a person."""

    looked_into: int
    asking: int


class Restorations:
    """Reads and writes restores of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def database_id(self) -> str:
        """Which database this is."""
        row = await self._database.row("database_id")
        return "" if row is None else str(row["database_id"])

    async def missing(self, claim_ids: Sequence[str]) -> tuple[str, ...]:
        """Which of these claims the database does not have."""
        if not claim_ids:
            return ()
        return tuple(row["claim_id"] for row in await self._database.rows("missing_claims", list(claim_ids)))

    async def has_head(self, n: int, signature: bytes) -> bool:
        """Whether a signed head is there that was witnessed."""
        row = await self._database.row("has_signed_head", n, signature)
        return row is not None and bool(row["there"])

    async def heads(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """The signatures of some signed heads, by their numbers, as far as they are there."""
        return {row["n"]: row["signature"] for row in await self._database.rows("signatures", list(numbers))}

    async def notice(self, why: str) -> Noticed:
        """Note that this database was restored: from here on it is read-only."""
        row = await self._database.row("notice_restored", why)
        return Noticed(news=row is not None and row["news"], epoch=0 if row is None else row["epoch"])

    async def last(self) -> Restoration | None:
        """The last one that was noticed."""
        row = await self._database.row("restoration")
        return None if row is None else Restoration(**dict(row))

    async def recover(
        self, taken: Taken, acting: Acting, ended: Ended | None, *, process_id: str, look_s: int, events: Sequence[EventDraft]
    ) -> str:
        """Put a write back on record; gives what became of it, as `recover_claim` says."""
        lineage = Lineage(tenant=acting.tenant, environment=acting.environment, agent=acting.agent, user=acting.user)
        row = await self._database.row(
            "recover_claim",
            taken.claim_id,
            taken.call_id,
            acting.session_id,
            lineage.id,
            acting.tenant,
            acting.environment,
            acting.agent,
            acting.user,
            acting.task,
            list(acting.roles),
            msgspec.json.encode(acting.attributes).decode(),
            taken.operation,
            taken.call_hash,
            taken.release_digest,
            list(taken.scopes),
            taken.key,
            taken.source,
            taken.window_s,
            process_id,
            1 if ended is None else ended.attempt,
            None if ended is None or ended.state == "in_doubt" else ended.state,
            None if ended is None else ended.outcome,
            ended is not None and ended.not_done,
            taken.claimed_at_us,
            look_s,
            [event.kind for event in events],
            [event.body for event in events],
            [event.salt for event in events],
            [event.commitment for event in events],
        )
        return "" if row is None else str(row["became"])

    async def reconciled(self, *, complete: bool, report: str, event: EventDraft) -> bool:
        """Note that the marks were read; false when no restore is open."""
        row = await self._database.row(
            "note_reconciled", complete, report, event.kind, event.body, event.salt, event.commitment
        )
        return row is not None and bool(row["noted"])

    async def resume(self, *, guarded_s: int, by: str, reason: str, event: EventDraft) -> Resumption:
        """Let writes go on: all of them when the marks were complete, else for a while each with a person's yes."""
        row = await self._database.row(
            "resume_restored", guarded_s, by, reason, event.kind, event.body, event.salt, event.commitment
        )
        if row is None:
            return Resumption(stands="none", epoch=None, until_us=None)
        return Resumption(stands=row["stands"], epoch=row["epoch"], until_us=row["until_us"])

    async def doubts(self) -> OpenDoubts:
        """How many calls are in doubt now."""
        row = await self._database.row("open_doubts")
        return OpenDoubts(looked_into=0 if row is None else row["looked_into"], asking=0 if row is None else row["asking"])
