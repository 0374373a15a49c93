"""Calls in doubt: what is known of each, and a person's word on what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath, QueryParameter

from interlock.app.doubts import MAX_LISTED, DoubtSettled, DoubtView
from interlock.app.plane import Plane
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door


class SettleRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What became of the call, and how that is known."""

    done: bool
    reason: str


class DoubtPage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls in doubt, newest first, and those settled against what a process said later."""

    doubts: tuple[DoubtView, ...]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/doubts", summary="Calls whose end is not known")
    async def listed(
        request: Request[Any, Any, Any],
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_LISTED)] = 50,
    ) -> DoubtPage:
        return DoubtPage(doubts=await plane.doubts.list(await person_of(plane, request), limit=limit))

    @get("/v1/doubts/{call:str}", summary="One call in doubt, and what follows from either answer")
    async def shown(request: Request[Any, Any, Any], call: FromPath[str]) -> DoubtView:
        return await plane.doubts.show(await person_of(plane, request), call)

    @post(
        "/v1/doubts/{call:str}/settle",
        status_code=200,
        summary="Say whether it was done",
        opt=door(body=SettleRequest),
    )
    async def settle(request: Request[Any, Any, Any], call: FromPath[str]) -> DoubtSettled:
        person, asked = await person_of(plane, request), await read(request, SettleRequest)
        reason = reason_of(asked.reason)
        return await once(
            plane, request, person, DoubtSettled, lambda: plane.doubts.settle(person, call, done=asked.done, reason=reason)
        )

    return [listed, shown, settle]
