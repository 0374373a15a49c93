"""The little of ASGI that every route here shares: headers, bodies, answers, and who may knock at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")


class BodyTooLargeError(Exception):
    """The request's body is longer than the limit."""


class DisconnectedError(Exception):
    """The client went away before its request was read."""


_HEADERS: Final = "interlock.headers"
_BASE: Final = "interlock.base"
# Headers that decide something here. Of two, one reader takes the first and another the last, so two are refused.
_DECISIVE: Final = frozenset(
    {
        b"authorization",
        b"cookie",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"interlock-task",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
        b"sec-fetch-site",
    }
)


def repeated(scope: Scope) -> str | None:
    """The name of a header that decides something and stands more than once, or None."""
    # INVARIANT: past the router every header that decides something stands at most once.
    if len(_headers(scope)) == len(scope["headers"]):
        return None
    seen: set[bytes] = set()
    for name, _ in scope["headers"]:
        if name in seen and name in _DECISIVE:
            return str(name.decode("latin-1"))
        seen.add(name)
    return None


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, or None when it is absent. Only for requests that the router let in: see `repeated`."""
    value = (scope.get(_HEADERS) or _headers(scope)).get(name)
    return None if value is None else value.decode("latin-1")


def _headers(scope: Scope) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if found is None:
        found = scope[_HEADERS] = dict(scope["headers"])
    return found


def bearer(scope: Scope) -> str:
    """The bearer token of a request, empty when there is none."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def base_of(scope: Scope) -> str:
    """The URL that clients know us by: as `set_base` said, else as this client wrote it; its host was checked before."""
    found: str | None = scope.get(_BASE)
    return found or f"{scope['scheme']}://{header(scope, b'host')}"


def set_base(scope: Scope, url: str) -> None:
    """Say what clients know us by, whatever a proxy in front of us wrote."""
    scope[_BASE] = url


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """The whole body. Raises `BodyTooLargeError`, at once where the request says how long it is, or `DisconnectedError`."""
    if int(header(scope, b"content-length") or 0) > max_bytes:
        raise BodyTooLargeError
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise DisconnectedError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLargeError
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def answer(send: Send, status: int, body: bytes, *, headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)) -> None:
    """Send one complete answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def answer_problem(send: Send, status: int, title: str, *more: tuple[bytes, bytes]) -> None:
    """Send a problem document (RFC 9457)."""
    body = msgspec.json.encode({"type": "about:blank", "title": title, "status": status})
    await answer(send, status, body, headers=((b"content-type", b"application/problem+json"), *more))


def has_nul(scope: Scope) -> bool:
    """Whether the address holds a NUL. No name here does, and no record can hold one."""
    return "\x00" in scope["path"] or b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]


def comes_from_elsewhere(scope: Scope, allowed_hosts: frozenset[str]) -> bool:
    """Whether a browser page of another origin, or a rebound name, is behind this request."""
    host = (header(scope, b"host") or "").lower()
    if _hostname(host) not in allowed_hosts:
        return True
    origin = header(scope, b"origin")
    return origin is not None and _hostname(origin.lower().partition("://")[2]) not in allowed_hosts


def _hostname(authority: str) -> str:
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]
