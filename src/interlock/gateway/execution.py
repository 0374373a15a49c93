"""Between claim and settle: the only place where a permit is spent and a tool is called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never

import msgspec

from interlock.core.budget import Budget
from interlock.core.canonical import digest
from interlock.core.claim import NOT_KEPT, Claimed, Labels, NotSettled, OfWork, OverBudget, Settled, SettleRequest, awaiting
from interlock.core.context import Item
from interlock.core.contract import Contract
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.trace_context import TRACEPARENT
from interlock.core.who import Session
from interlock.gateway.lease import Lease, NotStartedError
from interlock.gateway.limits import MAX_OUTPUT_BYTES, MAX_RELEASED_IN_LEDGER_BYTES
from interlock.gateway.messages import Asked
from interlock.gateway.ports import ClaimDesk, DoubtDesk
from interlock.gateway.telemetry import NOT_TRACED, followed, passed
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallSettled, ClaimConflict
from interlock.policy.errors import PermitError
from interlock.policy.permit import Permit
from interlock.tools.directory import Connectors, connection_key
from interlock.tools.port import Asks, Fence, Invocation, Line, PauseGuard, ToolAnswer, ToolFailure, ToolResult

_log = logging.getLogger(__name__)

_UNREADABLE_ERROR: Final = {"type": "text", "text": "The tool reported an error that cannot be read here."}
_LONG_ERROR: Final = {"type": "text", "text": "The tool reported an error that is too long to be kept here."}
WITHHELD_ERROR: Final = {"type": "text", "text": "The tool reported an error. Its text is withheld in this session."}
_OUR_OWN_WORDS: Final = (_UNREADABLE_ERROR, _LONG_ERROR, WITHHELD_ERROR)
_TOOLS_OWN_FAULT: Final = frozenset({"unreachable", "timeout", "protocol"})


class RawOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool's answer before obligations. Stored as JSON text for replays of writes."""

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    logs: tuple[Mapping[str, Any], ...] = ()
    asks: Asks | None = None
    error_code: int = 0
    needs: tuple[str, ...] = ()


class StoppedError(Exception):
    """The call this read was for must end: `code` is a refusal code, `after_ms` when to come back where that is known.

    `over` is the budget that had no room for the read.
    """

    def __init__(self, code: str, say: str = "", after_ms: int = 0, over: tuple[Budget, OverBudget] | None = None) -> None:
        super().__init__(code)
        self.over = over
        self.code = code
        self.say = say
        self.after_ms = after_ms


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """What may leave the gate after obligations, or `withheld` with the reason. `not_kept`: nobody has it any more."""

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    redacted: tuple[str, ...] = ()
    withheld: str = ""
    not_kept: bool = False
    asks: Asked | None = None
    refused_ask: str = ""
    logs: tuple[Mapping[str, Any], ...] = ()
    error_code: int = 0
    needs: tuple[str, ...] = ()

    @property
    def tells_an_error(self) -> bool:
        """Whether there are words of a tool that failed in it, not ours."""
        return self.is_error and any(block not in _OUR_OWN_WORDS for block in self.content)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is given to the caller."""
        return not self.content and self.structured is None and not self.logs and self.asks is None

    def written(self) -> dict[str, Any]:
        """All that is given to the caller, as it is recorded."""
        found: dict[str, Any] = {"content": self.content, "structured": self.structured}
        found |= {"logs": self.logs} if self.logs else {}
        return found | ({"asks": self.asks.requests} if self.asks is not None else {})


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier call released: which one, and when, on this process's clock and by the wall clock."""

    released: Released
    call_id: str
    at_s: float
    at_us: int


Filter: TypeAlias = Callable[[RawOutput], Released]
TakenUp: TypeAlias = Callable[[Released], Awaitable[Item | None]]
MoreEvents: TypeAlias = Callable[[RawOutput | None], list[EventDraft]]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One claimed call, ready to be made. `timed` are the accounts that count the milliseconds it takes.

    With `calls_the_tool` false its tool is unstable: `earlier` is then the answer, and without one it fails unsent.
    `sent_before`: an earlier attempt may have arrived, so only the tool's own good answer says what became of the call.
    `asked_in` is the attempt in which the tool asked what is answered now, `first_call` the call that made the claim then.
    """

    call_id: str
    session: Session
    contract: Contract
    arguments: bytes
    call_hash: str
    claimed: Claimed
    permit: Permit
    labels: Labels
    extra_log: bool = False
    may_be_repeated: bool = False
    timed: tuple[str, ...] = ()
    calls_the_tool: bool = True
    earlier: Earlier | None = None
    sent_before: bool = False
    line: Line = Line()
    more: Mapping[str, Any] = {}
    of_work: OfWork | None = None
    asked_in: int = 0
    first_call: str = ""

    @property
    def is_undone_when_it_asks(self) -> bool:
        """Whether a question of the tool means that nothing has happened: by its contract, and while no attempt is in doubt."""
        return self.contract.is_undone_when_it_asks and not self.asked_in


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a claimed call ended: the state that was settled, and what may be released. `code` is empty on success.

    `answered` is whether the tool answered; None when this says nothing about the tool. `unsent`: it never reached it.
    """

    state: str
    released: Released
    code: str = ""
    settled: Settled | NotSettled
    answered: bool | None = None
    unsent: bool = False


class Executor:
    """Spends the permit, calls the tool, settles. Nothing is returned before the settlement has committed."""

    def __init__(
        self,
        *,
        desk: ClaimDesk,
        doubts: DoubtDesk,
        lease: Lease,
        connectors: Connectors,
        guard: PauseGuard | None,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._desk = desk
        self._doubts = doubts
        self._lease = lease
        self._guard = guard
        self._connectors = connectors
        self._clock = clock
        self._ids = ids

    async def run(
        self, work: Work, filtered: Filter, more_events: MoreEvents | None = None, taken_up: TakenUp | None = None
    ) -> Ending:
        """Make the call and settle it. Raises `StoreUnavailableError` when the outcome could not be recorded.

        `filtered` turns the raw output into what may be released; `more_events` may add events that depend on the output;
        `taken_up` tells what enters the agent's context, in the transaction that settles. Nothing is released without both.
        """
        started = self._clock.monotonic_s()
        result, stopped = await self._invoke(work)
        took_us = int((self._clock.monotonic_s() - started) * 1e6)
        raw: RawOutput | None = None
        earlier = work.earlier
        match result:
            case ToolAnswer() if earlier is not None:
                text, released, state, code = b"", earlier.released, "succeeded", ""
                detail = f"the tool is unstable: answered with what {earlier.call_id} released"
            case ToolAnswer() if (result.not_kept_bytes or result.unreadable) and not result.is_error:
                detail = result.unreadable or f"the answer is {result.not_kept_bytes} bytes long, which is more than is kept"
                text, released = b"", Released(withheld=detail, not_kept=True)
                of_reading = "failed", "result_unreadable" if result.unreadable else "result_too_large"
                state, code = of_reading if work.contract.is_read_only else ("succeeded", "")
            case ToolAnswer():
                raw, text, released = _read(result, filtered)
                state, code, detail = _state_of_answer(work, result, released)
            case ToolFailure():
                text, released = b"", Released()
                state, code = _state_of_failure(work.contract, result, stopped)
                detail = f"{result.code}: {result.detail}" if stopped is None else f"not sent: {stopped}"
            case _:
                assert_never(result)
        if work.sent_before and state != "succeeded":
            state, code = "in_doubt", "in_doubt"
        outcome = _kept(work, text, released)
        # A tool that asks before it acts, by its contract, has done nothing yet: the answers are for another call with its key.
        # INVARIANT: of any other write its word is not taken for that. Its claim keeps its key, and goes on with the answers,
        # also when they did not arrive.
        undone = not result.sent if isinstance(result, ToolFailure) else result.asks is not None and work.is_undone_when_it_asks
        unsent = undone and not (work.sent_before or work.asked_in)
        if undone and work.asked_in:
            state, outcome = "in_doubt", awaiting(work.asked_in)
        elif state == "in_doubt":
            outcome = awaiting(work.claimed.attempt) if released.asks is not None else None
        out = msgspec.json.encode(released.written())
        keep_bytes = MAX_OUTPUT_BYTES if work.extra_log else MAX_RELEASED_IN_LEDGER_BYTES
        gives = not released.is_empty
        body = CallSettled(
            claim_id=work.claimed.claim_id,
            operation=work.contract.operation,
            attempt=work.claimed.attempt,
            state=state,
            took_us=took_us,
            code=code,
            detail=detail[:500],
            labels=work.labels,
            output_digest=digest(text) if text else "",
            redacted=released.redacted,
            released_digest=digest(out) if gives else "",
            released=msgspec.Raw(out) if gives and len(out) <= keep_bytes else None,
            of_call="" if earlier is None else earlier.call_id,
            age_ms=0 if earlier is None else int((started - earlier.at_s) * 1000),
        )
        events = [draft(body, ids=self._ids, call_id=work.call_id)]
        if more_events is not None:
            events += more_events(raw)
        item, not_taken_up = await _taken_up(taken_up, released)
        settled = await self._desk.settle(
            SettleRequest(
                claim_id=work.claimed.claim_id,
                session_id=work.session.session_id,
                lineage_id=work.session.lineage.id,
                attempt=work.claimed.attempt,
                state=state,
                outcome=outcome,
                release_key=unsent,
                spent=dict.fromkeys(work.timed, -(-took_us // 1000)),
                labels=work.labels,
                events=tuple(events),
                enters=item,
                work=work.of_work,
            )
        )
        if not_taken_up is not None:
            raise not_taken_up
        if isinstance(settled, NotSettled):
            await self._late(work, state, settled.claim_state, body.detail)
        answered = None if earlier is not None or stopped is not None else _answered(result)
        told = "" if released.asks is not None else "ask_refused" if released.refused_ask else code
        return Ending(state=state, released=released, code=told, settled=settled, answered=answered, unsent=unsent)

    async def _late(self, work: Work, state: str, stands: str, detail: str) -> None:
        """Somebody else has spoken about the claim since. What agrees with it, or says nothing, is quiet."""
        if state in {"in_doubt", stands}:
            return
        body = ClaimConflict(
            claim_id=work.claimed.claim_id,
            operation=work.contract.operation,
            attempt=work.claimed.attempt,
            stands=stands,
            said=state,
            detail=detail[:500],
        )
        what = f"attempt {body.attempt} said {state} when it stood as {stands}"
        about = {"event": "claim.conflict", "claim_id": body.claim_id, "operation": body.operation, "call_id": work.call_id}
        _log.error("two answers about one claim: %s", what, extra=about)
        await self._doubts.conflict(body.claim_id, what, draft(body, ids=self._ids, call_id=work.call_id))

    async def _invoke(self, work: Work) -> tuple[ToolResult, NotStartedError | None]:
        """The tool's answer; when the call was stopped before its first byte, also what stopped it."""
        if not work.calls_the_tool:
            return self._without_the_tool(work)
        connector = self._connectors.get(work.contract.tool)
        if connector is None:
            return ToolFailure(sent=False, code="unreachable", detail="no source for this tool in this environment"), None
        tool = self._connectors.tool(work.contract.tool)
        stopped: list[NotStartedError] = []
        lease, permit, task, cancelled = self._lease, work.permit, asyncio.current_task(), False

        def spend() -> None:
            try:
                lease.check(permit)
                try:
                    permit.spend(call_hash=work.call_hash, now_monotonic_s=self._clock.monotonic_s())
                except PermitError:
                    lease.check(permit)  # revoked by the keeper's thread, for what it has learnt since the line above
                    raise
            except NotStartedError as error:
                stopped.append(error)
                raise
            lease.drop(permit)

        def stop() -> None:
            # The permit was still unspent and is used up by now: whatever the connector waits for, it is not the tool.
            nonlocal cancelled
            cancelled = True
            stopped.append(NotStartedError("halted", "stopped before the first byte"))
            if task is not None:
                task.cancel()

        path = followed()
        sent = None if path is None else path.handing_on()
        invocation = Invocation(
            key=connection_key(tool, work.session),
            upstream_name=work.contract.upstream_name,
            arguments=work.arguments,
            timeout_ms=work.contract.timeout_ms,
            before_first_byte=spend,
            pause_guard=lease.section(self._guard),
            fence=lambda: Fence(epoch=lease.epoch, deadline_ms=self._clock.wall_us() // 1000 + int(lease.remaining_s() * 1000)),
            idempotency_key="" if work.contract.is_read_only else work.claimed.claim_id,
            trace_meta=NOT_TRACED if sent is None else {TRACEPARENT: sent.text},
            kind=work.contract.kind,
            completes=work.contract.completes,
            line=work.line,
            more=work.more,
        )
        result: ToolResult
        began_s = self._clock.monotonic_s()
        try:
            lease.hold(permit, stop)
            result = await connector.invoke(invocation)
        except NotStartedError as error:
            stopped.append(error)
            result = ToolFailure(sent=False, code="cancelled", detail=str(error))
        except asyncio.CancelledError:
            if not cancelled:
                raise
            result = ToolFailure(sent=False, code="cancelled", detail="stopped before the first byte")
        except Exception as error:  # noqa: BLE001  # a connector's defect must not leave a claim open or look like success
            result = ToolFailure(sent=not permit.revoked, code="protocol", detail=f"connector defect: {type(error).__name__}")
        finally:
            lease.drop(permit)
        now_s, operation = self._clock.monotonic_s(), work.contract.operation
        passed("invoke", began_s, now_s, operation=operation, sent=sent, failed=_failed(result), kind=work.contract.kind)
        if cancelled and task is not None:
            task.uncancel()
        unsent = isinstance(result, ToolFailure) and not result.sent
        return result, stopped[0] if stopped and unsent else None

    def _without_the_tool(self, work: Work) -> tuple[ToolResult, NotStartedError | None]:
        """An answer of before leaves only where the call itself might start: with a lease, and stopped by nobody."""
        try:
            self._lease.check(work.permit)
            work.permit.spend(call_hash=work.call_hash, now_monotonic_s=self._clock.monotonic_s())
        except NotStartedError as error:
            return ToolFailure(sent=False, code="cancelled", detail=str(error)), error
        except Exception as error:  # noqa: BLE001  # whatever a permit does not allow is not released
            return ToolFailure(sent=False, code="refused", detail=type(error).__name__), None
        if work.earlier is None:
            return ToolFailure(sent=False, code="refused", detail="the tool is unstable"), None
        return ToolAnswer(), None


def _read(result: ToolAnswer, filtered: Filter) -> tuple[RawOutput, bytes, Released]:
    """A tool's answer, its text to keep, and what may be released.

    INVARIANT: what a tool answers keeps no call from being settled. What cannot be written down, or not be gone through, is
    withheld; that the tool answered, and whether well, is known all the same.
    """
    raw = RawOutput(
        content=(_LONG_ERROR,) if result.not_kept_bytes else (_UNREADABLE_ERROR,) if result.unreadable else result.content,
        structured=result.structured,
        is_error=result.is_error,
        logs=result.logs,
        asks=result.asks,
        error_code=result.error_code,
        needs=result.needs,
    )
    try:
        text = msgspec.json.encode(raw)
        msgspec.json.decode(text, type=RawOutput)
        released = filtered(raw)
        msgspec.json.encode(released)
    except Exception as error:  # noqa: BLE001  # see above
        why = f"the result cannot be read or written down here ({type(error).__name__})"
        kept = RawOutput(is_error=result.is_error)
        if result.is_error:
            return kept, b"", Released(content=(_UNREADABLE_ERROR,), is_error=True)
        return kept, b"", Released(withheld=why)
    return raw, text, released


async def _taken_up(take: TakenUp | None, released: Released) -> tuple[Item | None, Exception | None]:
    """What enters the context, or what kept it from being told: the call has happened and is settled nevertheless."""
    if take is None:
        return None, None
    try:
        return await take(released), None
    except Exception as error:  # noqa: BLE001  # raised again when the call is settled, so that nothing of it is released
        return None, error


def _failed(result: ToolResult) -> str:
    """What kind of failure the tool's answer is, for telemetry; empty when it is none."""
    if isinstance(result, ToolFailure):
        return result.code
    return "tool_error" if result.is_error else ""


def _state_of_answer(work: Work, answer: ToolAnswer, released: Released) -> tuple[str, str, str]:
    """State, code and detail of what a tool answered."""
    if answer.asks is not None:
        state = "failed" if work.is_undone_when_it_asks else "in_doubt"
        asked = ", ".join(sorted({str(request.get("method"))[:40] for request in answer.asks.requests.values()}))
        return state, "input_required", released.refused_ask or f"it asks for {asked or 'another round'} before it goes on"
    return ("failed" if answer.is_error else "succeeded"), "", released.withheld


def _answered(result: ToolResult) -> bool | None:
    """Whether the tool answered at all; what it said is another matter. What we refused ourselves says nothing of it."""
    if isinstance(result, ToolAnswer):
        return True
    return False if result.code in _TOOLS_OWN_FAULT else None


def _state_of_failure(contract: Contract, failure: ToolFailure, stopped: NotStartedError | None) -> tuple[str, str]:
    """A call that was never sent has failed; one that may have arrived is in doubt unless it only reads."""
    if stopped is not None:
        return "failed", stopped.code
    if not failure.sent:
        return "failed", "tool_late" if failure.code == "late" else "tool_unavailable"
    if contract.is_read_only:
        return "failed", "tool_failed"
    return "in_doubt", "in_doubt"


def _kept(work: Work, text: bytes, released: Released) -> str | None:
    """What a repeated call is answered with, where one may come; None when nothing can be said again."""
    if not work.may_be_repeated or not (text or released.not_kept):
        return None
    return NOT_KEPT if released.not_kept or len(text) > MAX_OUTPUT_BYTES else text.decode()
