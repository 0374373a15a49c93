"""MCP revision 2025-11-25 and before, on the SDK's own server: a handshake, a session, the same gate behind it."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from interlock import __version__
from interlock.core.who import Session
from interlock.server import envelope as rpc
from interlock.server.asgi import (
    BodyTooLargeError,
    DisconnectedError,
    Message,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    header,
    read_body,
)
from interlock.server.limits import MAX_BODY_BYTES, MAX_STATEFUL_SESSIONS, STATEFUL_IDLE_S
from interlock.server.mcp_stateless import Gate

_STATE: Final = "interlock"
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413


class StatefulMcp:
    """The stateful transport. Each of its sessions belongs to the Interlock session that opened it, and to no other."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._owners: OrderedDict[str, str] = OrderedDict()
        server: Server[Any] = Server("interlock", version=__version__, on_list_tools=self._list, on_call_tool=self._call)
        # Host and origin were checked before the request came here.
        self._manager = StreamableHTTPSessionManager(
            server,
            json_response=True,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            session_idle_timeout=STATEFUL_IDLE_S,
            max_request_body_size=MAX_BODY_BYTES,
            max_sessions=MAX_STATEFUL_SESSIONS,
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run the session manager; requests are served inside."""
        return self._manager.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, session: Session) -> None:
        """Serve one request of a stateful client."""
        opened = header(scope, b"mcp-session-id")
        if opened is not None and self._owners.get(opened) != session.session_id:
            await answer_problem(send, _NOT_FOUND, "no such MCP session; initialize a new one")
            return
        arguments: bytes = b"{}"
        key = ""
        if scope["method"] == "POST":
            try:
                body = await read_body(receive, max_bytes=MAX_BODY_BYTES)
                message = rpc.read_envelope(body)
            except DisconnectedError:
                return
            except BodyTooLargeError:
                await answer_problem(send, _TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
                return
            except rpc.RpcError as error:
                if error.code == rpc.PARSE_ERROR or b'"method"' in body:
                    await answer(send, 400, rpc.failure(None, error))
                    return
                message = None  # a client's answer to a request: the SDK knows what to do with it
            if message is not None and message.method == "tools/call":
                try:
                    arguments = bytes(rpc.read_params(message).arguments)
                except rpc.RpcError as error:
                    request_id = message.id if isinstance(message.id, (int, str)) else None
                    await answer(send, 400, rpc.failure(request_id, error))
                    return
                key = header(scope, b"idempotency-key") or ""
            receive = _again(body, receive)
        # What the SDK parsed is not what is decided on: the gate gets the bytes that came.
        scope.setdefault("state", {})[_STATE] = (session, arguments, key)
        await self._manager.handle_request(scope, receive, self._remember_owner(send, session))

    def _remember_owner(self, send: Send, session: Session) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if name.lower() == b"mcp-session-id":
                        self._owners.setdefault(value.decode("latin-1"), session.session_id)
                        while len(self._owners) > 2 * MAX_STATEFUL_SESSIONS:
                            self._owners.popitem(last=False)
            await send(message)

        return sending

    async def _list(self, context: Any, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        session, _, _ = context.request.scope["state"][_STATE]
        tools = []
        for operation in await self._gate.visible(session):
            listed = rpc.listed_tool(operation)
            text = rpc.success(0, {"tool": listed})
            tools.append(types.Tool.model_validate(_decode(text)["result"]["tool"]))
        return types.ListToolsResult(tools=tools)

    async def _call(self, context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        session, arguments, key = context.request.scope["state"][_STATE]
        meta = dict(params.meta or {})
        proposal = rpc.proposal_of(rpc.CallParams(name=params.name, arguments=rpc.raw(arguments), meta=meta), key)
        result = rpc.call_result(await self._gate.call(session, proposal))
        result.pop("resultType")
        return types.CallToolResult.model_validate(_decode(rpc.success(0, result))["result"])


def _decode(text: bytes) -> Any:
    return rpc.decode(text)


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out the body that was read already, then goes on."""
    handed: list[bool] = []

    async def receiving() -> Message:
        if handed:
            return await receive()
        handed.append(True)
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
