"""HTML from templates. Whatever people, agents and tools wrote is text in them, always: escaping is on for every template.

A missing value is an error (`StrictUndefined`), never an empty place.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response

from interlock.server.page import words

STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "hx-sse.min.js": "text/javascript; charset=utf-8",
    "hx-upsert.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS: Final = {
    # No inline script or style, nothing from elsewhere, no frames: what slips through escaping still cannot run or call out.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not no-referrer: browsers would then say `Origin: null` of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}


def page(template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any) -> Response[str]:
    """A template as an answer, with every header that a page here carries."""
    return Response(
        render(template, **values), status_code=status, media_type="text/html", headers={**HEADERS, **(headers or {})}
    )


def render(template: str, **values: Any) -> str:
    """A template as text. Raises `jinja2.UndefinedError` for a value that is missing."""
    return _templates().get_template(template).render(**values)


@cache
def static(name: str) -> bytes:
    """The bytes of a static file. Raises KeyError for one that is not listed."""
    STATIC[name]
    return (files("interlock.server.page") / "static" / name).read_bytes()


@cache
def static_url(name: str) -> str:
    """Where a browser finds a static file; the address changes with the content, so that it may be kept for ever."""
    return f"/page/static/{hashlib.sha256(static(name)).hexdigest()[:12]}/{name}"


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("interlock.server.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(static_url=static_url)
    made.filters.update(words.FILTERS)
    return made
