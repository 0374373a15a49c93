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


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that stands exactly once; None when it is absent, and also when it is repeated."""
    found = [value for key, value in scope["headers"] if key == name]
    return str(found[0].decode("latin-1")) if len(found) == 1 else None


def is_repeated(scope: Scope, name: bytes) -> bool:
    """Whether a header stands more than once: two readers could take different ones."""
    return len([key for key, _ in scope["headers"] if key == name]) > 1


def bearer(scope: Scope) -> str:
    """The bearer token of a request, empty when there is none."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def read_body(receive: Receive, *, max_bytes: int) -> bytes:
    """The whole body. Raises `BodyTooLargeError` or `DisconnectedError`."""
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
