"""What the database knows of its having been restored. Every method raises `StoreUnavailableError`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from interlock.core.budget import Charge
from interlock.core.event import EventDraft
from interlock.core.who import Lineage
from interlock.store.database import Database
from interlock.store.errors import StoreUnavailableError
from interlock.store.mark import Acting, Ended, Revoked, Standing, Stop, Taken, Worry

MAX_STANDING = 1_000
REVOKED_SINCE_S = 31 * 24 * 3600


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


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """The control epoch, how far the control chain is, how many restores were noticed, and whether one of them is open."""

    epoch: int
    seq: int
    restores: int
    open: bool


class OpenDoubts(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls in doubt machinery still looks into, and how many ask a person."""

    looked_into: int
    asking: int


class _Accepted(msgspec.Struct, frozen=True, kw_only=True):
    unread: tuple[str, ...] = ()


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

    async def moves(self) -> Moves:
        """Whether anything has changed that a mark tells of."""
        row = await self._database.row("control_moves")
        return Moves(epoch=0, seq=0, restores=0, open=False) if row is None else Moves(**dict(row))

    async def accepted(self) -> frozenset[str]:
        """The parts of marks that nobody could read when people resumed writes all the same, as `Last.unread` names them."""
        rows = await self._database.rows("resumed_reports")
        return frozenset(name for row in rows for name in msgspec.json.decode(row["recovered"], type=_Accepted).unread)

    async def standing(self, at_us: int) -> Standing:
        """What is stopped, worried and revoked now."""
        row = await self._database.row("standing_controls", MAX_STANDING, REVOKED_SINCE_S)
        if row is None:
            raise StoreUnavailableError("the database has no epochs: it was never migrated")
        stops = msgspec.json.decode(row["stops"], type=tuple[Stop, ...])
        worries = msgspec.json.decode(row["worries"], type=tuple[Worry, ...])
        revoked = msgspec.json.decode(row["revoked"], type=tuple[Revoked, ...])
        return Standing(
            at_us=at_us,
            epoch=row["epoch"],
            seq=row["seq"],
            release_digest=row["release_digest"],
            stops=stops,
            worries=worries,
            revoked=revoked,
            cut=MAX_STANDING in {len(stops), len(worries), len(revoked)},
        )

    async def stopped(self) -> tuple[tuple[str, ...], str]:
        """The scopes that are stopped now, and the release that is in force."""
        halted = tuple(row["scope"] for row in await self._database.rows("controls") if row["halted"])
        row = await self._database.row("epochs")
        return halted, "" if row is None else row["release_digest"]

    async def stop_again(self, stop: Stop, event: EventDraft) -> bool:
        """Stop a scope as it was; false when it is already, or more."""
        return await self._changed(
            "recover_control",
            stop.scope,
            stop.halted,
            stop.posture,
            stop.reason,
            stop.by,
            stop.posture_reason,
            stop.posture_by,
            event=event,
        )

    async def worry_again(self, worry: Worry, event: EventDraft) -> bool:
        """Make a lineage as worried as it was; false when it is already, or more."""
        return await self._changed(
            "recover_posture",
            worry.lineage_id,
            worry.tenant,
            worry.environment,
            worry.agent,
            worry.user,
            worry.posture,
            worry.reason,
            worry.by,
            event=event,
        )

    async def revoke_again(self, revoked: Revoked, event: EventDraft) -> bool:
        """Refuse what was issued before that time; false when it is already."""
        return await self._changed(
            "recover_revocation",
            revoked.environment,
            revoked.target,
            revoked.tenant,
            revoked.name,
            revoked.before_us,
            revoked.by,
            revoked.reason,
            event=event,
        )

    async def _changed(self, name: str, *arguments: object, event: EventDraft) -> bool:
        row = await self._database.row(name, *arguments, event.kind, event.body, event.salt, event.commitment)
        return row is not None and bool(row["changed"])

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
            *_columns(taken.charges or ()),
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


def _columns(charges: Sequence[Charge]) -> tuple[list[object], ...]:
    names = ("account", "budget", "about", "limit", "window_s", "shared", "amount")
    return tuple([getattr(charge, name) for charge in charges] for name in names)
