"""What the routes of the API share: bodies, pages, problem documents."""

from __future__ import annotations

import base64
import binascii
import logging
from typing import Any, Final, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from interlock.app.administration import NotPermittedError
from interlock.app.answers import AnswerConflictError
from interlock.app.decisions import SessionEndedError
from interlock.app.doubts import DoubtConflictError, UnknownDoubtError
from interlock.app.fresh import FreshConflictError, NothingToStartFreshError
from interlock.app.postures import PostureConflictError, UnknownLineageError
from interlock.app.releases import ReleaseConflictError
from interlock.app.revocations import UnknownSessionError, UnknownTargetError
from interlock.app.scopes import UnknownScopeError
from interlock.app.sessions import InputRefusedError, SessionOverError
from interlock.app.sight import UnknownRecordError
from interlock.app.tools import ToolConflictError, UnknownOperationError
from interlock.approvals.errors import ApprovalError, NotOpenError, UnknownApprovalError
from interlock.core.canonical import AmbiguousJsonError, parse_strict
from interlock.gateway.plans import INVALID, PlanRefusedError
from interlock.identity.errors import ExchangeRefusedError, TaskNeededError, TokenRefusedError
from interlock.release.errors import ReleaseError
from interlock.server.api.who import bearer_of, person_of
from interlock.server.limits import MAX_REASON_CHARS
from interlock.store.errors import StoreUnavailableError, UnknownReleaseError, UnstorableError

__all__ = ["Problem", "bearer_of", "handlers", "next_page", "person_of", "problem", "read", "reason_of", "turn_page"]

_log = logging.getLogger(__name__)
PROBLEM: Final = "application/problem+json"
_JSON_TYPES: Final = ("application/json", "application/problem+json")
_SCHEME: Final = "Bearer"
_PAGE_PARTS: Final = 2
T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457). `errors` name the parts of a request that do not fit; other members may be there."""

    title: str
    status: int
    type: str = "about:blank"
    detail: str = ""
    errors: tuple[dict[str, str], ...] = ()


async def read(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """The JSON body of a request as `kind`. Raises `HTTPException` 400 naming what does not fit, 415 for what is no JSON.

    What two readers could take differently (duplicate keys above all) is refused.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media and media not in _JSON_TYPES:
        raise HTTPException(status_code=415, detail="send the body as application/json")
    body = await request.body()
    try:
        parse_strict(body, max_bytes=len(body))
        return msgspec.json.decode(body, type=kind)
    except AmbiguousJsonError as error:
        where = f", at {error.field}" if error.field else ""
        raise HTTPException(status_code=400, detail=f"{error}{where}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


def reason_of(text: str) -> str:
    """A reason as it goes on record. Raises `HTTPException` 400 when there is none."""
    reason = text.strip()
    if not 0 < len(reason) <= MAX_REASON_CHARS:
        raise HTTPException(status_code=400, detail=f"say why, in 1 to {MAX_REASON_CHARS} characters; it goes on record")
    return reason


def next_page(at_us: int, name: str) -> str:
    """What a page gives as `next`: where it ended. Callers send it back and read nothing into it."""
    return base64.urlsafe_b64encode(f"{at_us} {name}".encode()).decode().rstrip("=")


def turn_page(text: str) -> tuple[int, str] | None:
    """Where to go on; None for the first page. Raises `HTTPException` 400 for what was never a `next`."""
    if not text:
        return None
    try:
        parts = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(" ")
        if len(parts) == _PAGE_PARTS and abs(int(parts[0])) < 2**63:
            return int(parts[0]), parts[1]
    except (ValueError, binascii.Error) as error:
        raise HTTPException(status_code=400, detail="next is what the page before said") from error
    raise HTTPException(status_code=400, detail="next is what the page before said")


def problem(status: int, title: str, **more: Any) -> Response[Any]:
    """A problem document (RFC 9457)."""
    content = {"type": "about:blank", "title": title, "status": status, **more}
    headers = {"www-authenticate": _SCHEME} if status == 401 else None  # noqa: PLR2004  # Unauthorized
    return Response(content, status_code=status, media_type=PROBLEM, headers=headers)


def handlers() -> dict[Any, Any]:  # noqa: C901  # one small answer an error
    """What each error becomes. Nobody learns more than they may."""

    def refused_token(_: Any, __: TokenRefusedError) -> Response[Any]:
        # Why exactly is counted for operators and told to nobody.
        return problem(401, "the token is refused")

    def refused_exchange(_: Any, error: ExchangeRefusedError) -> Response[Any]:
        # The one place that answers as OAuth wants it (RFC 6749, section 5.2).
        content = {"error": error.error, "error_description": error.description}
        return Response(content, status_code=400, media_type=MediaType.JSON, headers={"cache-control": "no-store"})

    def not_permitted(_: Any, error: Exception) -> Response[Any]:
        return problem(403, str(error))

    def not_answered(_: Any, error: ApprovalError) -> Response[Any]:
        match error:
            case UnknownApprovalError():
                return problem(404, str(error))
            case NotOpenError():
                return problem(409, str(error), state=error.state)
            case _:
                return problem(403, str(error))

    def unknown_scope(_: Any, error: Exception) -> Response[Any]:
        return problem(400, str(error))

    def bad_release(_: Any, error: ReleaseError) -> Response[Any]:
        problems = [msgspec.to_builtins(item) for item in error.problems]
        return problem(422, "the release has problems", problems=problems)

    def no_input(_: Any, error: InputRefusedError) -> Response[Any]:
        return problem(400, str(error))

    def no_plan(_: Any, error: PlanRefusedError) -> Response[Any]:
        return problem(400 if error.why == INVALID else 409, str(error), why=error.why)

    def conflict(_: Any, error: Exception) -> Response[Any]:
        return problem(409, str(error))

    def answered_otherwise(_: Any, error: AnswerConflictError) -> Response[Any]:
        return problem(409, str(error), effect=error.effect)

    def unknown(_: Any, error: Exception) -> Response[Any]:
        return problem(404, str(error))

    def unavailable(_: Any, error: StoreUnavailableError) -> Response[Any]:
        return problem(503, f"the control plane cannot answer right now: {error}")

    def does_not_fit(_: Any, error: ValidationException) -> Response[Any]:
        found = [item for item in error.extra or () if isinstance(item, dict)]
        named = [{"where": str(item.get("key", "")), "message": str(item.get("message", ""))} for item in found]
        return problem(400, "the request does not fit", errors=named)

    def http(_: Any, error: HTTPException) -> Response[Any]:
        answer = problem(error.status_code, error.detail)
        if "allow" in {name.lower() for name in (error.headers or {})}:
            answer.headers.update(error.headers or {})
        return answer

    def anything(_: Any, error: Exception) -> Response[Any]:
        _log.error("an API request failed", exc_info=error, extra={"event": "api.failed"})
        return problem(500, "an unexpected error; look into the server's log")

    return {
        TokenRefusedError: refused_token,
        ExchangeRefusedError: refused_exchange,
        NotPermittedError: not_permitted,
        TaskNeededError: not_permitted,
        ApprovalError: not_answered,
        UnknownScopeError: unknown_scope,
        ReleaseError: bad_release,
        ReleaseConflictError: conflict,
        PostureConflictError: conflict,
        ToolConflictError: conflict,
        DoubtConflictError: conflict,
        UnknownDoubtError: unknown,
        UnknownOperationError: unknown,
        AnswerConflictError: answered_otherwise,
        SessionOverError: conflict,
        FreshConflictError: conflict,
        NothingToStartFreshError: unknown,
        SessionEndedError: conflict,
        InputRefusedError: no_input,
        PlanRefusedError: no_plan,
        UnknownRecordError: unknown,
        UnknownReleaseError: unknown,
        UnknownLineageError: unknown,
        UnknownSessionError: unknown,
        UnknownTargetError: unknown_scope,
        UnstorableError: unknown_scope,
        StoreUnavailableError: unavailable,
        ValidationException: does_not_fit,
        HTTPException: http,
        Exception: anything,
    }
