"""Who looks at the page: a person's own token, kept in a cookie that no script can read.

The cookie holds what `Plane.person` accepts and nothing else, so it ends when the token does, and every process of the
installation knows it. Cookie rules: RFC 6265bis.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response

from interlock.app.plane import Plane
from interlock.core.who import Person
from interlock.identity.errors import TokenCode, TokenRefusedError

COOKIE: Final = "interlock_person"
LOGIN_COOKIE: Final = "interlock_login"
"""The key of a login that goes on while its token is renewed, where there is one (`server/login/browser.py`)."""
MAX_COOKIE_CHARS: Final = 4_000
"""Browsers drop cookies whose name, value and attributes are longer than about 4,096 bytes."""


class LoginTooLargeError(Exception):
    """The token does not fit into a cookie; the issuer should put less into it."""


def set_login(response: Response[Any], token: str, max_age_s: int, *, secure: bool) -> None:
    """Log the browser in for as long as the token holds. `token` must have been accepted by `Plane.person` just now.

    `secure`: the browser came over https (see `came_by_https`).

    Raises:
        LoginTooLargeError: a browser would drop the cookie silently.
    """
    if len(token) > MAX_COOKIE_CHARS:
        raise LoginTooLargeError(f"the token has {len(token)} characters, a cookie holds {MAX_COOKIE_CHARS}")
    response.set_cookie(COOKIE, token, max_age=max(0, max_age_s), path="/", secure=secure, httponly=True, samesite="strict")


def clear_login(response: Response[Any], *, secure: bool) -> None:
    """Log the browser out."""
    response.set_cookie(COOKIE, "", max_age=0, path="/", secure=secure, httponly=True, samesite="strict")


def came_by_https(request: Request[Any, Any, Any]) -> bool:
    """Whether the browser speaks https, be it to us or to a proxy in front of us: then it says so in Origin."""
    return request.scope["scheme"] == "https" or request.headers.get("origin", "").startswith("https://")


def token_of_cookie(request: Request[Any, Any, Any]) -> str:
    """The token in the cookie, empty when there is none. Raises `TokenRefusedError` when there are two.

    A neighbour on a parent domain can plant a second cookie of the same name, and readers differ in which they take.
    """
    found = [
        value.strip()
        for header in request.headers.getall("cookie", [])
        for name, _, value in (part.partition("=") for part in header.split(";"))
        if name.strip() == COOKIE
    ]
    if len(found) > 1:
        raise TokenRefusedError(TokenCode.MALFORMED, "two cookies of the same name")
    return found[0] if found else ""


def login_secret(request: Request[Any, Any, Any]) -> str:
    """What this login knows and nobody else, for `forms.form_token`: it stays the same while the token is renewed."""
    return request.cookies.get(LOGIN_COOKIE, "") or token_of_cookie(request)


async def person_of_cookie(plane: Plane, request: Request[Any, Any, Any]) -> Person:
    """The person who looks. Raises `TokenRefusedError`: there is no anonymous path."""
    return await plane.person(token_of_cookie(request))
