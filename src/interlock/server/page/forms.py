"""Forms that change something: where they may come from, and how they are read.

A browser sends the cookie along with any request to us, so a cookie alone proves who, and never that they meant it. Three
things do, and a form that changes something needs all of them:

- the cookie is `SameSite=Strict`, so no other site's page makes the browser send it;
- `Sec-Fetch-Site` and `Origin`, which pages cannot set, say that the form stood on a page of this very origin. Cookies do
  not tell ports apart, so for a neighbour on another port of the same machine this is what refuses;
- a value that only pages made for this login contain, so that what is read into another page is of no use after the next
  login, and a browser that sends neither header is still refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException

FORM: Final = "application/x-www-form-urlencoded"
TOKEN_FIELD: Final = "form_token"  # noqa: S105  # the name of a field
MAX_FIELDS: Final = 16
MAX_NEXT_CHARS: Final = 1_900
_PURPOSE: Final = b"interlock/page/form/1"


class ForeignFormError(Exception):
    """The form did not come from a page of ours made for this login."""


def form_token(token: str) -> str:
    """The value that forms made for this login carry. It tells nothing of the login's token (HMAC-SHA-256, RFC 2104).

    A login that renews its tokens puts the same secret into each, so that a page stays of use when they change.
    """
    return hmac.new((_of_login(token) or token).encode(), _PURPOSE, hashlib.sha256).hexdigest()


def _of_login(token: str) -> str:
    try:
        part = token.split(".")[1]
        said = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=_Said)
    except (ValueError, IndexError, RecursionError):
        return ""
    return said.interlock_form


class _Said(msgspec.Struct):
    interlock_form: str = ""


def refuse_foreign(request: Request[Any, Any, Any]) -> None:
    """Raises `ForeignFormError` unless the browser says that the request comes from a page of this origin."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if origin is None and site is None:
        raise ForeignFormError("the browser does not say where the form comes from; use one that sends Origin")
    if site is not None and site != "same-origin":
        raise ForeignFormError("the form comes from another site")
    authority = None if origin is None else origin.partition("://")[2].lower()
    if authority is not None and authority != request.headers.get("host", "").lower():
        # Not the scheme: behind a proxy that ends TLS we cannot know it. Such a proxy must hand on Host as it came.
        raise ForeignFormError("the form comes from another origin; a proxy in between must hand on the Host header")


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The fields of a form. Raises `HTTPException` 400 for what is none, and for a field that stands more than once."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(status_code=400, detail=f"send a form as {FORM}")
    try:
        text = (await request.body()).decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise HTTPException(status_code=400, detail="the form cannot be read") from error
    form = dict(fields)
    if len(form) != len(fields):
        raise HTTPException(status_code=400, detail="a field stands more than once")
    for name, value in form.items():
        if any(ord(sign) < ord(" ") and sign not in "\r\n\t" for sign in value):
            raise HTTPException(status_code=400, detail=f"the field {name[:40]!r} contains control characters")
    return form


async def read_meant(request: Request[Any, Any, Any], secret: str) -> dict[str, str]:
    """The fields of a form that somebody sent from a page of ours made for their login. Raises as its parts."""
    refuse_foreign(request)
    form = await read_form(request)
    if not hmac.compare_digest(form.pop(TOKEN_FIELD, "").encode(), form_token(secret).encode()):
        raise ForeignFormError("the page was made for another login; load it again")
    return form


def local_path(text: str) -> str:
    """`text` if it is a path of this origin, else `/`. For `next`: nobody is sent elsewhere after logging in."""
    fine = text.startswith("/") and not text.startswith("//") and len(text) <= MAX_NEXT_CHARS
    # Browsers read a backslash as a slash and drop tabs and newlines, so that `/\t/evil` would be another host.
    if not fine or "\\" in text or any(not " " < sign < "\x7f" for sign in text):
        return "/"
    return text
