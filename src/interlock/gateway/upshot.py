"""What came of a call, told from what its tool answered: the state its claim is settled in, and what may be released. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from interlock.core.canonical import digest
from interlock.core.claim import NOT_KEPT, awaiting
from interlock.core.contract import Contract
from interlock.gateway.lease import NotStartedError
from interlock.gateway.limits import MAX_OUTPUT_BYTES, MAX_RELEASED_IN_LEDGER_BYTES
from interlock.gateway.released import LONG_ERROR, UNREADABLE_ERROR, RawOutput, Released
from interlock.gateway.work import Work
from interlock.ledger.events import CallSettled
from interlock.tools.port import ToolAnswer, ToolFailure, ToolResult

Filter: TypeAlias = Callable[[RawOutput], Released]
_TOOLS_OWN_FAULT: Final = frozenset({"unreachable", "timeout", "protocol"})


class Upshot(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a call, before that is settled. `code` is empty on success.

    `text` is the raw output as it is kept, `written` what is given to the caller as it is put on record; empty for nothing.
    `outcome` is what a repeated call is answered with, or whose answers are waited for; None when neither is known. `unsent`:
    nothing has happened, so the claim gives its key back. `answered` is whether the tool answered; None when this says nothing
    about the tool.
    """

    state: str
    code: str = ""
    detail: str = ""
    raw: RawOutput | None = None
    text: bytes = b""
    released: Released = Released()
    written: bytes = b""
    outcome: str | None = None
    unsent: bool = False
    answered: bool | None = None

    @property
    def told(self) -> str:
        """The code of the refusal that the caller is told, empty for none: what a tool asks is passed on, or is refused."""
        return "" if self.released.asks is not None else "ask_refused" if self.released.refused_ask else self.code

    def settled(self, work: Work, *, took_us: int, began_s: float) -> CallSettled:
        """It as the event that is put on record."""
        earlier, out = work.earlier, self.written
        keep_bytes = MAX_OUTPUT_BYTES if work.extra_log else MAX_RELEASED_IN_LEDGER_BYTES
        return CallSettled(
            claim_id=work.claimed.claim_id,
            operation=work.contract.operation,
            attempt=work.claimed.attempt,
            state=self.state,
            took_us=took_us,
            code=self.code,
            detail=self.detail[:500],
            labels=work.labels,
            output_digest=digest(self.text) if self.text else "",
            redacted=self.released.redacted,
            released_digest=digest(out) if out else "",
            released=msgspec.Raw(out) if out and len(out) <= keep_bytes else None,
            of_call="" if earlier is None else earlier.call_id,
            age_ms=0 if earlier is None else int((began_s - earlier.at_s) * 1000),
        )


def upshot(work: Work, result: ToolResult, stopped: NotStartedError | None, filtered: Filter) -> Upshot:
    """What came of a call. `stopped` is what stopped it before its first byte, if anything did."""
    if isinstance(result, ToolFailure):
        found, undone = _of_failure(work, result, stopped), not result.sent
    else:
        found, undone = _of_answer(work, result, filtered), result.asks is not None and work.is_undone_when_it_asks
    state, code, outcome = found.state, found.code, _kept(work, found)
    if work.sent_before and state != "succeeded":
        state, code = "in_doubt", "in_doubt"
    # A tool that asks before it acts, by its contract, has done nothing yet: the answers are for another call with its key.
    # INVARIANT: of any other write its word is not taken for that. Its claim keeps its key, and goes on with the answers,
    # also when they did not arrive.
    if undone and work.asked_in:
        state, outcome = "in_doubt", awaiting(work.asked_in)
    elif state == "in_doubt":
        outcome = awaiting(work.claimed.attempt) if found.released.asks is not None else None
    return msgspec.structs.replace(
        found,
        state=state,
        code=code,
        outcome=outcome,
        unsent=undone and not (work.sent_before or work.asked_in),
        answered=None if work.earlier is not None or stopped is not None else _answered(result),
    )


def _of_failure(work: Work, failure: ToolFailure, stopped: NotStartedError | None) -> Upshot:
    state, code = _state_of_failure(work.contract, failure, stopped)
    detail = f"{failure.code}: {failure.detail}" if stopped is None else f"not sent: {stopped}"
    return Upshot(state=state, code=code, detail=detail)


def _of_answer(work: Work, answer: ToolAnswer, filtered: Filter) -> Upshot:
    if work.earlier is not None:
        detail = f"the tool is unstable: answered with what {work.earlier.call_id} released"
        released = work.earlier.released
        return Upshot(state="succeeded", detail=detail, released=released, written=_written(released))
    if (answer.not_kept_bytes or answer.unreadable) and not answer.is_error:
        detail = answer.unreadable or f"the answer is {answer.not_kept_bytes} bytes long, which is more than is kept"
        of_reading = "failed", "result_unreadable" if answer.unreadable else "result_too_large"
        state, code = of_reading if work.contract.is_read_only else ("succeeded", "")
        return Upshot(state=state, code=code, detail=detail, released=Released(withheld=detail, not_kept=True))
    raw, text, released, written = _read(answer, filtered)
    state, code, detail = _state_of_answer(work, answer, released)
    return Upshot(state=state, code=code, detail=detail, raw=raw, text=text, released=released, written=written)


def _read(result: ToolAnswer, filtered: Filter) -> tuple[RawOutput, bytes, Released, bytes]:
    """A tool's answer, its text to keep, what may be released, and that as it is put on record.

    INVARIANT: what a tool answers keeps no call from being settled. What cannot be written down, or not be gone through, is
    withheld; that the tool answered, and whether well, is known all the same.
    """
    raw = RawOutput(
        content=(LONG_ERROR,) if result.not_kept_bytes else (UNREADABLE_ERROR,) if result.unreadable else result.content,
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
        written = _written(released)
    except Exception as error:  # noqa: BLE001  # see above
        why = f"the result cannot be read or written down here ({type(error).__name__})"
        kept = RawOutput(is_error=result.is_error)
        released = Released(content=(UNREADABLE_ERROR,), is_error=True) if result.is_error else Released(withheld=why)
        return kept, b"", released, _written(released)
    return raw, text, released, written


def _written(released: Released) -> bytes:
    return b"" if released.is_empty else msgspec.json.encode(released.written())


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


def _kept(work: Work, found: Upshot) -> str | None:
    """What a repeated call is answered with, where one may come; None when nothing can be said again."""
    if not work.may_be_repeated or not (found.text or found.released.not_kept):
        return None
    return NOT_KEPT if found.released.not_kept or len(found.text) > MAX_OUTPUT_BYTES else found.text.decode()
