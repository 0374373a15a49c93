"""Controls: what is stopped, kill and resume."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.exceptions import HTTPException

from interlock.app.containment import KillAnswer
from interlock.app.plane import Plane, Status
from interlock.app.scope_postures import ScopePostureSet
from interlock.core.terms import RESTORED, Posture
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door
from interlock.server.limits import MAX_SCOPE_CHARS
from interlock.store.controls import ControlAnswer


class ControlRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of kill and resume. `scope` is `fleet` or `tenant:acme`, `agent:support-bot`, `operation:payments.refund`..."""

    scope: str
    reason: str


class ResumeRequest(ControlRequest, kw_only=True, forbid_unknown_fields=True):
    """Body of resume. `release`, for the scope `restored` only: the digest of the release in force, where it must be named."""

    release: str = ""


class ScopeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The posture that every lineage in the scope has at least."""

    scope: str
    posture: Posture
    reason: str


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/controls", summary="What is stopped, and what is in flight")
    async def controls(request: Request[Any, Any, Any]) -> Status:
        return await plane.status(await person_of(plane, request))

    @post("/v1/controls/kill", status_code=200, summary="Stop execution in a scope", opt=door(body=ControlRequest))
    async def kill(request: Request[Any, Any, Any]) -> KillAnswer:
        person = await person_of(plane, request)
        asked = _checked(await read(request, ControlRequest))
        return await once(plane, request, person, KillAnswer, lambda: plane.kill(person, *asked))

    @post("/v1/controls/resume", status_code=200, summary="Let execution go on in a scope", opt=door(body=ResumeRequest))
    async def resume(request: Request[Any, Any, Any]) -> ControlAnswer:
        person, body = await person_of(plane, request), await read(request, ResumeRequest)
        asked = _checked(body)
        if body.release and body.scope != RESTORED:
            raise HTTPException(status_code=400, detail=f"release is for the scope {RESTORED} only")
        return await once(plane, request, person, ControlAnswer, lambda: plane.resume(person, *asked, body.release))

    @post("/v1/controls/posture", status_code=200, summary="Raise or lower the posture of a scope", opt=door(body=ScopeRequest))
    async def posture(request: Request[Any, Any, Any]) -> ScopePostureSet:
        person, body = await person_of(plane, request), await read(request, ScopeRequest)
        scope, reason = _checked(ControlRequest(scope=body.scope, reason=body.reason))

        async def change() -> ScopePostureSet:
            return await plane.scope_postures.set(person, scope, body.posture, reason)

        return await once(plane, request, person, ScopePostureSet, change)

    return [controls, kill, resume, posture]


def _checked(body: ControlRequest) -> tuple[str, str]:
    if not 0 < len(body.scope) <= MAX_SCOPE_CHARS:
        raise HTTPException(status_code=400, detail="scope is needed, and of a reasonable length")
    return body.scope, reason_of(body.reason)
