"""Revocations: ending a session, refusing what a user or an agent was issued before now."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post

from interlock.app.plane import Plane
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door
from interlock.store.revocations import Revoked


class Revoking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`target` is `user:NAME`, `agent:NAME` or `session:ID`; `tenant` the user's, one's own when empty."""

    target: str
    reason: str
    tenant: str = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/v1/revocations",
        status_code=200,
        summary="End a session, or refuse what a user or an agent was issued before now",
        opt=door(body=Revoking),
    )
    async def revoke(request: Request[Any, Any, Any]) -> Revoked:
        person, body = await person_of(plane, request), await read(request, Revoking)
        reason = reason_of(body.reason)

        async def done() -> Revoked:
            return await plane.revocations.revoke(person, body.target, reason, tenant=body.tenant)

        return await once(plane, request, person, Revoked, done)

    return [revoke]
