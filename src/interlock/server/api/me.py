"""Who asks, as the control plane knows them now."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get

from interlock.app.plane import Plane
from interlock.server.api.common import person_of


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """A person: their name, tenant and roles here, whatever their issuer calls these."""

    user: str
    tenant: str
    roles: tuple[str, ...]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/me", summary="Who you are here")
    async def me(request: Request[Any, Any, Any]) -> Me:
        person = await person_of(plane, request)
        return Me(user=person.user, tenant=person.tenant, roles=person.roles)

    return [me]
