"""A restored database made good: what marks tell of is put back with its keys, and then a person lets writes go on."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.marking import MARK_KEY
from interlock.app.postures import PostureConflictError
from interlock.app.recovering import latest, look_at, put_back
from interlock.app.sources import SystemIds
from interlock.core.claim import UNSEEN, Settled, SettleRequest
from interlock.core.event import EventDraft
from interlock.core.ports import Ids
from interlock.core.terms import RESTORED, Posture
from interlock.core.who import Person
from interlock.gateway.limits import CALLER_KEY_WINDOW_S
from interlock.gateway.ports import ClaimDesk
from interlock.identity.keys import KeyRing
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallSettled
from interlock.ledger.restores import ClaimRecovered, DatabaseReconciled, DatabaseResumed
from interlock.ledger.witness import read_witness
from interlock.store.controls import ControlAnswer
from interlock.store.database import open_database
from interlock.store.mark import Acting, Ended, Part, Taken, boot, last_of, parts_of, read_part
from interlock.store.passwords import Password
from interlock.store.restorations import OpenDoubts, Restorations
from interlock.store.writer import Writer

LOOK_S: Final = 3_600
MAX_TOLD_FAULTS: Final = 50
MAX_TOLD_CONTROLS: Final = 200
WITNESS: Final = "heads.jsonl"


class NothingRestoredError(Exception):
    """No restore of this database is open, so there is nothing to make good."""


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back, counted by what became of each write that marks tell of.

    `done`, `failed`, `not_done` and `in_doubt` were lost and are back; `settled` were there without their end; `unsettled` are
    there, and their end is not known; `known` were there. `faults` are what is wrong with marks, `complete` that they are all.
    `doubts` is how many calls are in doubt now. `controls` are the stops, postures and revocations that stand as they stood, in
    words, and `look_at` is what a person has to see to.
    """

    parts: int
    counts: Mapping[str, int]
    faults: tuple[str, ...]
    complete: bool
    doubts: OpenDoubts
    controls: tuple[str, ...] = ()
    look_at: tuple[str, ...] = ()


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What resuming asks of the report of a reconciliation; of a version before this one it lacks the release."""

    complete: bool = False
    release: str = ""


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    taken: Taken
    process_id: str
    acting: Acting
    ended: Ended | None


class Restoring:
    """Reads marks into one restored database. Every method raises `StoreUnavailableError`."""

    def __init__(self, restorations: Restorations, desk: ClaimDesk, ids: Ids) -> None:
        self._restorations = restorations
        self._desk = desk
        self._ids = ids
        self._sessions: dict[str, str] = {}

    async def reconcile(self, folders: Sequence[Path], secrets: Sequence[bytes], *, all_marks: bool) -> Reconciliation:
        """Put back what the marks in `folders` tell of; may be done again, with other marks. `all_marks`: there are no others.

        Raises:
            NothingRestoredError: nothing was changed.
        """
        open_now = await self._restorations.last()
        if open_now is None or open_now.resumed:
            raise NothingRestoredError("no restore was noticed that is not resumed already")
        database_id = await self._restorations.database_id()
        paths = [path for folder in folders for path in parts_of(folder, database_id)]
        unread = tuple(last.unread for path in paths if (last := last_of(path, *secrets)).unread)
        parts = [read_part(path, *secrets) for path in paths]
        told, faults = _told(parts)
        counts: Counter[str] = Counter()
        for one in sorted(told, key=lambda item: item.taken.claimed_at_us):
            counts[await self._put_back(one)] += 1
        complete = all_marks and not faults
        standing = latest(parts)
        if standing is not None:
            controls = await put_back(self._restorations, standing, self._ids, since_us=open_now.reached_us)
        else:
            controls = ()
        see_to = look_at(standing, *await self._restorations.stopped())
        body = DatabaseReconciled(
            complete=complete,
            counts=dict(counts),
            faults=tuple(faults[:MAX_TOLD_FAULTS]),
            controls=controls[:MAX_TOLD_CONTROLS],
            look_at=see_to[:MAX_TOLD_CONTROLS],
            unread=unread[:MAX_TOLD_FAULTS],
            release="" if standing is None else standing.release_digest,
        )
        # The watch asks for each of them, so here all are named.
        report = msgspec.json.encode(msgspec.structs.replace(body, unread=unread)).decode()
        if not await self._restorations.reconciled(complete=complete, report=report, event=draft(body, ids=self._ids)):
            raise NothingRestoredError("somebody has resumed meanwhile")
        return Reconciliation(
            parts=len(parts),
            counts=dict(counts),
            faults=tuple(faults),
            complete=complete,
            doubts=await self._restorations.doubts(),
            controls=controls,
            look_at=see_to,
        )

    async def put_witness_aside(self, witness: Path) -> Path | None:
        """Keep what a witness tells of heads that are lost in a file of its own; its name, None when it tells of none.

        What is signed since the restore stands behind it in the same file, so each line is asked for.
        """
        lines = await asyncio.to_thread(read_witness, witness) or []
        there = await self._restorations.heads([int(line["n"]) for line in lines])
        lost = [line for line in lines if there.get(int(line["n"])) != bytes.fromhex(line["signature"])]
        if not lost:
            return None
        aside = witness.with_name(
            f"{witness.stem}.lost-{lost[0]['n']}-{lost[-1]['n']}-{lost[-1]['signature'][:8]}{witness.suffix}"
        )
        await asyncio.to_thread(_write_lines, aside, lost)
        await asyncio.to_thread(_write_lines, witness, [line for line in lines if line not in lost])
        return aside

    async def _put_back(self, one: _Told) -> str:
        taken, ended = one.taken, one.ended
        state = "in_doubt" if ended is None else ended.state
        recovered = ClaimRecovered(
            claim_id=taken.claim_id,
            operation=taken.operation,
            state=state,
            claimed_at_us=taken.claimed_at_us,
            session_id=taken.session_id,
            process_id=one.process_id,
        )
        events = [draft(recovered, ids=self._ids, call_id=taken.call_id)]
        if ended is not None:
            events.append(self._settled(taken, ended))
        proposed = taken.proposed
        first = EventDraft(
            kind=proposed.kind,
            call_id=taken.call_id,
            body=proposed.body,
            salt=proposed.salt,
            commitment=proposed.commitment,
        )
        # Nobody holds a token for the session that the write is put back into.
        session_id = self._sessions.setdefault(taken.session_id, self._ids.new("ses"))
        became = await self._restorations.recover(
            taken,
            msgspec.structs.replace(one.acting, session_id=session_id),
            _whole(ended),
            process_id=one.process_id,
            look_s=LOOK_S,
            events=(first, *events),
        )
        if became == "unsettled" and ended is not None and ended.state != "in_doubt":
            return await self._settle(taken, ended, events)
        if became != "recovered":
            return became
        if ended is not None and ended.not_done:
            return "not_done"
        return {"succeeded": "done"}.get(state, state)

    async def _settle(self, taken: Taken, ended: Ended, events: Sequence[EventDraft]) -> str:
        whole = _whole(ended)
        answer = await self._desk.settle(
            SettleRequest(
                claim_id=taken.claim_id,
                session_id=taken.session_id,
                lineage_id=taken.lineage_id,
                attempt=ended.attempt,
                state=ended.state,
                outcome=None if whole is None else whole.outcome,
                release_key=ended.not_done,
                events=tuple(events),
            )
        )
        return "settled" if isinstance(answer, Settled) else "unsettled"

    def _settled(self, taken: Taken, ended: Ended) -> EventDraft:
        body = CallSettled(
            claim_id=taken.claim_id,
            operation=taken.operation,
            attempt=ended.attempt,
            state=ended.state,
            took_us=0,
            code="" if ended.state == "succeeded" else "not_done" if ended.not_done else ended.state,
            detail="as a mark outside of the database tells",
        )
        return draft(body, ids=self._ids, call_id=taken.call_id)


class PeoplesRestores:
    """A person's word that writes may go on after a restore."""

    def __init__(self, restorations: Restorations, admin: AdminGate, ids: Ids) -> None:
        self._restorations = restorations
        self._admin = admin
        self._ids = ids

    async def resume(self, person: Person, reason: str, *, release: str = "") -> ControlAnswer:
        """Let writes go on; where marks were not complete, for a day only with a person's yes to each.

        `release` is the digest of the release in force, named by a person who means it; needed where marks do not tell, all of
        them, that it was in force when the database was lost, for then it may allow what was not allowed any more.

        Raises:
            NotPermittedError, PostureConflictError: nothing was changed.
        """
        await self._admin.permit(person, "resume", target=RESTORED)
        await self._must_be_the_release(release)
        body = DatabaseResumed(reason=reason, by=person.user, roles=person.roles, release=release)
        answer = await self._restorations.resume(
            guarded_s=CALLER_KEY_WINDOW_S, by=person.user, reason=reason, event=draft(body, ids=self._ids)
        )
        if answer.epoch is None:
            raise PostureConflictError(_WHY_NOT[answer.stands])
        note = ""
        if answer.stands == Posture.GUARDED:
            note = "marks may be missing, so for a day each write asks a person first; resume once more after that"
        return ControlAnswer(scope=RESTORED, halted=False, epoch=answer.epoch, in_flight=(), note=note)

    async def _must_be_the_release(self, named: str) -> None:
        last, (_, now) = await self._restorations.last(), await self._restorations.stopped()
        if named and named != now:
            raise PostureConflictError(f"release {named} is not in force; {now} is")
        if named or last is None or last.resumed or not last.reconciled:
            return
        told = msgspec.json.decode(last.recovered, type=_Report)
        if not (told.complete and told.release == now):
            was = (
                f"release {told.release} was in force as the marks tell" if told.release else "no mark tells which release was"
            )
            was = was if told.complete else f"{was}, and marks may be missing"
            raise PostureConflictError(
                f"{was}; {now} is in force now and may allow more. Activate the one that was, "
                f"or say that you mean this one: --release {now}"
            )


_WHY_NOT: Final = {
    "none": "no restore of the database is open",
    "unreconciled": "the database was restored and not made good yet; run `interlock db reconcile` first",
    "guarded": "each write asks a person until a day after it was resumed, for marks were missing; resume again after that",
}


def _write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(msgspec.json.encode(line) + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _whole(ended: Ended | None) -> Ended | None:
    """With an outcome in the place of one that was too long to be kept: that it was done, and nobody has the answer."""
    if ended is not None and ended.left_out and ended.state == "succeeded":
        return msgspec.structs.replace(ended, outcome=UNSEEN)
    return ended


def _told(parts: Iterable[Part]) -> tuple[list[_Told], list[str]]:
    """Every write that the parts tell of, with its last end, and what is wrong with them."""
    taken: dict[str, tuple[Taken, str]] = {}
    acting: dict[str, Acting] = {}
    ended: dict[str, Ended] = {}
    faults = []
    started = boot()
    for part in parts:
        if part.fault:
            faults.append(f"{part.path.name}: {part.fault}")
        if not part.closed and part.boot != started:
            faults.append(
                f"{part.path.name}: not closed, and its machine has started since or is another: its end may be missing"
            )
        for line in part.lines:
            match line:
                case Taken():
                    taken[line.claim_id] = line, part.process_id
                case Acting():
                    acting[line.session_id] = line
                case Ended():
                    if line.attempt >= (ended[line.claim_id].attempt if line.claim_id in ended else 0):
                        ended[line.claim_id] = line
                case _:
                    pass
    told = []
    for claim_id, (line, process_id) in taken.items():
        if line.charges is None:
            faults.append(f"{claim_id}: its mark does not say what it took of budgets, for it is of a version before")
        if line.session_id in acting:
            told.append(_Told(taken=line, process_id=process_id, acting=acting[line.session_id], ended=ended.get(claim_id)))
        else:
            faults.append(f"{claim_id}: the mark does not say in which session it was made")
    return told, faults


async def reconcile_marks(
    database_url: str, state: Path, folders: Sequence[Path], *, all_marks: bool, password: Password | None = None
) -> tuple[Reconciliation, Path | None]:
    """`Restoring.reconcile` with no gateway around it; gives also where the witness of `state` was put, None when it holds.

    Raises:
        NothingRestoredError, StoreError: nothing was changed.
    """
    ids = SystemIds()
    secrets = KeyRing(state / "keys").all_private_bytes(MARK_KEY)
    database = await open_database(database_url, password=password)
    try:
        # Ends are settled as any gateway would; it claims nothing, so it needs no lease and is no process.
        writer = Writer(database, process_id=ids.new("prc"))
        writer.start()
        try:
            restoring = Restoring(Restorations(database), writer, ids)
            made = await restoring.reconcile(folders, secrets, all_marks=all_marks)
            return made, await restoring.put_witness_aside(state / WITNESS)
        finally:
            await writer.close()
    finally:
        await database.close()
