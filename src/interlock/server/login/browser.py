"""A browser's login at the built-in issuer: the page's cookie holds a token of minutes, and this renews it.

A second cookie holds the key of the login, which the server can end. It is no token: nothing but a page of ours takes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from http.cookies import SimpleCookie
from typing import Any, Final

from litestar import Request, Response

from interlock.app.logins import PAGE, PERSON_LOGIN_LIFETIME_S
from interlock.app.plane import Plane
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.server.asgi import App, Message, Receive, Scope, Send, header
from interlock.server.login import outside
from interlock.server.page.cookie import COOKIE, LOGIN_COOKIE, came_by_https, token_of_cookie
from interlock.server.page.login import LoginWay, lifetime_s, logged_in
from interlock.store.errors import StoreError

RENEW_BEFORE_S: Final = 120
_STATIC: Final = "/page/static/"
_SECURE, _PLAIN = "s.", "p."


class KeptLogins:
    """Implements the page's `BrowserLogins`."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def ways(self) -> Sequence[LoginWay]:
        """The issuers that people log in at, by the release in force; none when there is no release."""
        return await outside.ways(self._plane)

    def again(self, request: Request[Any, Any, Any], ways: Sequence[LoginWay]) -> LoginWay | None:
        """The issuer that this browser logged in at before and has not logged out."""
        return outside.again(request, ways)

    async def begin(self, request: Request[Any, Any, Any], code: str, next_path: str) -> Response[Any] | None:
        """The answer that logs the browser in by a login code; None when it is none that holds.

        Always with a new key: what the browser had before ends, whoever gave it to it.
        """
        desk = self._plane.logins
        if desk is None:
            return None
        try:
            issued = await desk.by_proof(code, PAGE)
        except (TokenRefusedError, ExchangeRefusedError):
            return None
        answer = logged_in(request, issued.access_token, next_path, issued.expires_in)
        await self.end(request, answer)
        secure = came_by_https(request)
        value = (_SECURE if secure else _PLAIN) + issued.refresh_token
        _keep(answer, value, PERSON_LOGIN_LIFETIME_S, secure=secure)
        return answer

    async def end(self, request: Request[Any, Any, Any], answer: Response[Any]) -> None:
        """End the login that the browser holds, and take its key from it."""
        with contextlib.suppress(TokenRefusedError):
            await self._plane.outside_logins.end(token_of_cookie(request))
        outside.forget_way(request, answer)
        value = request.cookies.get(LOGIN_COOKIE, "")
        if self._plane.logins is not None and value:
            await self._plane.logins.end(value[len(_PLAIN) :])
            _keep(answer, "", 0, secure=came_by_https(request))


def _keep(answer: Response[Any], value: str, max_age_s: int, *, secure: bool) -> None:
    answer.cookies[:] = [cookie for cookie in answer.cookies if cookie.key != LOGIN_COOKIE]
    answer.set_cookie(LOGIN_COOKIE, value, max_age=max_age_s, path="/", secure=secure, httponly=True, samesite="strict")


class Renewing:
    """The page, with its cookie renewed while the login goes on: with the roles that the directory says now."""

    def __init__(self, page: App, plane: Plane) -> None:
        self._page = page
        self._plane = plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        cookies = _cookies(scope)
        key, token = cookies.get(LOGIN_COOKIE, ""), cookies.get(COOKIE, "")
        desk = self._plane.logins
        if desk is None or not key or scope["path"].startswith(_STATIC):
            await self._page(scope, receive, send)
            return
        if token and lifetime_s(token, self._plane.clock.wall_us() // 1_000_000) > RENEW_BEFORE_S:
            await self._page(scope, receive, send)
            return
        try:
            renewed = await desk.browser(key[len(_PLAIN) :])
        except StoreError:
            # INVARIANT: what cannot be renewed is not: the page meets the token as it is, and refuses one that is over.
            renewed = None
        if renewed is None:
            await self._page(scope, receive, send)
            return
        fresh = renewed[0]
        await self._page(_with_cookie(scope, fresh), receive, _telling(send, fresh, secure=key.startswith(_SECURE)))


def _cookies(scope: Scope) -> dict[str, str]:
    """Cookies that stand once. Of two of one name nobody knows which is ours, so none is taken."""
    found: dict[str, list[str]] = {}
    for part in (header(scope, b"cookie") or "").split(";"):
        name, _, value = part.partition("=")
        found.setdefault(name.strip(), []).append(value.strip())
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _with_cookie(scope: Scope, token: str) -> Scope:
    kept = "; ".join(f"{name}={value}" for name, value in _cookies(scope).items() if name not in ("", COOKIE))
    cookie = f"{kept}; {COOKIE}={token}".removeprefix("; ")
    headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    changed = {**scope, "headers": [*headers, (b"cookie", cookie.encode("latin-1"))]}
    for name in [name for name in changed if name == "interlock.headers"]:
        del changed[name]
    return changed


def _telling(send: Send, token: str, *, secure: bool) -> Send:
    made: SimpleCookie = SimpleCookie({COOKIE: token})
    said = made[COOKIE]
    said["path"], said["httponly"], said["samesite"], said["secure"] = "/", True, "Strict", secure
    line = said.OutputString().encode("latin-1")

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = f"{COOKIE}=".encode()
            if not any(name == b"set-cookie" and value.startswith(own) for name, value in message["headers"]):
                message = {**message, "headers": [*message["headers"], (b"set-cookie", line)]}
        await send(message)

    return telling
