"""Approvals: what waits for people, and their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath, QueryParameter

from interlock.app.approvals import MAX_LISTED, MAX_WAIT_MS
from interlock.app.plane import Plane
from interlock.approvals.view import ApprovalView
from interlock.core.approval import ApprovalState
from interlock.core.who import Person, Session
from interlock.server.api.common import person_of, read
from interlock.server.api.once import once
from interlock.server.api.who import PERSON_OR_SESSION, caller_of, door

_ALL: Final = "all"
_WaitMs = Annotated[int, QueryParameter(name="wait_ms", ge=0, le=MAX_WAIT_MS, description="Wait this long for an answer.")]


class Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of an answer: a note that the requester's agent will read."""

    note: str = ""


class ApprovalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, newest first; give `next` as `before` to go on, empty at the end."""

    approvals: tuple[ApprovalView, ...]
    next: str = ""


class ApprovalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request stands, for the agent that asked."""

    approval_id: str
    state: ApprovalState


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/approvals", summary="What waits for people")
    async def listed(
        request: Request[Any, Any, Any],
        approval_state: Annotated[
            str, QueryParameter(name="state", description="A state, or `all`.")
        ] = ApprovalState.OPEN.value,
        before: Annotated[str, QueryParameter(name="before", description="`next` of the page before.")] = "",
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_LISTED)] = 50,
    ) -> ApprovalPage:
        person = await person_of(plane, request)
        wanted = "" if approval_state == _ALL else approval_state
        if wanted and wanted not in set(ApprovalState):
            raise HTTPException(status_code=400, detail=f"state is one of {', '.join(ApprovalState)}, or {_ALL}")
        if before and not before.isdecimal():
            raise HTTPException(status_code=400, detail="before is what `next` said")
        cursor = {"before_us": int(before)} if before else {}
        found = await plane.approvals.list(person, state=wanted, limit=limit, **cursor)
        return ApprovalPage(approvals=found, next=str(found[-1].created_at_us) if len(found) == limit else "")

    @get(
        "/v1/approvals/{approval_id:str}",
        summary="One request: what would run, and who may answer",
        opt=door(PERSON_OR_SESSION),
    )
    async def shown(
        request: Request[Any, Any, Any], approval_id: FromPath[str], wait_ms: _WaitMs = 0
    ) -> ApprovalView | ApprovalStatus:
        caller = caller_of(request)
        if not isinstance(caller, Session):
            return await plane.approvals.wait(await person_of(plane, request), approval_id, wait_ms)
        state = await plane.approvals.of_session(caller, approval_id, wait_ms=wait_ms)
        return ApprovalStatus(approval_id=approval_id, state=state)

    @post(
        "/v1/approvals/{approval_id:str}/approve",
        status_code=200,
        summary="Say yes, once, to exactly this call",
        opt=door(body=Answer),
    )
    async def approve(request: Request[Any, Any, Any], approval_id: FromPath[str]) -> ApprovalView:
        return await answered(
            request, lambda person, note: plane.approvals.answer(person, approval_id, approve=True, note=note)
        )

    @post("/v1/approvals/{approval_id:str}/deny", status_code=200, summary="Say no", opt=door(body=Answer))
    async def deny(request: Request[Any, Any, Any], approval_id: FromPath[str]) -> ApprovalView:
        return await answered(
            request, lambda person, note: plane.approvals.answer(person, approval_id, approve=False, note=note)
        )

    @post(
        "/v1/approvals/{approval_id:str}/withdraw",
        status_code=200,
        summary="Take back a request, or an unused approval",
        opt=door(body=Answer),
    )
    async def withdraw(request: Request[Any, Any, Any], approval_id: FromPath[str]) -> ApprovalView:
        return await answered(request, lambda person, note: plane.approvals.withdraw(person, approval_id, note=note))

    async def answered(request: Request[Any, Any, Any], do: Callable[[Person, str], Awaitable[ApprovalView]]) -> ApprovalView:
        person, note = await person_of(plane, request), (await read(request, Answer)).note
        return await once(plane, request, person, ApprovalView, lambda: do(person, note))

    return [listed, shown, approve, deny, withdraw]
