"""The claim desk: one task a process that commits the claims, records and settlements of many callers together."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import msgspec

from interlock.core.claim import (
    ApprovalGone,
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    Duplicate,
    Epochs,
    Halted,
    KeyReused,
    LineageState,
    NotSettled,
    OverBudget,
    OverRate,
    RecordAnswer,
    Recorded,
    RecordRequest,
    SessionEnded,
    SettleAnswer,
    Settled,
    SettleRequest,
    Stale,
)
from interlock.core.decision import Rate
from interlock.core.terms import Posture
from interlock.store.batch import Request, arguments
from interlock.store.budgets import Slices, over_budget
from interlock.store.database import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, UNAVAILABLE, Database, why_not_done
from interlock.store.errors import StoreUnavailableError
from interlock.store.plain import PLAIN_ANSWER, all_plain, plain_arguments
from interlock.store.queries import load

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.prepared_stmt import PreparedStatement

_log = logging.getLogger(__name__)

MAX_QUEUED_REQUESTS: Final = 4_096
MAX_BATCH_REQUESTS: Final = 64
GATHER_REQUESTS: Final = 8
GATHER_MS: Final = 1
QUIET_TURNS: Final = 4
MAX_ATTEMPTS: Final = 3
RETRY_PAUSE_MS: Final = 50
MAX_DRAWS: Final = 12
_DRAW: Final = "draw"
_AGAIN: Final = "again"
_PLAIN: Final = "plain"
MAX_KNOWN_ACCOUNTS: Final = 4_096
# The last: a migration gave the statement other columns; it was not done, and is prepared anew.
_NOT_DONE: Final = (*UNAVAILABLE, asyncpg.InvalidCachedStatementError)


class _NoRoom(msgspec.Struct, frozen=True):
    """A budget had no room, as far as this process's slice goes, or `report` says how it stands as a whole."""

    account: str
    report: str


Answer: TypeAlias = ClaimAnswer | RecordAnswer | SettleAnswer | _NoRoom


class _Waiting(msgspec.Struct):
    request: Request
    future: asyncio.Future[Answer]


class Writer:
    """Implements the gate's `ClaimDesk`. Start it inside a running loop with `start`, end it with `close`."""

    def __init__(self, database: Database, *, process_id: str) -> None:
        self._pool = database.pool()
        self._process_id = process_id
        self._sql = load()["commit_plain"], load()["commit_requests"]
        self._connection: PoolConnectionProxy[asyncpg.Record] | None = None
        self._last_had = 1
        self._statements: tuple[PreparedStatement[asyncpg.Record], PreparedStatement[asyncpg.Record]] | None = None
        self._accounts: OrderedDict[str, None] = OrderedDict()  # of budgets that had rows a moment ago
        self._queue: deque[_Waiting] = deque()
        self._something = asyncio.Event()  # is queued, or it ends
        self._slices = Slices(database, process_id=process_id)
        self._database = database
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that are not yet part of a commit."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to take requests."""
        self._task = asyncio.create_task(self._run(), name="writer")

    async def close(self) -> None:
        """Commit what is queued, then stop. Requests that come later are refused."""
        task, self._task = self._task, None
        if task is None:
            return
        self._something.set()
        await asyncio.gather(task, return_exceptions=True)
        await self._let_go(broken=False)

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Take the right to execute one call. Raises `StoreUnavailableError`: then nothing may be executed."""
        if request.continues:
            return await self._go_on(request)
        for _ in range(MAX_DRAWS):
            answer = await self._submit(request)
            if not isinstance(answer, _NoRoom):
                break
            charge = next(item for item in request.charges if item.account == answer.account)
            if answer.report not in (_AGAIN, _DRAW):
                return over_budget(charge, answer.report)
            self._accounts.pop(answer.account, None)
            over = await self._slices.draw(charge, request) if answer.report == _DRAW else None
            if over is not None:
                return over
        else:
            # Others keep taking what this process draws: close to the limit, and with room that calls in flight may free.
            return OverBudget(charge=charge, used=charge.limit, in_flight=charge.limit)
        if isinstance(answer, Claimed) and answer.attempt != 1:
            # INVARIANT: only who makes an attempt speaks of it. This answer was lost so long that another process began one.
            raise StoreUnavailableError("the answer to the claim was lost, and another process has taken it up since")
        if isinstance(answer, (Claimed, Duplicate, KeyReused, Stale, Halted, OverRate, ApprovalGone, SessionEnded)):
            return answer
        raise StoreUnavailableError("the database gave an answer that does not fit a claim")

    async def _go_on(self, request: ClaimRequest) -> ClaimAnswer:
        """Let a claim go on that waits for answers. It is rare, so no batch is looked for."""
        epochs, labels, events = request.epochs, request.worst_labels, request.events
        row = await self._database.row(
            "go_on",
            request.claim_id,
            request.continues,
            self._process_id,
            request.session_id,
            request.lineage_id,
            request.operation,
            request.call_id,
            request.call_hash,
            list(request.scopes),
            epochs.control,
            epochs.release,
            epochs.revocation,
            request.facts_version,
            request.history_version,
            labels.tainted,
            labels.confidentiality,
            request.settle_by_ms,
            list(request.approvals),
            request.approved_hash,
            [event.call_id for event in events],
            [event.kind for event in events],
            [event.body for event in events],
            [event.salt for event in events],
            [event.commitment for event in events],
            None if request.work is None else request.work.lineage_id,
            None if request.work is None else request.work.version,
        )
        answer = None if row is None else _answer(row)
        if isinstance(answer, (Claimed, Duplicate, Stale, Halted, ApprovalGone, SessionEnded)):
            return answer
        raise StoreUnavailableError("the database gave an answer that does not fit a claim")

    async def record(self, request: RecordRequest) -> RecordAnswer:
        """Append events that claim nothing. Raises `StoreUnavailableError`."""
        answer = await self._submit(request)
        if isinstance(answer, (Recorded, Stale, SessionEnded)):
            return answer
        raise StoreUnavailableError("the database gave an answer that does not fit a record")

    async def settle(self, request: SettleRequest) -> SettleAnswer:
        """Record what became of a claim. Raises `StoreUnavailableError`: then nothing of the outcome may be released."""
        answer = await self._submit(request)
        if isinstance(answer, (Settled, NotSettled)):
            return answer
        raise StoreUnavailableError("the database gave an answer that does not fit a settlement")

    async def _submit(self, request: Request) -> Answer:
        if self._task is None or self._task.done():
            raise StoreUnavailableError("the writer is not running; the process is starting or going down")
        if len(self._queue) >= MAX_QUEUED_REQUESTS:
            raise StoreUnavailableError("too many requests wait for the database; try again shortly")
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._something.set()
        return await waiting.future

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while batch := await self._gathered():
                try:
                    await self._commit(batch)
                except Exception as error:  # noqa: BLE001  # the writer outlives every batch; its callers fail closed
                    _log.exception("a batch could not be committed", extra={"event": "store.batch_failed"})
                    for waiting in batch:
                        _fail(waiting, error)
        finally:
            # INVARIANT: nobody waits for a writer that has ended, however it did.
            ended = StoreUnavailableError("the writer has ended; the process is going down")
            for waiting in (*batch, *self._queue):
                _fail(waiting, ended)
            self._queue.clear()

    async def _gathered(self) -> list[_Waiting]:
        """What waits, up to a batch; nothing when the writer ends. Of one claim there is one settlement in it.

        A second one meets what the first did.
        """
        while not self._queue:
            if self._task is None:
                return []
            self._something.clear()
            await self._something.wait()
        if self._last_had > 1 or len(self._queue) > 1:
            await self._more()
        batch: list[_Waiting] = []
        settled: set[str] = set()
        while self._queue and len(batch) < MAX_BATCH_REQUESTS:
            claim_id = _settles(self._queue[0].request)
            if claim_id in settled:
                break
            if claim_id:
                settled.add(claim_id)
            batch.append(self._queue.popleft())
        self._last_had = len(batch)
        return batch

    async def _more(self) -> None:
        """Let those who can go on at once, mostly the callers of the last batch, come into this one. It waits for nothing else.

        A batch costs this process and Postgres more than a request in it does. Where many wait already, it is sent at once, so
        that Postgres works on it while this process works on the others. Who is alone does not come here.
        """
        now_s, quiet = asyncio.get_running_loop().time, 0
        until_s = now_s() + GATHER_MS / 1000
        while quiet < QUIET_TURNS and len(self._queue) < GATHER_REQUESTS and now_s() < until_s:
            before = len(self._queue)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == before else 0

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            answers = await self._send_until_answered([waiting.request for waiting in batch])
        except StoreUnavailableError as error:
            for waiting in batch:
                _fail(waiting, error)
        except asyncpg.PostgresError as error:
            # INVARIANT: one bad row harms nobody else; each is sent alone, and only the bad one fails.
            if len(batch) == 1:
                # Not the message: it quotes the row.
                about = {"event": "store.request_refused", "code": error.sqlstate}
                _log.error("a request was refused by the database (%s)", type(error).__name__, extra=about)
                _fail(batch[0], error)
            else:
                for waiting in batch:
                    await self._commit([waiting])
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(answer)

    async def _send_until_answered(self, requests: list[Request]) -> list[Answer]:
        """Send a batch. When the connection breaks nobody knows whether it was committed, so it is sent again: that is safe."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                answers = await self._send(requests, again=attempt > 0)
            except _NOT_DONE as error:
                last: Exception = error
                await self._let_go()
                await asyncio.sleep(RETRY_PAUSE_MS * (attempt + 1) / 1000)
            else:
                self._keep_in_mind(requests)
                return answers
        raise StoreUnavailableError(why_not_done(last)) from last

    async def _send(self, requests: list[Request], *, again: bool) -> list[Answer]:
        """Send a batch once. What may have been committed before (`again`) is looked at request by request."""
        if self._connection is not None and self._connection.is_closed():
            await self._let_go()
        if self._connection is None or self._statements is None:
            self._connection = self._connection or await self._pool.acquire(timeout=CONNECT_TIMEOUT_S)
            plain, each = [await self._connection.prepare(sql, timeout=COMMAND_TIMEOUT_S) for sql in self._sql]
            self._statements = plain, each
        plain, each = self._statements
        columns = None if again else plain_arguments(self._process_id, requests, self._accounts)
        if columns is not None:
            told = await plain.fetchval(*columns, timeout=COMMAND_TIMEOUT_S)
            if told is not None:
                return [*all_plain(requests, *PLAIN_ANSWER.decode(told))]
        columns = arguments(self._process_id, requests, again=again, known=self._accounts)
        rows = await each.fetch(*columns, timeout=COMMAND_TIMEOUT_S)
        if len(rows) == 1 and rows[0]["answer"] == _PLAIN:
            stand = zip(*msgspec.structs.astuple(_LINEAGES.decode(rows[0]["outcome"])), strict=True)
            return [*all_plain(requests, rows[0]["claimed_at_us"], stand)]
        return [_answer(row) for row in sorted(rows, key=lambda row: row["n"])]

    async def _let_go(self, *, broken: bool = True) -> None:
        """Give the connection back. One that is broken, or whose statement may still be running, is not used again."""
        connection, self._connection, self._statements = self._connection, None, None
        if connection is not None:
            try:
                # Of one that was lost the pool has taken leave already; it answers to nothing any more.
                if broken:
                    connection.terminate()
                await self._pool.release(connection, timeout=CONNECT_TIMEOUT_S)
            except UNAVAILABLE:
                _log.debug("a connection could not be given back", exc_info=True, extra={"event": "store.not_given_back"})

    def _keep_in_mind(self, requests: list[Request]) -> None:
        """Which budgets have rows now. Being wrong costs a claim another round (`again`)."""
        for request in requests:
            if isinstance(request, ClaimRequest):
                for charge in request.charges:
                    if not charge.shared:
                        self._accounts[charge.account] = None
                        self._accounts.move_to_end(charge.account)
        while len(self._accounts) > MAX_KNOWN_ACCOUNTS:
            self._accounts.popitem(last=False)


def _settles(request: Request) -> str:
    """The claim that a request settles; empty for another."""
    return request.claim_id if isinstance(request, SettleRequest) else ""


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        refused = error if isinstance(error, StoreUnavailableError) else StoreUnavailableError("the request was not committed")
        waiting.future.set_exception(refused)


class _Lineages(msgspec.Struct, frozen=True):
    """Where the lineages of a plain batch stand, in columns, as `commit_requests` tells it."""

    id: tuple[str, ...]
    version: tuple[int, ...]
    posture: tuple[Posture, ...]
    tainted: tuple[bool, ...]
    conf: tuple[int, ...]
    history: tuple[int, ...]
    tainter: tuple[str, ...]
    secret: tuple[str, ...]


_LINEAGES: Final = msgspec.json.Decoder(_Lineages)


def _answer(row: asyncpg.Record) -> Answer:
    match row["answer"]:
        case "claimed":
            return Claimed(
                claim_id=row["claim_id"],
                attempt=row["attempt"],
                state=_state(row),
                claimed_at_us=row["claimed_at_us"] or 0,
                history_n=row["history_n"],
            )
        case "duplicate":
            return Duplicate(
                claim_id=row["claim_id"],
                call_id=row["call_id"],
                claim_state=row["claim_state"],
                outcome=row["outcome"],
                claimed_at_us=row["claimed_at_us"],
                settled_at_us=row["settled_at_us"],
                owner_alive=row["owner_alive"],
            )
        case "key_reused":
            return KeyReused(claim_id=row["claim_id"])
        case "stale":
            epochs = Epochs(control=row["control"], release=row["release"], revocation=row["revocation"])
            return Stale(epochs=epochs, state=_state(row), release_digest=row["release_digest"])
        case "halted":
            return Halted(scope=row["scope"], reason=row["reason"])
        case "over_rate":
            rate = Rate(limit=row["rate_limit"], window_s=row["rate_window_s"])
            return OverRate(rate=rate, retry_after_ms=row["retry_after_ms"])
        case "over_budget":
            return _NoRoom(row["scope"], row["reason"])
        case "approval_gone":
            return ApprovalGone(approval_id=row["scope"])
        case "recorded":
            return Recorded()
        case "settled":
            return Settled(state=_state(row), history_n=row["history_n"])
        case "not_settled":
            return NotSettled(claim_state=row["claim_state"])
        case _:
            return SessionEnded()


def _state(row: asyncpg.Record) -> LineageState:
    return LineageState(
        facts_version=row["facts_version"],
        posture=Posture(row["posture"]),
        tainted=row["tainted"],
        confidentiality=row["confidentiality"],
        history_version=row["history_version"],
        tainted_by=row["tainted_by"],
        confidential_by=row["confidential_by"],
    )
