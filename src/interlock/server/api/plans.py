"""Plans: what an agent means to do, sealed before it reads anything that others may have written."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post

from interlock.app.plane import Plane
from interlock.gateway.plans import PlanKept
from interlock.server.api.common import read
from interlock.server.api.who import SESSION, door, session_of


class PlanRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A plan: operations, each a name or `{"operation": …, "targets": {argument: a value, or a list of those it may have}}`.

    Of a target that is not known yet, `"sources": {argument: {"operation": …, "field": …}}` says where it will come from, and
    `"choose": {"max": …}` in such a source in which row of a list (or `min`, `first`, `last`, `where`).
    """

    operations: msgspec.Raw


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/v1/plans",
        status_code=200,
        summary="As the agent, seal a plan before anything untrusted was read; the same plan again changes nothing",
        opt=door(SESSION, body=PlanRequest),
    )
    async def sealed(request: Request[Any, Any, Any]) -> PlanKept:
        session, body = session_of(request), await read(request, PlanRequest)
        return await plane.desk.plans.seal(session, b'{"operations":' + bytes(body.operations) + b"}")

    return [sealed]
