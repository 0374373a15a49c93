"""The claim desk: one task a process that commits the claims, records and settlements of many callers together."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeAlias, assert_never

import asyncpg
import msgspec

from interlock.core.budget import Charge
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
from interlock.store.budgets import Slices, over_budget
from interlock.store.database import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, UNAVAILABLE, Database
from interlock.store.errors import StoreUnavailableError
from interlock.store.queries import load

_log = logging.getLogger(__name__)

MAX_QUEUED_REQUESTS: Final = 4_096
MAX_BATCH_REQUESTS: Final = 64
MAX_ATTEMPTS: Final = 3
RETRY_PAUSE_MS: Final = 50
MAX_DRAWS: Final = 12
_DRAW: Final = "draw"
_AGAIN: Final = "again"

Request: TypeAlias = ClaimRequest | RecordRequest | SettleRequest


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
        self._sql = load()["commit_batch"]
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_QUEUED_REQUESTS)
        self._slices = Slices(database, process_id=process_id)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take requests."""
        self._task = asyncio.create_task(self._run(), name="writer")

    async def close(self) -> None:
        """Commit what is queued, then stop. Requests that come later are refused."""
        task, self._task = self._task, None
        if task is None:
            return
        await self._queue.join()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Take the right to execute one call. Raises `StoreUnavailableError`: then nothing may be executed."""
        for _ in range(MAX_DRAWS):
            answer = await self._submit(request)
            if not isinstance(answer, _NoRoom):
                break
            charge = next(item for item in request.charges if item.account == answer.account)
            if answer.report not in (_AGAIN, _DRAW):
                return over_budget(charge, answer.report)
            over = await self._slices.draw(charge, request) if answer.report == _DRAW else None
            if over is not None:
                return over
        else:
            # Others keep taking what this process draws: close to the limit, and with room that calls in flight may free.
            return OverBudget(charge=charge, used=charge.limit, in_flight=charge.limit)
        if isinstance(answer, (Claimed, Duplicate, KeyReused, Stale, Halted, OverRate, ApprovalGone, SessionEnded)):
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
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise StoreUnavailableError("too many requests wait for the database; try again shortly") from None
        return await waiting.future

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MAX_BATCH_REQUESTS and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            except Exception as error:  # noqa: BLE001  # the writer outlives every batch; its callers fail closed
                _log.exception("a batch could not be committed")
                for waiting in batch:
                    _fail(waiting, error)
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            answers = await self._send_until_answered([waiting.request for waiting in batch])
        except StoreUnavailableError as error:
            for waiting in batch:
                _fail(waiting, error)
        except asyncpg.PostgresError as error:
            # INVARIANT: one bad row harms nobody else; each is sent alone, and only the bad one fails.
            if len(batch) == 1:
                _log.error("a request was refused by the database: %s", error)
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
                async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                    rows = await connection.fetch(
                        self._sql,
                        *_arguments(self._process_id, requests, again=attempt > 0),
                        timeout=COMMAND_TIMEOUT_S,
                    )
            except UNAVAILABLE as error:
                last: Exception = error
                await asyncio.sleep(RETRY_PAUSE_MS * (attempt + 1) / 1000)
            else:
                return [_answer(row) for row in sorted(rows, key=lambda row: row["n"])]
        raise StoreUnavailableError(f"the database did not answer ({type(last).__name__})") from last


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        refused = error if isinstance(error, StoreUnavailableError) else StoreUnavailableError("the request was not committed")
        waiting.future.set_exception(refused)


def _arguments(process_id: str, requests: list[Request], *, again: bool) -> tuple[Any, ...]:
    wanted = [_wanted(number, request, process_id, again=again) for number, request in enumerate(requests)]
    outcomes = [request.outcome if isinstance(request, SettleRequest) else None for request in requests]
    numbers, kinds, calls, bodies, salts, commitments = [], [], [], [], [], []
    for number, request in enumerate(requests):
        for event in request.events:
            numbers.append(number)
            kinds.append(event.kind)
            calls.append(event.call_id)
            bodies.append(event.body)
            salts.append(event.salt)
            commitments.append(event.commitment)
    text = msgspec.json.encode(wanted).decode()
    return process_id, text, outcomes, numbers, kinds, calls, bodies, salts, commitments, *_entering(requests)


def _entering(requests: list[Request]) -> tuple[Any, ...]:
    """What enters contexts with the settlements, in columns. An item has as many `standings` and `tokens` as its `ways` say."""
    entering = [
        (number, request.lineage_id, request.session_id, request.enters)
        for number, request in enumerate(requests)
        if isinstance(request, SettleRequest) and request.enters is not None
    ]
    ways = [way for *_, item in entering for way in sorted(item.tokens.items())]
    return (
        [number for number, *_ in entering],
        [lineage_id for _, lineage_id, _, _ in entering],
        [session_id for _, _, session_id, _ in entering],
        [item.source for *_, item in entering],
        [item.reference for *_, item in entering],
        [item.is_complete for *_, item in entering],
        [len(item.tokens) for *_, item in entering],
        [standing for standing, _ in ways],
        [hashes for _, hashes in ways],
    )


def _wanted(number: int, request: Request, process_id: str, *, again: bool) -> dict[str, Any]:
    match request:
        case ClaimRequest():
            key = request.idempotency
            return {
                "n": number,
                "kind": "claim",
                "claim_id": request.claim_id,
                "call_id": request.call_id,
                "session_id": request.session_id,
                "lineage_id": request.lineage_id,
                "operation": request.operation,
                "call_hash": request.call_hash,
                "release_digest": request.release_digest,
                "scopes": request.scopes,
                "key": None if key is None else key.key.hex(),
                "key_source": None if key is None else key.source,
                "key_window_s": None if key is None else key.window_s,
                "rates": [[rate.limit, rate.window_s] for rate in request.rates],
                "control": request.epochs.control,
                "release": request.epochs.release,
                "revocation": request.epochs.revocation,
                "facts_version": request.facts_version,
                "tainted": request.worst_labels.tainted,
                "confidentiality": request.worst_labels.confidentiality,
                "settle_by_ms": request.settle_by_ms,
                "approvals": request.approvals,
                "approved_hash": request.approved_hash,
                "history": request.history,
                "history_version": request.history_version,
                **_charged(request.charges, process_id),
            }
        case RecordRequest():
            epochs = request.epochs
            return {
                "n": number,
                "kind": "record",
                "call_id": request.call_id,
                "session_id": request.session_id,
                "lineage_id": request.lineage_id,
                "control": None if epochs is None else epochs.control,
                "release": None if epochs is None else epochs.release,
                "revocation": None if epochs is None else epochs.revocation,
                "facts_version": request.facts_version,
                "history_version": request.history_version,
                "again": again,
            }
        case SettleRequest():
            return {
                "n": number,
                "kind": "settle",
                "claim_id": request.claim_id,
                "session_id": request.session_id,
                "lineage_id": request.lineage_id,
                "attempt": request.attempt,
                "state": request.state,
                "release_key": request.release_key,
                "spent": request.spent or None,
            }
        case _:
            assert_never(request)


def _charged(charges: tuple[Charge, ...], process_id: str) -> dict[str, Any]:
    """What a claim asks of budgets, and what it is to keep in mind for its settlement. Keys are short: there are many."""
    if not charges:
        return {}
    budgets: list[dict[str, Any]] = []
    reserved: list[dict[str, Any]] = []
    holding: list[dict[str, Any]] = []
    for charge in charges:
        holder = process_id if charge.shared else ""
        taken = {"a": charge.account, "h": holder, "m": charge.amount, "w": charge.window_s}
        budgets.append({**taken, "i": charge.about, "c": charge.limit, "l": charge.lifted})
        if charge.account:
            (holding if charge.window_s else reserved).append(taken)
    return {"budgets": budgets, "reserved": reserved or None, "holding": holding or None}


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
