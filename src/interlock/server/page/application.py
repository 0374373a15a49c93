"""The page as one ASGI application, beside the API: other errors, other headers, nothing of it in the API's document."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from litestar import Litestar, Request, Response, get
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from interlock.app.administration import NotPermittedError
from interlock.app.plane import Plane
from interlock.identity.errors import TokenRefusedError
from interlock.server.application import Application
from interlock.server.limits import MAX_FORM_BYTES
from interlock.server.page import acts, board, login, trace
from interlock.server.page.cookie import COOKIE, came_by_https, clear_login
from interlock.server.page.forms import ForeignFormError
from interlock.server.page.html import HEADERS, STATIC, page, static, static_url
from interlock.server.page.login import BrowserLogins, LoginWay, goes_to, no_such_page
from interlock.store.errors import StoreUnavailableError, UnstorableError

_log = logging.getLogger(__name__)
PATHS: Final = ("/login", "/logout", "/page/", "/device", "/oauth/authorize")


def is_of_page(path: str) -> bool:
    """Whether a path belongs to the page."""
    return path == "/" or path.startswith(PATHS)


def make_page(
    plane: Plane, *, ways: Sequence[LoginWay] = (), browser: BrowserLogins | None = None, more: Sequence[Any] = ()
) -> Litestar:
    """The page as an ASGI application. `ways` are the ways to log in, besides giving a person's token.

    `browser` takes login codes and ends logins; `more` are routes of other rooms that look like this page.
    """
    return Application(
        route_handlers=[
            _static_file,
            *login.routes(plane, ways, browser),
            *board.routes(plane),
            *acts.routes(plane),
            *trace.routes(plane),
            *more,
        ],
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=None,
        exception_handlers=_handlers(),
        on_app_init=[_quiet],
        logging_config=None,
    )


@get("/page/static/{digest:str}/{name:str}", include_in_schema=False)
async def _static_file(digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    if name not in STATIC or static_url(name) != f"/page/static/{digest}/{name}":
        raise no_such_page()
    headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(static(name), media_type=STATIC[name], headers=headers)


def _problem(request: Request[Any, Any, Any], status: int, title: str, detail: str) -> Response[str]:
    if request.headers.get("hx-request"):
        # To where the page tells what became of things; the part that was acted on stays as it was.
        headers = {"hx-retarget": "#said", "hx-reswap": "innerHTML"}
        said = {"tone": "bad", "text": f"{title}. {detail}", "items": []}
        return page("_said.html", status=status, headers=headers, said=said, traces=False)
    return page("problem.html", status=status, title=title, detail=detail)


def _handlers() -> dict[Any, Any]:
    def refused_token(request: Request[Any, Any, Any], _: TokenRefusedError) -> Response[Any]:
        return to_login(request)

    def foreign(request: Request[Any, Any, Any], error: ForeignFormError) -> Response[Any]:
        return _problem(request, 403, "Refused", f"Nothing was changed: {error}.")

    def not_permitted(request: Request[Any, Any, Any], error: NotPermittedError) -> Response[Any]:
        return _problem(request, 403, "Not for you", f"Nothing was changed: {error}.")

    def unavailable(request: Request[Any, Any, Any], _: StoreUnavailableError) -> Response[Any]:
        detail = "The control plane cannot answer right now. Until it can, nothing is executed."
        return _problem(request, 503, "No answer", detail)

    def unstorable(request: Request[Any, Any, Any], error: UnstorableError) -> Response[Any]:
        return _problem(request, 400, "That does not work", f"{error}.".capitalize())

    def http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        return _problem(request, error.status_code, "That does not work", str(error.detail))

    def anything(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        _log.error("a request for the page failed", exc_info=error, extra={"event": "page.failed"})
        detail = "Something unexpected happened; it is in the server's log."
        return _problem(request, 500, "Our mistake", detail)

    return {
        TokenRefusedError: refused_token,
        ForeignFormError: foreign,
        NotPermittedError: not_permitted,
        StoreUnavailableError: unavailable,
        UnstorableError: unstorable,
        HTTPException: http,
        Exception: anything,
    }


def to_login(request: Request[Any, Any, Any]) -> Response[Any]:
    """Send somebody to log in who is not, or no longer."""
    path = request.scope["path"]
    query = request.scope["query_string"].decode("ascii", "replace")
    # Only what is a whole page can be gone back to; parts of one and forms lead to its beginning.
    whole = request.method == "GET" and (path == "/" or path.startswith("/page/trace/"))
    back = login.login_url(path + (f"?{query}" if query else "") if whole else "/")
    if request.headers.get("hx-request"):
        return Response(b"", status_code=401, headers={**HEADERS, "hx-redirect": back})
    if whole and request.headers.get("sec-fetch-site") == "cross-site":
        # Somebody followed a link of another site: the browser kept the Strict cookie back, and sends it with the next step.
        return login.onward(path + (f"?{query}" if query else ""))
    answer = goes_to(back)
    if COOKIE in request.cookies:
        # Only a cookie that came along is known to be of no use: another site's form comes without it, and must not log out.
        clear_login(answer, secure=came_by_https(request))
    return answer


def _quiet(config: AppConfig) -> AppConfig:
    config.debug = False
    config.pdb_on_exception = False
    return config
