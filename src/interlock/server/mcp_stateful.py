"""MCP revision 2025-11-25 and before, on the SDK's own server: a handshake, a session, the same gate behind it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError

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
from interlock.server.limits import MAX_BODY_BYTES, MAX_STATEFUL_PER_SESSION, MAX_STATEFUL_SESSIONS, STATEFUL_IDLE_S
from interlock.server.mcp_stateless import Gate
from interlock.store.errors import StoreUnavailableError

_log = logging.getLogger(__name__)
_STATE: Final = "interlock"
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413


class _Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was, as we read it. The SDK's own reading of the body decides nothing."""

    session: Session
    call: rpc.CallParams | None
    key: str
    version: str
    traceparent: str | None


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
        call: rpc.CallParams | None = None
        if scope["method"] == "POST":
            try:
                body = await read_body(receive, max_bytes=MAX_BODY_BYTES)
                call = _call_in(body)
            except DisconnectedError:
                return
            except BodyTooLargeError:
                await answer_problem(send, _TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
                return
            except rpc.RpcError as error:
                await answer(send, rpc.HTTP_STATUS.get(error.code, 200), rpc.failure(error.request_id, error))
                return
            receive = _again(body, receive)
        received = _Received(
            session=session,
            call=call,
            key=header(scope, b"idempotency-key") or "",
            version=header(scope, b"mcp-protocol-version") or "",
            traceparent=header(scope, b"traceparent"),
        )
        scope.setdefault("state", {})[_STATE] = received
        await self._manager.handle_request(scope, receive, self._remember_owner(send, session))
        if opened is None:
            await self._close_surplus(scope, session)
        elif scope["method"] == "DELETE":
            self._owners.pop(opened, None)

    async def _close_surplus(self, scope: Scope, session: Session) -> None:
        """Close the oldest of one owner's MCP sessions, so that nobody can take all that there are."""
        own = [opened for opened, owner in self._owners.items() if owner == session.session_id]
        for opened in own[:-MAX_STATEFUL_PER_SESSION]:
            self._owners.pop(opened, None)
            headers = [(b"mcp-session-id", opened.encode("latin-1")), (b"accept", b"application/json")]
            await self._manager.handle_request({**scope, "method": "DELETE", "headers": headers}, _nothing, _nowhere)

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
        received: _Received = context.request.scope["state"][_STATE]
        try:
            listed = [rpc.listed_tool(operation) for operation in await self._gate.visible(received.session)]
            return types.ListToolsResult(tools=[types.Tool.model_validate(_plain(tool)) for tool in listed])
        except StoreUnavailableError as error:
            raise MCPError(rpc.INTERNAL_ERROR, "the control plane cannot answer right now") from error
        except Exception as error:
            raise _defect(error) from error

    async def _call(self, context: Any, _: types.CallToolRequestParams) -> types.CallToolResult:
        received: _Received = context.request.scope["state"][_STATE]
        if received.call is None:
            # INVARIANT: what the SDK read is never decided on; when the two readings differ, nothing is called.
            raise MCPError(rpc.INVALID_REQUEST, rpc.NOT_ONE_MESSAGE)
        try:
            proposal = rpc.proposal_of(received.call, received.key, version=received.version, traceparent=received.traceparent)
            result = rpc.call_result(await self._gate.call(received.session, proposal))
            result.pop("resultType")
            return types.CallToolResult.model_validate(_plain(result))
        except rpc.RpcError as error:
            raise MCPError(error.code, str(error), error.data) from error
        except Exception as error:
            raise _defect(error) from error


def _call_in(body: bytes) -> rpc.CallParams | None:
    """The call that a body asks for; None for every other message. Raises `RpcError`."""
    try:
        message = rpc.read_envelope(body)
    except rpc.RpcError:
        if rpc.is_answer(body):
            return None
        raise
    if message.method != "tools/call":
        return None
    try:
        return rpc.read_params(message)
    except rpc.RpcError as error:
        error.request_id = message.id if isinstance(message.id, (int, str)) else None
        raise


def _defect(error: Exception) -> MCPError:
    # The SDK would send the exception's text to the client.
    _log.error("an MCP request failed", exc_info=error, extra={"event": "mcp.failed"})
    told = rpc.unexpected()
    return MCPError(told.code, str(told))


def _plain(value: Any) -> Any:
    """Raw JSON inside, as the plain values that the SDK's models take."""
    return msgspec.json.decode(msgspec.json.encode(value))


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(_: Message) -> None:
    """The answer to a request of our own."""


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out the body that was read already, then goes on."""
    handed: list[bool] = []

    async def receiving() -> Message:
        if handed:
            return await receive()
        handed.append(True)
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
