"""Answers that may become streams: notifications first, then the result, as server-sent events (MCP Streamable HTTP)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from interlock.server.asgi import DisconnectedError, Receive, Scope, Send, answer, header
from interlock.server.limits import MAX_WAITING_NOTIFICATIONS

_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_Result = TypeVar("_Result")


def wants_events(scope: Scope) -> bool:
    """Whether the client takes a stream."""
    return "text/event-stream" in (header(scope, b"accept") or "").lower()


def event(message: bytes) -> bytes:
    """One message as an event. JSON holds no raw line break."""
    return b"event: message\ndata: " + message + b"\n\n"


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    """A JSON-RPC notification."""
    return msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})


def at_least(level: object, wanted: str) -> bool:
    """Whether a log message is of a level, or above it; what is no level is not."""
    return level in LEVELS and wanted in LEVELS and LEVELS.index(str(level)) >= LEVELS.index(wanted)


class Answering:
    """One request's answer. It becomes a stream with the first notification; without any it is plain JSON."""

    def __init__(self, send: Send, *, may_stream: bool) -> None:
        self._send = send
        self._may_stream = may_stream
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING_NOTIFICATIONS)
        self._news = asyncio.Event()
        self.is_stream = False

    def tell(self, message: bytes) -> None:
        """Send a notification soon; dropped when the client takes no stream."""
        if self._may_stream:
            self._waiting.append(message)
            self._news.set()

    async def until(self, work: Coroutine[Any, Any, _Result], receive: Receive) -> _Result:
        """Wait for `work` as long as the client does, sending what there is to tell. Raises `DisconnectedError`."""
        working = asyncio.ensure_future(work)
        listening = asyncio.ensure_future(receive())
        try:
            while not working.done():
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({working, listening, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if listening.done() and not working.done():
                    raise DisconnectedError
                await self.flush()
            return working.result()
        finally:
            listening.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def flush(self) -> None:
        """Send what waits."""
        self._news.clear()
        while self._waiting:
            await self._event(self._waiting.popleft())

    async def end(self, body: bytes, status: int = 200) -> None:
        """Send what waits, then the answer."""
        await self.flush()
        if not self.is_stream:
            await answer(self._send, status, body)
            return
        await self._send({"type": "http.response.body", "body": event(body)})

    async def _event(self, message: bytes) -> None:
        if not self.is_stream:
            self.is_stream = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await self._send({"type": "http.response.body", "body": event(message), "more_body": True})
