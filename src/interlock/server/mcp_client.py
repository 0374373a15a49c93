"""The client at the other end of a stateful MCP session: what it can be asked, told, and what it watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.shared.message import ServerMessageMetadata

from interlock.core.changes import Changed, Listing
from interlock.gateway.messages import Asked, Caller
from interlock.server import envelope as rpc
from interlock.server.limits import CLIENT_ANSWER_S, CLIENT_TOLD_S, MAX_WAITING_NOTIFICATIONS, MAX_WATCHED_RESOURCES
from interlock.server.streaming import at_least

_log = logging.getLogger(__name__)
_ASKED: Final[Mapping[str, tuple[type[Any], type[Any]]]] = {
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResultWithTools),
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}


class Client:
    """One of these for each MCP session. `level` is from which level on it wants log messages."""

    def __init__(self, session: Any, may_hear: Callable[[Changed], Awaitable[bool]]) -> None:
        """`session` is the SDK's own; `may_hear` says whether whoever it belongs to may still be told of a change."""
        self._session = session
        self.may_hear = may_hear
        self._telling: set[asyncio.Task[None]] = set()
        self.uris: set[str] = set()
        self.level = "debug"

    def subscribe(self, uri: str) -> None:
        """Watch a resource. Raises `RpcError` for one too many."""
        if len(self.uris) >= MAX_WATCHED_RESOURCES and uri not in self.uris:
            raise rpc.RpcError(rpc.INVALID_PARAMS, f"at most {MAX_WATCHED_RESOURCES} resources are watched")
        self.uris.add(uri)

    def changed(self, changed: Changed) -> None:
        """Tell it on its own stream that something has changed, if that is anything to it."""
        if (changed.uri and changed.uri not in self.uris) or len(self._telling) >= MAX_WAITING_NOTIFICATIONS:
            return
        task = asyncio.ensure_future(_quietly(self._tell(changed)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, changed: Changed) -> None:
        # INVARIANT: whose session has ended, or who may no longer read what has changed, is told nothing.
        if not await self.may_hear(changed):
            return
        if changed.uri:
            await self._session.send_resource_updated(changed.uri)
        elif changed.listing is Listing.TOOLS:
            await self._session.send_tool_list_changed()
        elif changed.listing is Listing.PROMPTS:
            await self._session.send_prompt_list_changed()
        else:
            await self._session.send_resource_list_changed()

    @contextlib.asynccontextmanager
    async def while_calling(self, context: Any, meta: Mapping[str, Any]) -> AsyncIterator[Caller]:
        """What can be done for a call while it is under way. Progress has been sent when this is left."""
        reached: asyncio.Queue[tuple[float, float | None] | None] = asyncio.Queue(MAX_WAITING_NOTIFICATIONS)

        def progress(done: float, total: float | None) -> None:
            if not reached.full():
                reached.put_nowait((done, total))

        async def report() -> None:
            while (step := await reached.get()) is not None:
                await context.session.report_progress(*step)

        async def ask(method: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
            return await self._ask(context, method, params)

        wants_progress = isinstance(meta.get("progressToken"), int | str)
        reporting = asyncio.ensure_future(report())
        try:
            yield Caller(
                offers=self._offers(context), ask=ask, progress=progress if wants_progress else None, log_level=self.level
            )
            await reached.put(None)
            await reporting
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    async def answers(self, caller: Caller, asked: Asked) -> bytes:
        """The client's answers to what a tool asks before it goes on, as JSON text. Raises `RpcError` without one."""
        found: dict[str, Any] = {}
        for key, request in asked.requests.items():
            answer = None if caller.ask is None else await caller.ask(request["method"], request["params"])
            if answer is None:
                raise rpc.RpcError(
                    rpc.INTERNAL_ERROR,
                    f"the client did not answer {request['method']}, which the tool waits for before it goes on",
                )
            found[key] = answer
        return msgspec.json.encode(found) if found else b""

    async def logged(self, context: Any, logs: tuple[Mapping[str, Any], ...]) -> None:
        """Send the log messages that came with a result."""
        for entry in logs:
            if at_least(entry.get("level"), self.level):
                notification = types.LoggingMessageNotification.model_validate(
                    {"method": "notifications/message", "params": entry}
                )
                await context.session.send_notification(notification, related_request_id=context.request_id)

    def _offers(self, context: Any) -> frozenset[str]:
        offered = context.session.client_capabilities
        names = ("sampling", "elicitation", "roots")
        return frozenset(name for name in names if offered is not None and getattr(offered, name, None) is not None)

    async def _ask(self, context: Any, method: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        request, result = _ASKED[method]
        try:
            answer = await context.session.send_request(
                request.model_validate({"method": method, "params": params}),
                result,
                request_read_timeout_seconds=CLIENT_ANSWER_S,
                metadata=ServerMessageMetadata(related_request_id=context.request_id),
            )
        except Exception as error:  # noqa: BLE001  # a client that says no, says nothing, or says what is no answer
            about = {"event": "client.no_answer"}
            _log.debug("a client did not answer %s: %s", method, type(error).__name__, extra=about)
            return None
        dumped: Mapping[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dumped


async def _quietly(work: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLIENT_TOLD_S):
            await work
