"""Who may come in by which door. Each route names its callers; one that names none is for people with their own token."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from interlock.app.plane import Plane
from interlock.core.who import Person, Session
from interlock.identity.errors import TokenCode, TokenRefusedError

Who: TypeAlias = tuple[str, ...]
PERSON: Final[Who] = ("person",)
SESSION: Final[Who] = ("session",)
PERSON_OR_SESSION: Final[Who] = ("person", "session")
PERSON_OR_AGENT: Final[Who] = ("person", "agent")
NOBODY: Final[Who] = ()
_WHO: Final = "who"
_BODY: Final = "body"
_MEDIA: Final = "media"
_GIVES: Final = "gives"
_TELLS: Final = "tells"
_ONCE: Final = "once"
_REFUSES: Final = "refuses"
_CALLER: Final = "caller"
_SCHEME: Final = "bearer"


class AgentCaller(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that speaks for itself, with no user: an enforcement point that asks for decisions."""

    agent: str


Caller: TypeAlias = Person | Session | AgentCaller


def door(
    who: Who = PERSON,
    *,
    body: type[msgspec.Struct] | None = None,
    media: str = "application/json",
    gives: tuple[str, ...] = (),
    tells: tuple[int, ...] = (),
    once: bool = True,
    refuses: str = "",
) -> dict[str, Any]:
    """The `opt` of a route: who may come in, shape and media type of the body it reads, media types it streams.

    `tells` are statuses of refusals beside those that every such route has; `once` is false where a POST of a person
    changes nothing, so that it takes no Idempotency-Key; `refuses` is a media type that refusals (400) may have beside that of
    problem documents.
    """
    return {_WHO: who, _BODY: body, _MEDIA: media, _GIVES: gives, _TELLS: tells, _ONCE: once, _REFUSES: refuses}


def who_of(opt: Mapping[str, Any]) -> Who:
    """Who may come in by a route with this `opt`."""
    found: Who = opt.get(_WHO, PERSON)
    return found


def body_of(opt: Mapping[str, Any]) -> type[msgspec.Struct] | None:
    """The shape of the body of a route with this `opt`."""
    found: type[msgspec.Struct] | None = opt.get(_BODY)
    return found


def media_of(opt: Mapping[str, Any]) -> str:
    """The media type of the body of a route with this `opt`."""
    return str(opt.get(_MEDIA, "application/json"))


def gives_of(opt: Mapping[str, Any]) -> tuple[str, ...]:
    """The media types that a route with this `opt` streams, when it gives no JSON."""
    return tuple(opt.get(_GIVES, ()))


def tells_of(opt: Mapping[str, Any]) -> tuple[int, ...]:
    """The statuses of refusals that a route with this `opt` has beside the usual ones."""
    return tuple(opt.get(_TELLS, ()))


def refuses_of(opt: Mapping[str, Any]) -> str:
    """The media type of refusals that are no problem documents; empty where all are."""
    return str(opt.get(_REFUSES, ""))


def is_once(opt: Mapping[str, Any]) -> bool:
    """Whether a route with this `opt` takes an Idempotency-Key from people."""
    return bool(opt.get(_ONCE, True))


def bearer_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The bearer token of a request, empty when there is none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == _SCHEME else ""


def make_guard(plane: Plane) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """Establishes the caller before anything of the request's body is read. Raises `TokenRefusedError`."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        # INVARIANT: no route is reached without a token but those that say `NOBODY`.
        who = who_of(handler.opt)
        if who != NOBODY:
            connection.scope["state"][_CALLER] = await _caller(plane, connection, who)

    return guard


async def _caller(plane: Plane, connection: ASGIConnection[Any, Any, Any, Any], who: Who) -> Caller:
    token = bearer_of(connection)
    said = _said(token)
    # What the token says of itself only chooses which check it must pass.
    kinds = (said,) if said in who else who
    refused = TokenRefusedError(TokenCode.MISSING)
    for kind in kinds:
        try:
            match kind:
                case "person":
                    return await plane.person(token)
                case "session":
                    return await plane.session_of(token, connection.headers.get("interlock-task", ""))
                case "agent":
                    return AgentCaller(agent=await plane.agent(token))
        except TokenRefusedError as error:
            refused = error
    raise refused


def _said(token: str) -> str:
    """Whose token this says it is, unproven; empty when it does not say."""
    try:
        payload = token.split(".")[1]
        use = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Said).interlock_use
    except (IndexError, ValueError, RecursionError):
        return ""
    return "person" if use == "user" else use


class _Said(msgspec.Struct):
    interlock_use: str = ""


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """Whoever came in. Raises `TokenRefusedError` on a route that lets everybody in."""
    found: Caller | None = request.scope["state"].get(_CALLER)
    if found is None:
        raise TokenRefusedError(TokenCode.MISSING)
    return found


async def person_of(plane: Plane, request: Request[Any, Any, Any]) -> Person:  # noqa: ARG001  # as routes call it
    """The person who asks. Raises `TokenRefusedError`: there is no anonymous path."""
    found = caller_of(request)
    if not isinstance(found, Person):
        raise TokenRefusedError(TokenCode.WRONG_USE)
    return found


def session_of(request: Request[Any, Any, Any]) -> Session:
    """The session whose token this is. Raises `TokenRefusedError`."""
    found = caller_of(request)
    if not isinstance(found, Session):
        raise TokenRefusedError(TokenCode.WRONG_USE)
    return found
