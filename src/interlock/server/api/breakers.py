"""Breakers: which tools are unstable, as each process sees them."""

from __future__ import annotations

from typing import Any

from litestar import Request, get

from interlock.app.breakers import BreakersView
from interlock.app.plane import Plane
from interlock.server.api.common import person_of


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/breakers", summary="Which tools are unstable, and what each process has counted")
    async def breakers(request: Request[Any, Any, Any]) -> BreakersView:
        return await plane.breakers.view(await person_of(plane, request))

    return [breakers]
