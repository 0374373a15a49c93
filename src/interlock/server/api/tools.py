"""Tools: contracts, pins, health and use; accepting one that changed upstream."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath

from interlock.app.plane import Plane
from interlock.app.tools import ToolsView
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door
from interlock.store.tools import Quarantined


class Acceptance(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The digest of the listing that was looked at, and why it may run; `despite_findings` when it looks suspicious."""

    pin: str
    reason: str
    despite_findings: bool = False


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/tools", summary="Operations with their reviews, pins and use; servers with their health")
    async def listed(request: Request[Any, Any, Any]) -> ToolsView:
        return await plane.tools.view(await person_of(plane, request))

    @post(
        "/v1/tools/{operation:str}/accept",
        status_code=200,
        summary="Let a quarantined operation run as it is listed now",
        opt=door(body=Acceptance),
    )
    async def accept(request: Request[Any, Any, Any], operation: FromPath[str]) -> Quarantined:
        person, body = await person_of(plane, request), await read(request, Acceptance)
        reason = reason_of(body.reason)

        async def do() -> Quarantined:
            return await plane.tools.accept(person, operation, body.pin, reason, despite_findings=body.despite_findings)

        return await once(plane, request, person, Quarantined, do)

    return [listed, accept]
