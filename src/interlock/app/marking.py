"""The desk that keeps the mark, and the watch that notices a database which is behind it.

INVARIANT: a keyed write is in the mark before anything acts on its claim, so it is known which calls a restored database lost.
So is whatever takes of a budget with a window, so that no cap is spent twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import asyncpg

from interlock.core.budget import Charge
from interlock.core.claim import (
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    RecordAnswer,
    RecordRequest,
    SettleAnswer,
    Settled,
    SettleRequest,
)
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.gateway.lease import Lease
from interlock.gateway.ports import ClaimDesk
from interlock.ledger.witness import read_witness
from interlock.store.database import Database
from interlock.store.errors import MarkError, StoreError, StoreUnavailableError
from interlock.store.mark import (
    MAX_OUTCOME_BYTES,
    Acting,
    Ended,
    Line,
    Mark,
    Sealed,
    Taken,
    forget_older,
    last_of,
    other_databases,
    parts_of,
)
from interlock.store.queries import load
from interlock.store.restorations import Restorations

_log = logging.getLogger(__name__)

KEEP_DAYS: Final = 14
FORGET_EVERY_S: Final = 3_600.0
MAX_NAMED_SESSIONS: Final = 1_000
MAX_UNKEYED_CLAIMS: Final = 10_000
MARK_KEY: Final = "mark"
_PROPOSED: Final = "call.proposed"


class MarkedDesk:
    """Implements the gate's `ClaimDesk`: the writer's, with each keyed write and its end in the mark.

    A claim that cannot be put there is not acted on: it is given up, and settled as not executed when that can be written.
    """

    def __init__(
        self, desk: ClaimDesk, *, mark: Mark, session_of: Callable[[str], Awaitable[Session | None]], lease: Lease, clock: Clock
    ) -> None:
        self._desk = desk
        self._mark = mark
        self._session_of = session_of
        self._lease = lease
        self._clock = clock
        self._named: dict[str, Acting] = {}
        self._unkeyed: set[str] = set()
        self.taken_last = ""
        self.knows_by = 0

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Take the right to execute one call. Raises `StoreUnavailableError`: then nothing may be executed."""
        if request.continues:
            self._refuse_while_behind()  # the claim itself stands in the mark since its first attempt
            return await self._desk.claim(request)
        if request.idempotency is None and not _windowed(request):
            answer = await self._desk.claim(request)
            if isinstance(answer, Claimed):
                if len(self._unkeyed) >= MAX_UNKEYED_CLAIMS:
                    self._unkeyed.clear()  # their ends stand in the mark then, and harm nobody
                self._unkeyed.add(request.claim_id)
            return answer
        acting = self._named.get(request.session_id) or await self._acting(request.session_id)
        self._refuse_while_behind()
        answer = await self._desk.claim(request)
        if isinstance(answer, Claimed):
            self._refuse_while_behind()  # it was noticed meanwhile
            self._take(request, answer, acting)
        return answer

    async def record(self, request: RecordRequest) -> RecordAnswer:
        """Append events that claim nothing. Raises `StoreUnavailableError`."""
        return await self._desk.record(request)

    async def settle(self, request: SettleRequest) -> SettleAnswer:
        """Record what became of a claim. Raises `StoreUnavailableError`: then nothing of the outcome may be released."""
        answer = await self._desk.settle(request)
        if request.claim_id in self._unkeyed:
            self._unkeyed.discard(request.claim_id)
        elif isinstance(answer, Settled):
            self._end(request)
        return answer

    def _refuse_while_behind(self) -> None:
        """Until the lease has learnt that the database was restored, which stops writes where they are decided."""
        if self._lease.epoch < self.knows_by:
            raise StoreUnavailableError("the database was restored to an earlier point")

    async def _acting(self, session_id: str) -> Acting | None:
        session = await self._session_of(session_id)
        if session is None:
            return None
        lineage = session.lineage
        return Acting(
            session_id=session_id,
            tenant=lineage.tenant,
            environment=lineage.environment,
            agent=lineage.agent,
            user=lineage.user,
            task=session.task,
            roles=session.roles,
            attributes=session.attributes,
        )

    def _take(self, request: ClaimRequest, answer: Claimed, acting: Acting | None) -> None:
        key = request.idempotency
        proposed = next((event for event in request.events if event.kind == _PROPOSED), None)
        if proposed is None or acting is None:
            raise MarkError("a claim came to the mark without its session or what was proposed")
        taken = Taken(
            claim_id=request.claim_id,
            call_id=request.call_id,
            session_id=request.session_id,
            lineage_id=request.lineage_id,
            operation=request.operation,
            call_hash=request.call_hash,
            release_digest=request.release_digest,
            scopes=request.scopes,
            key=hashlib.sha256(f"unkeyed/{request.claim_id}".encode()).digest() if key is None else key.key,
            source="" if key is None else key.source,
            window_s=0 if key is None else key.window_s,
            claimed_at_us=answer.claimed_at_us or self._clock.wall_us(),
            proposed=Sealed(kind=proposed.kind, body=proposed.body, salt=proposed.salt, commitment=proposed.commitment),
            charges=_windowed(request),
        )
        if acting.session_id not in self._named:
            self._write(acting)
            self._named[acting.session_id] = acting
        self._write(taken)
        self.taken_last = request.claim_id

    def _write(self, line: Line) -> None:
        if self._mark.write(line, at_us=self._clock.wall_us()) or len(self._named) > MAX_NAMED_SESSIONS:
            self._named.clear()  # who reads another part is told again

    def _end(self, request: SettleRequest) -> None:
        long = request.outcome is not None and len(request.outcome) > MAX_OUTCOME_BYTES
        ended = Ended(
            claim_id=request.claim_id,
            attempt=request.attempt,
            state=request.state,
            not_done=request.release_key,
            outcome=None if long else request.outcome,
            left_out=long,
        )
        try:
            self._write(ended)
        except MarkError as error:
            # It is settled, and its claim is in the mark: after a restore its end would be found out as of a call in doubt.
            _log.error("%s", error, extra={"event": "mark.not_written"})


class RestoreWatch:
    """Compares the database with what stands beside it: marks of this folder, and the witness of signed heads."""

    def __init__(
        self, *, restorations: Restorations, desk: MarkedDesk, folder: Path, witness: Path, secrets: Sequence[bytes]
    ) -> None:
        self._restorations = restorations
        self._desk = desk
        self._folder = folder
        self._witness = witness
        self._secrets = secrets
        self._sql = load()

    async def look(self, database_id: str) -> bool:
        """Look at everything, before this process serves. True when the database was restored and that was not known.

        A mark that cannot be read to its end may tell of anything, so the database counts as restored until people have
        accepted that. Raises `MarkError` when the marks cannot be looked at, or only marks of other databases are kept here:
        then this one may stand in the place of another.
        """
        parts = parts_of(self._folder, database_id)
        others = other_databases(self._folder, database_id)
        if others and not parts:
            raise MarkError(
                f"{self._folder} holds marks of another database ({', '.join(others)}) and none of this one ({database_id}). "
                "If this one was put in its place, restore a backup of that one; else give another --mark folder"
            )
        why = await self._behind_witness() or await self._behind_marks(parts)
        return bool(why) and await self._noticed(why)

    async def look_again(self) -> bool:
        """The same for the last write of this process only: a chore, for pools that keep connections to a replaced server."""
        missing = await self._restorations.missing([self._desk.taken_last] if self._desk.taken_last else [])
        return bool(missing) and await self._noticed(_lacks(missing))

    async def on_connection(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Before any use of a new connection: that whatever answers there has the last write of this process."""
        last = self._desk.taken_last
        if last and await connection.fetch(self._sql["missing_claims"], [last]):
            row = await connection.fetchrow(self._sql["notice_restored"], _lacks((last,)))
            self._desk.knows_by = 0 if row is None else row["epoch"]
            about = {"event": "database.restored"}
            _log.critical("the database was restored to an earlier point: it is read-only until people resume it", extra=about)

    async def _behind_witness(self) -> str:
        lines = await asyncio.to_thread(read_witness, self._witness)
        if not lines:
            return ""
        last = lines[-1]
        if await self._restorations.has_head(int(last["n"]), bytes.fromhex(last["signature"])):
            return ""
        return f"signed head {last['n']} of {self._witness.name} is not there"

    async def _behind_marks(self, parts: Sequence[Path]) -> str:
        told = [last_of(path, *self._secrets) for path in parts]
        missing = await self._restorations.missing([last.claim_id for last in told if last.claim_id])
        if missing:
            return _lacks(missing)
        moves = await self._restorations.moves()
        stood = [(last.standing.epoch, last.standing.seq) for last in told if last.standing is not None]
        if stood and max(stood) > (moves.epoch, moves.seq):
            return "it does not have what a mark tells of stops, postures, revocations and releases"
        unread = {last.unread for last in told if last.unread} - await self._restorations.accepted()
        if unread:
            name = min(unread).partition(":")[0]
            return f"that must be supposed, for the mark {name} cannot be read to its end: changed, or sealed with another key"
        return ""

    async def _noticed(self, why: str) -> bool:
        noticed = await self._restorations.notice(why)
        self._desk.knows_by = noticed.epoch
        if noticed.news:
            told = "the database was restored to an earlier point (%s): it is read-only until people resume it"
            _log.critical(told, why, extra={"event": "database.restored"})
        return noticed.news


class Marking:
    """The mark of a process, its desk and its watch. `open` before anything is claimed, `tend` as a chore, then `close`."""

    def __init__(
        self,
        database: Database,
        writer: ClaimDesk,
        *,
        folder: Path,
        witness: Path,
        secrets: Sequence[bytes],
        process_id: str,
        environment: str,
        session_of: Callable[[str], Awaitable[Session | None]],
        lease: Lease,
        clock: Clock,
        keep_days: int = KEEP_DAYS,
    ) -> None:
        self._database = database
        self._keep_s = keep_days * 24 * 3600
        self._folder = folder
        self._clock = clock
        self._forgot_s = 0.0
        self._noted = (0, 0)
        self._restores: int | None = None
        self.on_restored: tuple[Callable[[], None], ...] = ()
        self.restorations = Restorations(database)
        self.mark = Mark(folder, process_id=process_id, environment=environment, secret=secrets[0])
        self.desk = MarkedDesk(writer, mark=self.mark, session_of=session_of, lease=lease, clock=clock)
        self.watch = RestoreWatch(
            restorations=self.restorations, desk=self.desk, folder=folder, witness=witness, secrets=secrets
        )

    async def open(self) -> None:
        """Compare the database with what stands beside it. Raises `StoreUnavailableError`."""
        database_id = await self.restorations.database_id()
        self.mark.belongs_to(database_id)
        await self.watch.look(database_id)
        self._restores = (await self.restorations.moves()).restores
        await self._forget()
        self._database.greeting.ask = self.watch.on_connection

    async def tend(self) -> None:
        """Put the mark on the disk, and see that the database still has what it tells of."""
        try:
            await asyncio.to_thread(self.mark.sync)  # first, for a database that is away must not keep lines off the disk
        finally:
            await self.watch.look_again()
            await self.note_controls()
        if self._clock.monotonic_s() - self._forgot_s > FORGET_EVERY_S:
            await self._forget()

    async def note_controls(self) -> None:
        """Put in the mark what is stopped, worried and revoked, if that has changed.

        Raises `StoreUnavailableError`, or `MarkError`.

        INVARIANT: nothing is noted while a restore is open: what the marks tell of then is what the database had lost.
        """
        moves = await self.restorations.moves()
        if moves.restores != self._restores:
            self._restores = moves.restores
            # What this process remembers is of another past: versions and numbers that are given again mean something else.
            for forget in self.on_restored:
                forget()
        if moves.open or (moves.seq, self.mark.part) == self._noted:
            return
        standing = await self.restorations.standing(self._clock.wall_us())
        self.mark.write(standing, at_us=standing.at_us)
        self._noted = (standing.seq, self.mark.part)

    async def note_now(self) -> bool:
        """The same, before a stricter control is answered. False when it could not be: it stands, and the chore tries on."""
        try:
            await self.note_controls()
        except StoreError as error:
            _log.error("what was just made stricter is not in the mark yet: %s", error, extra={"event": "mark.not_written"})
            return False
        return True

    async def _forget(self) -> None:
        self._forgot_s = self._clock.monotonic_s()
        before_s = self._clock.wall_us() / 1e6 - self._keep_s
        await asyncio.to_thread(forget_older, self._folder, self.mark.database_id, before_s)

    def close(self) -> None:
        """End the mark in peace."""
        self.mark.close(self._clock.wall_us())


def _windowed(request: ClaimRequest) -> tuple[Charge, ...]:
    """What it takes of budgets that outlive its session, which a restore ends."""
    return tuple(charge for charge in request.charges if charge.window_s and charge.account)


def _lacks(missing: tuple[str, ...]) -> str:
    return f"it does not have the claim {missing[0]} that a mark tells of" if missing else ""
