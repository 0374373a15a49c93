"""`/login/oidc/{issuer}`: a browser is sent to an issuer elsewhere and comes back logged in (OpenID Connect, RFC 9700).

While it is away it holds a cookie of this very login, signed by us and sent along on the way back (`SameSite=Lax`). An answer
without it logs in nobody: not who stole the answer, and not whom somebody sends to an answer of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.params import FromPath

from interlock.app.logins import LoginRefusedError
from interlock.app.outside_logins import mark_of
from interlock.app.plane import Plane
from interlock.identity.errors import TokenRefusedError
from interlock.identity.persons import ATTEMPT_S
from interlock.release.errors import ReleaseError
from interlock.server.api.oauth import base_of
from interlock.server.page.cookie import LOGIN_COOKIE, LoginTooLargeError, came_by_https
from interlock.server.page.forms import MAX_NEXT_CHARS, local_path
from interlock.server.page.html import HEADERS
from interlock.server.page.login import LoginWay, logged_in, login_page
from interlock.store.errors import StoreError

PATH: Final = "/login/oidc/"
WAY_COOKIE: Final = "interlock_way"
_ATTEMPT_COOKIE: Final = "interlock_attempt_"
_WAY_KEPT_S: Final = 12 * 3_600


class OutsideWay(msgspec.Struct, frozen=True, kw_only=True):
    """An issuer as a way to log in."""

    name: str
    title: str
    hint: str = ""

    def start(self, next_path: str) -> str:
        """The address of ours that begins it."""
        return f"{PATH}{self.name}?{urlencode({'next': next_path})}"


async def ways(plane: Plane) -> Sequence[LoginWay]:
    """The issuers that people log in at, by the release in force; none when there is no release."""
    try:
        offered = await plane.outside_logins.offered()
    except (StoreError, ReleaseError):
        return ()
    return tuple(
        OutsideWay(name=issuer.name, title=f"Log in with {(issuer.login and issuer.login.title) or issuer.name}")
        for issuer in offered
    )


def again(request: Request[Any, Any, Any], offered: Sequence[LoginWay]) -> LoginWay | None:
    """The issuer that this browser logged in at before: when its hour is over it goes there again, and nobody has to click."""
    name = request.cookies.get(WAY_COOKIE, "")
    return next((way for way in offered if isinstance(way, OutsideWay) and way.name == name), None)


def forget_way(request: Request[Any, Any, Any], answer: Response[Any]) -> None:
    """Who logs out, or could not log in, is not sent anywhere by itself."""
    # On the way back from an issuer the browser does not say whether it holds one: a Strict cookie is not sent along.
    if WAY_COOKIE in request.cookies or request.scope["path"].startswith(PATH):
        _keep(request, answer, WAY_COOKIE, "", 0)


def routes(plane: Plane) -> list[Any]:
    """The routes of logging in elsewhere."""

    async def refused(request: Request[Any, Any, Any], said: str) -> Response[Any]:
        answer = login_page(await ways(plane), "/", f"Nobody was logged in: {said}.", 400)
        forget_way(request, answer)
        return answer

    @get("/login/oidc/{issuer:str}", include_in_schema=False)
    async def begin(request: Request[Any, Any, Any], issuer: FromPath[str]) -> Response[Any]:
        if request.headers.get("sec-fetch-dest", "document") != "document":
            return await refused(request, "a login is begun by a person, in a window of its own")
        next_path = local_path(request.query_params.get("next", "/")[: MAX_NEXT_CHARS + 1])
        try:
            begun = await plane.outside_logins.begin(issuer, _callback(request, issuer), next_path)
        except LoginRefusedError as error:
            return await refused(request, str(error))
        answer = Response(b"", status_code=303, media_type=MediaType.TEXT, headers={**HEADERS, "location": begun.url})
        _keep(request, answer, _ATTEMPT_COOKIE + begun.mark, begun.cookie, ATTEMPT_S, path=PATH, samesite="lax")
        return answer

    @get("/login/oidc/{issuer:str}/callback", include_in_schema=False)
    async def back(request: Request[Any, Any, Any], issuer: FromPath[str]) -> Response[Any]:
        sent = request.query_params
        if any(len(sent.getall(name)) > 1 for name in sent):
            return await refused(request, "a parameter of the answer stands more than once")
        name = _ATTEMPT_COOKIE + mark_of(sent.get("state", ""))
        answer = await _ended(plane, request, issuer, dict(sent), _once(request, name), refused)
        _keep(request, answer, name, "", 0, path=PATH, samesite="lax")
        return answer

    return [begin, back]


async def _ended(
    plane: Plane, request: Request[Any, Any, Any], issuer: str, sent: dict[str, str], cookie: str, refused: Any
) -> Response[Any]:
    logins = plane.outside_logins
    try:
        done = await logins.finish(issuer, _callback(request, issuer), sent, cookie)
    except LoginRefusedError as error:
        return await refused(request, str(error))  # type: ignore[no-any-return]
    try:
        await plane.person(done.token)
        answer = logged_in(request, done.token, done.next_path, done.lifetime_s, secure=_secure(request))
    except TokenRefusedError as error:
        await logins.end(done.token)
        return await refused(request, f"you are refused here ({error.code.value})")  # type: ignore[no-any-return]
    except LoginTooLargeError as error:
        await logins.end(done.token)
        return await refused(request, f"this login cannot be kept: {error}")  # type: ignore[no-any-return]
    _keep(request, answer, WAY_COOKIE, issuer, _WAY_KEPT_S)
    # A login at the built-in issuer that this browser may hold would be renewed into the next person's place.
    _keep(request, answer, LOGIN_COOKIE, "", 0)
    return answer


def _callback(request: Request[Any, Any, Any], issuer: str) -> str:
    return f"{base_of(request)}{PATH}{issuer}/callback"


def _secure(request: Request[Any, Any, Any]) -> bool:
    # A browser that comes back from an issuer says no Origin; behind a proxy the public URL says how it came.
    return came_by_https(request) or base_of(request).startswith("https://")


def _keep(
    request: Request[Any, Any, Any],
    answer: Response[Any],
    name: str,
    value: str,
    max_age_s: int,
    *,
    path: str = "/",
    samesite: Any = "strict",
) -> None:
    answer.set_cookie(name, value, max_age=max_age_s, path=path, secure=_secure(request), httponly=True, samesite=samesite)


def _once(request: Request[Any, Any, Any], name: str) -> str:
    """A cookie that stands once, else nothing: of two of one name nobody knows which is ours."""
    found = [
        value.strip()
        for header in request.headers.getall("cookie", [])
        for key, _, value in (part.partition("=") for part in header.split(";"))
        if key.strip() == name
    ]
    return found[0] if len(found) == 1 else ""
