"""Logging in and out. How somebody proves who they are is for the ways to log in; what comes of it is always a person's token.

A way to log in is shown on `/login` and starts at an address of ours. At its end it has a token that `Plane.person`
accepts, and calls `logged_in`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.exceptions import HTTPException

from interlock.app.plane import Plane
from interlock.identity.errors import TokenRefusedError
from interlock.server.page.cookie import (
    LoginTooLargeError,
    came_by_https,
    clear_login,
    login_secret,
    person_of_cookie,
    set_login,
)
from interlock.server.page.forms import MAX_NEXT_CHARS, local_path, read_form, read_meant, refuse_foreign
from interlock.server.page.html import HEADERS, page

FALLBACK_LOGIN_S: Final = 300
MAX_LOGIN_S: Final = 12 * 3_600


class LoginWay(Protocol):
    """A way to log in, as `/login` shows it."""

    @property
    def title(self) -> str:
        """What the button says: `Log in with Entra`."""
        ...

    @property
    def hint(self) -> str:
        """One sentence beneath it; may be empty."""
        ...

    def start(self, next_path: str) -> str:
        """The address of ours that begins it, a path; `next_path` is where to go afterwards."""
        ...


class BrowserLogins(Protocol):
    """Logins that go on behind the cookie, and the ways to one that the release in force names."""

    async def ways(self) -> Sequence[LoginWay]:
        """The ways that are open now, besides those that are always there."""
        ...

    def again(self, request: Request[Any, Any, Any], ways: Sequence[LoginWay]) -> LoginWay | None:
        """The way by which this browser logged in before and has not logged out."""
        ...

    async def begin(self, request: Request[Any, Any, Any], code: str, next_path: str) -> Response[Any] | None:
        """The answer that logs the browser in by a login code; None when this is none that holds."""
        ...

    async def end(self, request: Request[Any, Any, Any], answer: Response[Any]) -> None:
        """End the login that the browser holds, and take it from the browser."""
        ...


def routes(plane: Plane, ways: Sequence[LoginWay], browser: BrowserLogins | None = None) -> list[Any]:
    """The routes of logging in and out."""

    async def open_ways() -> list[LoginWay]:
        return [*ways, *(() if browser is None else await browser.ways())]

    async def shown(next_path: str, said: str = "", status: int = 200) -> Response[str]:
        return login_page(await open_ways(), next_path, said, status)

    @get("/login", include_in_schema=False)
    async def login(request: Request[Any, Any, Any]) -> Response[Any]:
        next_path = local_path(request.query_params.get("next", "/")[: MAX_NEXT_CHARS + 1])
        try:
            await person_of_cookie(plane, request)
        except TokenRefusedError:
            found = await open_ways()
            again = None if browser is None else browser.again(request, found)
            return login_page(found, next_path) if again is None else goes_to(again.start(next_path))
        return goes_to(next_path)

    @post("/login", include_in_schema=False)
    async def with_token(request: Request[Any, Any, Any]) -> Response[Any]:
        # Somebody else's page must not log a browser in either: the person would act under a name that is not theirs.
        refuse_foreign(request)
        form = await read_form(request)
        token, next_path = "".join(form.get("token", "").split()), local_path(form.get("next", "/"))
        try:
            begun = None if browser is None else await browser.begin(request, token, next_path)
            if begun is not None:
                return begun
            await plane.person(token)
            return logged_in(request, token, next_path, lifetime_s(token, plane.clock.wall_us() // 1_000_000))
        except TokenRefusedError:
            return await shown(next_path, "That token is refused. It may be too old, or meant for something else.", 401)
        except LoginTooLargeError as error:
            return await shown(next_path, f"This login cannot be kept: {error}.", 400)

    @post("/logout", include_in_schema=False)
    async def logout(request: Request[Any, Any, Any]) -> Response[Any]:
        await read_meant(request, login_secret(request))
        answer = goes_to("/login")
        clear_login(answer, secure=came_by_https(request))
        if browser is not None:
            await browser.end(request, answer)
        return answer

    return [login, with_token, logout]


def login_page(ways: Sequence[LoginWay], next_path: str, said: str = "", status: int = 200) -> Response[str]:
    """`/login` as it is shown, with what went wrong."""
    offered = [{"title": way.title, "hint": way.hint, "url": way.start(next_path)} for way in ways]
    return page("login.html", status=status, next=next_path, said=said, ways=offered)


def logged_in(
    request: Request[Any, Any, Any], token: str, next_path: str, lifetime_s: int, *, secure: bool = False
) -> Response[Any]:
    """The answer at the end of every way to log in: the cookie, and on to `next_path` of ours.

    Call it with a token that `Plane.person` accepted just now. It is a page that goes on by itself, and no redirect: at the
    end of a chain that began at another site a browser would not send a Strict cookie along. `secure` when it is known
    that the browser came by https, though its request does not say so.
    Raises `LoginTooLargeError`.
    """
    target = local_path(next_path)
    answer = onward(target)
    set_login(answer, token, min(lifetime_s, MAX_LOGIN_S), secure=secure or came_by_https(request))
    return answer


def onward(target: str) -> Response[str]:
    """A page of ours that goes on to `target` by itself."""
    return page("onward.html", target=local_path(target))


def goes_to(target: str) -> Response[Any]:
    """Go on to a path of ours with GET."""
    headers = {**HEADERS, "location": local_path(target)}
    return Response(b"", status_code=303, media_type=MediaType.TEXT, headers=headers)


def login_url(next_path: str) -> str:
    """Where to log in and come back to `next_path`."""
    return "/login" if next_path == "/" else f"/login?{urlencode({'next': next_path})}"


def lifetime_s(token: str, now_s: int) -> int:
    """How long a token that was checked is still valid, seconds; a few minutes when it does not say so in the open."""
    try:
        part = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
        return max(0, int(claims["exp"]) - now_s)
    except (ValueError, KeyError, IndexError, TypeError, msgspec.MsgspecError):
        return FALLBACK_LOGIN_S


def no_such_page() -> HTTPException:
    """For what is not there, or not for this person."""
    return HTTPException(status_code=404, detail="there is nothing here, or nothing for you to see")
