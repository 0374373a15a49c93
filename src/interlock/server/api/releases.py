"""Releases: which decides, and putting another in force."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post

from interlock.app.plane import Plane
from interlock.server.api.common import person_of, read
from interlock.server.limits import MAX_RELEASE_BYTES


class ActivateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of activate: the files of a release by their path in its folder."""

    files: dict[str, str]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post("/v1/releases/activate", status_code=200, summary="Make a release decide", request_max_body_size=MAX_RELEASE_BYTES)
    async def activate(request: Request[Any, Any, Any]) -> Any:
        person = await person_of(plane, request)
        return await plane.activate(person, (await read(request, ActivateRequest)).files)

    @get("/v1/releases/active", summary="Which release decides")
    async def active(request: Request[Any, Any, Any]) -> Any:
        return (await plane.status(await person_of(plane, request)))["release"]

    return [activate, active]
