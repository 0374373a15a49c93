"""What the routes of the API share: who is asking, bodies, problem documents."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from interlock.app.administration import NotPermittedError
from interlock.app.plane import Plane, UnknownScopeError
from interlock.app.postures import PostureConflictError, UnknownLineageError
from interlock.app.releases import ReleaseConflictError
from interlock.approvals.errors import ApprovalError, NotOpenError, UnknownApprovalError
from interlock.core.who import Person
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.release.errors import ReleaseError
from interlock.server.limits import MAX_REASON_CHARS
from interlock.store.errors import StoreUnavailableError, UnknownReleaseError

_log = logging.getLogger(__name__)
_PROBLEM: Final = "application/problem+json"
_SCHEME: Final = "Bearer"
T = TypeVar("T")


def bearer_of(request: Request[Any, Any, Any]) -> str:
    """The bearer token of a request, empty when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme == _SCHEME else ""


async def person_of(plane: Plane, request: Request[Any, Any, Any]) -> Person:
    """The person who asks. Raises `TokenRefusedError`: there is no anonymous path."""
    return await plane.person(bearer_of(request))


async def read(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """The JSON body of a request as `kind`. Raises `HTTPException` 400 naming what does not fit."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


def reason_of(text: str) -> str:
    """A reason as it goes on record. Raises `HTTPException` 400 when there is none."""
    reason = text.strip()
    if not 0 < len(reason) <= MAX_REASON_CHARS:
        raise HTTPException(status_code=400, detail=f"say why, in 1 to {MAX_REASON_CHARS} characters; it goes on record")
    return reason


def problem(status: int, title: str, **more: Any) -> Response[Any]:
    """A problem document (RFC 9457)."""
    content = {"type": "about:blank", "title": title, "status": status, **more}
    headers = {"www-authenticate": _SCHEME} if status == 401 else None  # noqa: PLR2004  # Unauthorized
    return Response(content, status_code=status, media_type=_PROBLEM, headers=headers)


def handlers() -> dict[Any, Any]:
    """What each error becomes. Nobody learns more than they may."""

    def refused_token(_: Any, __: TokenRefusedError) -> Response[Any]:
        # Why exactly is counted for operators and told to nobody.
        return problem(401, "the token is refused")

    def refused_exchange(_: Any, error: ExchangeRefusedError) -> Response[Any]:
        content = {"error": error.error, "error_description": error.description}
        return Response(content, status_code=400, media_type=MediaType.JSON, headers={"cache-control": "no-store"})

    def not_permitted(_: Any, error: NotPermittedError) -> Response[Any]:
        return problem(403, str(error))

    def not_answered(_: Any, error: ApprovalError) -> Response[Any]:
        match error:
            case UnknownApprovalError():
                return problem(404, str(error))
            case NotOpenError():
                return problem(409, str(error), state=error.state)
            case _:
                return problem(403, str(error))

    def unknown_scope(_: Any, error: UnknownScopeError) -> Response[Any]:
        return problem(400, str(error))

    def bad_release(_: Any, error: ReleaseError) -> Response[Any]:
        problems = [msgspec.to_builtins(item) for item in error.problems]
        return problem(422, "the release has problems", problems=problems)

    def conflict(_: Any, error: Exception) -> Response[Any]:
        return problem(409, str(error))

    def unknown(_: Any, error: Exception) -> Response[Any]:
        return problem(404, str(error))

    def unavailable(_: Any, error: StoreUnavailableError) -> Response[Any]:
        return problem(503, f"the control plane cannot answer right now: {error}")

    def http(_: Any, error: HTTPException) -> Response[Any]:
        return problem(error.status_code, error.detail)

    def anything(_: Any, error: Exception) -> Response[Any]:
        _log.error("an API request failed", exc_info=error)
        return problem(500, "an unexpected error; look into the server's log")

    return {
        TokenRefusedError: refused_token,
        ExchangeRefusedError: refused_exchange,
        NotPermittedError: not_permitted,
        ApprovalError: not_answered,
        UnknownScopeError: unknown_scope,
        ReleaseError: bad_release,
        ReleaseConflictError: conflict,
        PostureConflictError: conflict,
        UnknownReleaseError: unknown,
        UnknownLineageError: unknown,
        StoreUnavailableError: unavailable,
        HTTPException: http,
        Exception: anything,
    }
