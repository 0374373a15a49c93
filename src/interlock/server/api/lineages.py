"""Lineages: which are worried about, and setting their posture."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath

from interlock.app.plane import Plane
from interlock.core.terms import Posture
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door
from interlock.store.postures import LineageRow


class PostureRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The posture to set, and why."""

    posture: Posture
    reason: str


class Worried(msgspec.Struct, frozen=True, kw_only=True):
    """Lineages whose posture is not normal."""

    lineages: tuple[LineageRow, ...]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/lineages", summary="Lineages whose posture is not normal")
    async def worried(request: Request[Any, Any, Any]) -> Worried:
        return Worried(lineages=await plane.postures.worried(await person_of(plane, request)))

    @post(
        "/v1/lineages/{lineage_id:str}/posture",
        status_code=200,
        summary="Raise or lower a posture",
        opt=door(body=PostureRequest),
    )
    async def posture(request: Request[Any, Any, Any], lineage_id: FromPath[str]) -> LineageRow:
        person, body = await person_of(plane, request), await read(request, PostureRequest)
        reason = reason_of(body.reason)
        return await once(
            plane, request, person, LineageRow, lambda: plane.postures.set(person, lineage_id, body.posture, reason)
        )

    return [worried, posture]
