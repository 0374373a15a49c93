"""The API as one ASGI application: every resource's routes, who may come in, limits, errors and the document of it all."""

from __future__ import annotations

from typing import Any, Final

from litestar import Litestar, Response, get
from litestar.config.app import AppConfig
from litestar.types import Message, Scope

from interlock.app.plane import Plane
from interlock.server.api import (
    agents,
    approvals,
    authzen,
    breakers,
    budgets,
    calls,
    controls,
    decisions,
    doubts,
    health,
    lineages,
    me,
    oauth,
    plans,
    releases,
    revocations,
    sessions,
    tools,
    traces,
)
from interlock.server.api.calls import Gate
from interlock.server.api.common import handlers
from interlock.server.api.document import document
from interlock.server.api.once import REPLAYED
from interlock.server.api.who import NOBODY, door, make_guard
from interlock.server.application import Application
from interlock.server.limits import MAX_FORM_BYTES, MAX_REQUEST_ID_CHARS

_REQUEST_ID: Final = b"x-request-id"


def make_api(plane: Plane, gate: Gate) -> Litestar:
    """The API as an ASGI application."""
    written: list[dict[str, Any]] = []

    @get("/v1/openapi.json", summary="This document", opt=door(NOBODY))
    async def openapi() -> Response[dict[str, Any]]:
        if not written:
            written.append(document([*routes(plane, gate), openapi]))
        return Response(written[0], media_type="application/json")

    return Application(
        route_handlers=[*routes(plane, gate), openapi],
        guards=[make_guard(plane)],
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=None,
        exception_handlers=handlers(),
        before_send=[_mark],
        on_app_init=[_quiet],
        logging_config=None,
    )


def routes(plane: Plane, gate: Gate) -> list[Any]:
    """Every route of the API but that of its document."""
    resources = (
        oauth,
        health,
        sessions,
        plans,
        decisions,
        authzen,
        traces,
        agents,
        me,
        controls,
        breakers,
        budgets,
        doubts,
        lineages,
        approvals,
        releases,
        revocations,
        tools,
    )
    return [*calls.routes(plane, gate), *(handler for resource in resources for handler in resource.routes(plane))]


async def _mark(message: Message, scope: Scope) -> None:
    """What every answer carries: the caller's own request id (AuthZEN 1.0), and whether it is an earlier answer."""
    if message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    named = dict(scope["headers"]).get(_REQUEST_ID, b"")
    if 0 < len(named) <= MAX_REQUEST_ID_CHARS and named.decode("latin-1").isprintable():
        headers.append((_REQUEST_ID, named))
    if scope.get("state", {}).get(REPLAYED):
        headers.append((b"idempotency-replayed", b"true"))
    message["headers"] = headers


def _quiet(config: AppConfig) -> AppConfig:
    config.debug = False
    config.pdb_on_exception = False
    return config
