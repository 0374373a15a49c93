"""Releases: which decides, which did, proposing another, putting it in force, going back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath, QueryParameter

from interlock.app.plane import Plane, ReleaseName
from interlock.app.releases import MAX_ACTIVATIONS_LISTED, Activated, Proposed, Stored
from interlock.release.diff.compare import Diff
from interlock.server.api.common import person_of, read, reason_of
from interlock.server.api.once import once
from interlock.server.api.who import door
from interlock.server.limits import MAX_RELEASE_BYTES
from interlock.store.releases import Activation


class ReleaseFiles(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The files of a release by their path in its folder."""

    files: dict[str, str]


class Why(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why; it goes on record. `instead_of`: the release in force that it was compared with; if it is another now, 409."""

    reason: str
    instead_of: str = ""


class Back(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why, and which release to go back to; the last one when empty."""

    reason: str
    digest: str = ""


class ActivationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Releases that were in force, newest first; give `next` as `before` to go on, empty at the end."""

    activations: tuple[Activation, ...]
    next: str = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/v1/releases",
        status_code=200,
        summary="Propose a release",
        opt=door(body=ReleaseFiles, tells=(422,)),
        request_max_body_size=MAX_RELEASE_BYTES,
    )
    async def propose(request: Request[Any, Any, Any]) -> Proposed:
        person = await person_of(plane, request)
        files = (await read(request, ReleaseFiles)).files
        return await once(plane, request, person, Proposed, lambda: plane.releases.propose(person, files))

    @post("/v1/releases/{digest:str}/activate", status_code=200, summary="Make a proposed release decide", opt=door(body=Why))
    async def activate(request: Request[Any, Any, Any], digest: FromPath[str]) -> Activated:
        person = await person_of(plane, request)
        body = await read(request, Why)
        reason, seen = reason_of(body.reason), body.instead_of
        return await once(
            plane, request, person, Activated, lambda: plane.releases.activate(person, digest, reason, instead_of=seen)
        )

    @get("/v1/releases/{digest:str}", summary="A stored release: the texts of its files")
    async def stored(request: Request[Any, Any, Any], digest: FromPath[str]) -> Stored:
        return await plane.releases.stored(await person_of(plane, request), digest)

    @get("/v1/releases/{digest:str}/diff", summary="How a stored release differs from the one in force")
    async def difference(request: Request[Any, Any, Any], digest: FromPath[str]) -> Diff:
        return await plane.releases.diff(await person_of(plane, request), digest)

    @post("/v1/releases/rollback", status_code=200, summary="Make an earlier release decide again", opt=door(body=Back))
    async def rollback(request: Request[Any, Any, Any]) -> Activated:
        person, body = await person_of(plane, request), await read(request, Back)
        reason = reason_of(body.reason)
        return await once(plane, request, person, Activated, lambda: plane.releases.rollback(person, reason, body.digest))

    @get("/v1/releases/active", summary="Which release decides")
    async def active(request: Request[Any, Any, Any]) -> ReleaseName:
        return (await plane.status(await person_of(plane, request))).release

    @get("/v1/releases/activations", summary="Which releases were in force")
    async def activations(
        request: Request[Any, Any, Any],
        before: Annotated[int, QueryParameter(name="before", ge=1, le=2**62, description="`next` of the page before.")] = 2**62,
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_ACTIVATIONS_LISTED)] = 50,
    ) -> ActivationPage:
        found = await plane.releases.history(await person_of(plane, request), before_epoch=before, limit=limit)
        return ActivationPage(activations=found, next=str(found[-1].epoch) if len(found) == limit else "")

    return [propose, activate, stored, difference, rollback, active, activations]
