"""Calls by HTTP: the same gate, the same refusals as by MCP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from interlock.app.plane import Plane
from interlock.app.traces import CallStands
from interlock.core.trace_context import TRACEPARENT, first_traced
from interlock.core.who import Person, Session
from interlock.gateway.messages import CallResult, Proposal, Refusal, RefusalOutcome, Returned
from interlock.server.api.common import PROBLEM, read
from interlock.server.api.who import PERSON_OR_SESSION, SESSION, caller_of, door, session_of
from interlock.server.http import waited_s
from interlock.server.limits import MAX_BODY_BYTES

_STATUS: Final = {
    RefusalOutcome.DENIED: 403,
    RefusalOutcome.NEEDS_APPROVAL: 202,
    RefusalOutcome.INVALID: 422,
    RefusalOutcome.UNAVAILABLE: 503,
    RefusalOutcome.IN_DOUBT: 504,
    RefusalOutcome.HALTED: 423,
}
_TOO_OFTEN: Final = 429
_TOO_MANY: Final = {"rate_limited", "approvals_waiting"}


class CallRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call of `tool.operation`. `arguments` go to the gate as the bytes that came.

    `repeat_of` does an earlier call again on purpose; `wait_ms` waits that long for a person's answer, a minute at most.
    """

    operation: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    repeat_of: str = ""
    wait_ms: Annotated[int, msgspec.Meta(ge=0)] = 0


class CallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool returned, after obligations. `meta` carries labels, and says so when it is an earlier outcome."""

    call_id: str
    content: tuple[Mapping[str, Any], ...]
    structured: Mapping[str, Any] | None
    is_error: bool
    meta: Mapping[str, Any]


class CallRefused(msgspec.Struct, frozen=True, kw_only=True, rename={"decision": "interlock/decision"}):
    """Why there is no result. `title` is written for a model to recover from; `interlock/decision` is as in MCP's `_meta`."""

    title: str
    status: int
    decision: Mapping[str, Any]
    type: str = "about:blank"


class Gate(Protocol):
    """What the API needs of the gate."""

    async def call(self, session: Session, proposal: Proposal) -> CallResult:
        """Decide and, if it may be, execute once."""
        ...


def routes(plane: Plane, gate: Gate) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/v1/calls",
        status_code=200,
        summary="Call a tool through the gate; the header Idempotency-Key is the call's own key",
        opt=door(SESSION, body=CallRequest, tells=tuple({*_STATUS.values(), _TOO_OFTEN})),
        request_max_body_size=MAX_BODY_BYTES,
    )
    async def call(request: Request[Any, Any, Any]) -> Response[CallAnswer]:
        session, body = session_of(request), await read(request, CallRequest)
        key = request.headers.get("idempotency-key", "")
        proposal = Proposal(
            operation=body.operation,
            arguments=bytes(body.arguments),
            idempotency_key=key,
            repeat_of=body.repeat_of,
            wait_ms=body.wait_ms,
            way="http",
            trace=first_traced(request.headers.get(TRACEPARENT)),
            waited_s=waited_s(dict(request.scope)),
        )
        return answer(await gate.call(session, proposal))

    @get("/v1/calls/{call_id:str}", summary="Where a call stands", opt=door(PERSON_OR_SESSION))
    async def stands(request: Request[Any, Any, Any], call_id: FromPath[str]) -> CallStands:
        caller = caller_of(request)
        if not isinstance(caller, (Person, Session)):
            raise HTTPException(status_code=403, detail="for people and for the call's own agent")
        return await plane.desk.traces.stands(caller, call_id)

    return [call, stands]


def answer(result: CallResult) -> Response[Any]:
    """The answer to a call: 200 with what the tool returned, or a refusal with its status."""
    match result:
        case Returned():
            returned = CallAnswer(
                call_id=result.call_id,
                content=result.content,
                structured=result.structured,
                is_error=result.is_error,
                meta=result.meta,
            )
            return Response(returned, status_code=200)
        case Refusal():
            status = _TOO_OFTEN if result.code in _TOO_MANY else _STATUS[result.outcome]
            refused = CallRefused(title=result.text, status=status, decision=result.meta())
            headers = {"retry-after": str(max(1, result.retry_after_ms // 1000))} if result.retry == "after_ms" else None
            media = "application/json" if result.outcome is RefusalOutcome.NEEDS_APPROVAL else PROBLEM
            return Response(refused, status_code=status, headers=headers, media_type=media)
