"""`subscriptions/listen` (MCP 2026-07-28): a stream that tells that listings or resources changed, and nothing more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from interlock.core.changes import Changed, Changes, Listing
from interlock.core.who import Session
from interlock.gateway.streams import OpenStreams
from interlock.server import envelope as rpc
from interlock.server.asgi import Receive, Scope, Send
from interlock.server.http import LINE, OpenLine
from interlock.server.limits import (
    LISTEN_PING_S,
    MAX_LISTENERS,
    MAX_LISTENERS_PER_SESSION,
    MAX_WAITING_NOTIFICATIONS,
    MAX_WATCHED_RESOURCES,
)
from interlock.server.mcp_methods import Methods
from interlock.server.streaming import event, notification, wants_events

LISTEN: Final = "subscriptions/listen"
_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
_FLAGS: Final[Mapping[str, Listing]] = {
    "toolsListChanged": Listing.TOOLS,
    "promptsListChanged": Listing.PROMPTS,
    "resourcesListChanged": Listing.RESOURCES,
}
_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")]


class Listening:
    """Open streams of one process, counted."""

    def __init__(self, changes: Changes, streams: OpenStreams, methods: Methods) -> None:
        self._changes = changes
        self._streams = streams
        self._methods = methods
        self._open: Counter[str] = Counter()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        session: Session,
        request_id: int | str,
        params: rpc.CallParams,
        tool: str | None,
    ) -> None:
        """Serve one stream until the client leaves, the process stops, or its session ends. Raises `RpcError`."""
        if not wants_events(scope):
            raise rpc.RpcError(rpc.INVALID_PARAMS, "this answer is a stream: accept text/event-stream")
        own = self._open[session.session_id]
        if own >= MAX_LISTENERS_PER_SESSION or self._open.total() >= MAX_LISTENERS:
            raise rpc.RpcError(rpc.INTERNAL_ERROR, "too many streams are open")
        self._open[session.session_id] += 1  # at once: whoever opens many at the same time is counted too
        try:
            if not await self._methods.holds(session):
                raise rpc.RpcError(rpc.INTERNAL_ERROR, "this session may use nothing at the moment; listen again later")
            wanted = {name for name in _FLAGS if params.notifications.get(name) is True}
            uris = await self._readable(session, params.notifications.get("resourceSubscriptions"), tool)
            told = _Told(request_id, wanted, uris, tool)
            await self._stream(scope, receive, send, session, told)
        finally:
            self._open[session.session_id] -= 1
            if not self._open[session.session_id]:
                del self._open[session.session_id]

    async def _readable(self, session: Session, uris: Any, tool: str | None) -> tuple[str, ...]:
        asked = [uri for uri in uris if isinstance(uri, str)] if isinstance(uris, list) else []
        return tuple([uri for uri in asked[:MAX_WATCHED_RESOURCES] if await self._methods.subscribable(session, uri, tool)])

    async def _stream(self, scope: Scope, receive: Receive, send: Send, session: Session, told: _Told) -> None:
        waiting: asyncio.Queue[tuple[Changed, bytes] | None] = asyncio.Queue(MAX_WAITING_NOTIFICATIONS)

        def put(message: tuple[Changed, bytes] | None) -> None:
            if waiting.full():
                # A client that does not read: it will list again when it comes back.
                waiting.get_nowait()
            waiting.put_nowait(message)

        def hear(changed: Changed) -> None:
            message = told.of(changed)
            if message is not None:
                put((changed, message))

        line = scope.get(LINE)
        if isinstance(line, OpenLine):
            line.stop = lambda: put(None)
            if line.is_over:
                put(None)
        stop_listening, closed = self._changes.listen(hear), self._streams.add(session, lambda: put(None))
        leaving = asyncio.ensure_future(receive())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": event(told.first()), "more_body": True})
            while not leaving.done():
                getting = asyncio.ensure_future(waiting.get())
                done, _ = await asyncio.wait({getting, leaving}, timeout=LISTEN_PING_S, return_when=asyncio.FIRST_COMPLETED)
                if getting not in done:
                    getting.cancel()
                    if not done:
                        if not await self._methods.holds(session):
                            put(None)
                            continue
                        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                    continue
                heard = getting.result()
                # INVARIANT: who may no longer use what has changed is not told of it; whose session has ended, of nothing.
                if heard is not None and not await self._methods.may_hear(session, heard[0], told.tool):
                    if await self._methods.holds(session):
                        continue
                    heard = None
                if heard is None:
                    done_text = rpc.success(told.request_id, {"resultType": "complete"})
                    await send({"type": "http.response.body", "body": event(done_text)})
                    return
                await send({"type": "http.response.body", "body": event(heard[1]), "more_body": True})
        finally:
            leaving.cancel()
            stop_listening()
            closed()


class _Told:
    """What one stream is told, as messages."""

    def __init__(self, request_id: int | str, wanted: set[str], uris: tuple[str, ...], tool: str | None) -> None:
        self._meta = {_SUBSCRIPTION: request_id}
        self._wanted = wanted
        self._uris = uris
        self._tool = tool
        self.request_id = request_id
        self.tool = tool

    def first(self) -> bytes:
        """What is honoured of what was asked for."""
        honoured: dict[str, Any] = dict.fromkeys(sorted(self._wanted), True)
        honoured |= {"resourceSubscriptions": list(self._uris)} if self._uris else {}
        return notification("notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": self._meta})

    def of(self, changed: Changed) -> bytes | None:
        """The message about a change; None when it is none of this stream's."""
        if self._tool is not None and changed.tool not in {"", self._tool}:
            return None
        if changed.uri:
            about = {"uri": changed.uri, "_meta": self._meta}
            return notification("notifications/resources/updated", about) if changed.uri in self._uris else None
        if any(_FLAGS[name] is changed.listing for name in self._wanted):
            return notification(f"notifications/{changed.listing}/list_changed", {"_meta": self._meta})
        return None
