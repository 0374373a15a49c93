"""MCP revision 2025-11-25 and before, on the SDK's own server: a handshake, a session, the same gate behind it."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import mcp_types as types
import msgspec
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from interlock import __version__
from interlock.core.changes import Changed
from interlock.core.who import Session
from interlock.gateway.messages import Returned
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
from interlock.server.http import waited_s
from interlock.server.limits import (
    MAX_BODY_BYTES,
    MAX_INPUT_ROUNDS,
    MAX_STATEFUL_PER_SESSION,
    MAX_STATEFUL_SESSIONS,
    STATEFUL_IDLE_S,
)
from interlock.server.mcp_client import Client
from interlock.server.mcp_methods import CALLS, LISTS, Gate, Methods, result_of
from interlock.store.errors import StoreUnavailableError

_log = logging.getLogger(__name__)
_STATE: Final = "interlock"
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413
_RESOURCE_NOT_FOUND: Final = -32002
_READ: Final = frozenset(CALLS) | LISTS | {"resources/subscribe", "resources/unsubscribe"}
_Result = TypeVar("_Result")


class _Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was, as we read it. The SDK's own reading of the body decides nothing."""

    session: Session
    method: str
    params: rpc.CallParams | None
    came: rpc.Came
    tool: str | None
    opened: str


class _Server(Server[Any]):
    """Says that listings change, and that clients are told."""

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> InitializationOptions:
        kwargs["notification_options"] = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(*args, **kwargs)


class StatefulMcp:
    """The stateful transport. Each of its sessions belongs to the Interlock session that opened it, and to no other."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._methods = Methods(gate)
        self._owners: OrderedDict[str, tuple[str, str | None]] = OrderedDict()
        self._kept: dict[str, Client] = {}
        with warnings.catch_warnings():
            # What the newest revision has deprecated is still part of the older ones.
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            server = _Server(
                "interlock",
                version=__version__,
                on_list_tools=self._lists(types.ListToolsResult),
                on_list_prompts=self._lists(types.ListPromptsResult),
                on_list_resources=self._lists(types.ListResourcesResult),
                on_list_resource_templates=self._lists(types.ListResourceTemplatesResult),
                on_call_tool=self._calls(types.CallToolResult),
                on_read_resource=self._calls(types.ReadResourceResult),
                on_get_prompt=self._calls(types.GetPromptResult),
                on_completion=self._calls(types.CompleteResult),
                on_subscribe_resource=self._subscribe,
                on_unsubscribe_resource=self._unsubscribe,
                on_set_logging_level=self._set_level,
            )
        # Host and origin were checked before the request came here.
        self._manager = StreamableHTTPSessionManager(
            server,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            session_idle_timeout=STATEFUL_IDLE_S,
            max_request_body_size=MAX_BODY_BYTES,
            max_sessions=MAX_STATEFUL_SESSIONS,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the session manager; requests are served inside."""
        stop = self._gate.changes.listen(self._changed)
        try:
            async with self._manager.run():
                yield
        finally:
            stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, session: Session, tool: str | None = None) -> None:
        """Serve one request of a stateful client, of one `tool` alone when that is given."""
        opened = header(scope, b"mcp-session-id")
        if opened is not None and self._owners.get(opened) != (session.session_id, tool):
            await answer_problem(send, _NOT_FOUND, "no such MCP session; initialize a new one")
            return
        method, params = "", None
        if scope["method"] == "POST":
            try:
                body = await read_body(scope, receive, max_bytes=MAX_BODY_BYTES)
                method, params = _request_in(body)
            except DisconnectedError:
                return
            except BodyTooLargeError:
                await answer_problem(send, _TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
                return
            except rpc.RpcError as error:
                await answer(send, rpc.HTTP_STATUS.get(error.code, 200), rpc.failure(error.request_id, error))
                return
            receive = _again(body, receive)
        came = rpc.Came(
            key=header(scope, b"idempotency-key") or "",
            version=header(scope, b"mcp-protocol-version") or "",
            traceparent=header(scope, b"traceparent"),
            waited_s=waited_s(scope),
        )
        received = _Received(session=session, method=method, params=params, came=came, tool=tool, opened=opened or "")
        scope.setdefault("state", {})[_STATE] = received
        await self._manager.handle_request(scope, receive, self._remember_owner(send, session, tool))
        if opened is None:
            await self._close_surplus(scope, session)
        elif scope["method"] == "DELETE":
            self._forget(opened)

    async def _close_surplus(self, scope: Scope, session: Session) -> None:
        """Close the oldest of one owner's MCP sessions, so that nobody can take all that there are."""
        own = [opened for opened, (owner, _) in self._owners.items() if owner == session.session_id]
        for opened in own[:-MAX_STATEFUL_PER_SESSION]:
            self._forget(opened)
            headers = [(b"mcp-session-id", opened.encode("latin-1")), (b"accept", b"application/json")]
            await self._manager.handle_request({**scope, "method": "DELETE", "headers": headers}, _nothing, _nowhere)

    def _forget(self, opened: str) -> None:
        self._owners.pop(opened, None)
        self._kept.pop(opened, None)

    def _remember_owner(self, send: Send, session: Session, tool: str | None) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if name.lower() == b"mcp-session-id":
                        self._owners.setdefault(value.decode("latin-1"), (session.session_id, tool))
                        while len(self._owners) > 2 * MAX_STATEFUL_SESSIONS:
                            self._forget(next(iter(self._owners)))
            await send(message)

        return sending

    def _changed(self, changed: Changed) -> None:
        for opened, client in list(self._kept.items()):
            owner = self._owners.get(opened)
            if (owner is not None and owner[1] in {None, changed.tool}) or not changed.tool:
                client.changed(changed)

    def _client(self, context: Any, received: _Received) -> Client:
        def may_hear(changed: Changed) -> Awaitable[bool]:
            return self._methods.may_hear(received.session, changed, received.tool)

        client = self._kept.get(received.opened) or Client(context.session, may_hear)
        client.may_hear = may_hear
        if received.opened in self._owners and received.opened not in self._kept:
            self._kept[received.opened] = client
            # INVARIANT: nothing is kept of a session that the SDK has ended, whether its client said so or was just gone.
            context.session._connection.exit_stack.callback(self._forget, received.opened)  # noqa: SLF001  # no other way to it
        return client

    def _lists(self, shape: type[Any]) -> Any:
        async def listing(context: Any, _: Any) -> Any:
            received: _Received = context.request.scope["state"][_STATE]
            self._client(context, received)
            params = _params(received)
            found = await _told(self._methods.listing(received.session, received.method, params, received.tool))
            return shape.model_validate(_plain(found))

        return listing

    def _calls(self, shape: type[Any]) -> Any:
        async def calling(context: Any, _: Any) -> Any:
            received: _Received = context.request.scope["state"][_STATE]
            client = self._client(context, received)
            result = await _told(self._call(context, received, client))
            return shape.model_validate(_plain({name: value for name, value in result.items() if name != "resultType"}))

        return calling

    async def _call(self, context: Any, received: _Received, client: Client) -> dict[str, Any]:
        """Call, and as long as the tool asks for something before it goes on, put that to the client and call again."""
        params, method = _params(received), received.method
        proposal = await self._methods.proposal(received.session, method, params, received.tool, received.came)
        async with client.while_calling(context, params.meta or {}) as caller:
            for _ in range(MAX_INPUT_ROUNDS):
                called = await self._gate.call(received.session, proposal, caller)
                if not isinstance(called, Returned) or called.asks is None:
                    break
                answers = await client.answers(caller, called.asks)
                proposal = msgspec.structs.replace(proposal, answers=answers, state=called.asks.state or "")
            else:
                raise rpc.RpcError(rpc.INTERNAL_ERROR, f"the tool asked {MAX_INPUT_ROUNDS} times and did not go on")
            if isinstance(called, Returned):
                await client.logged(context, called.logs)
        return result_of(method, params, called)

    async def _subscribe(self, context: Any, _: Any) -> types.EmptyResult:
        received: _Received = context.request.scope["state"][_STATE]
        uri = _params(received).uri
        if not await _told(self._methods.subscribable(received.session, uri, received.tool)):
            raise MCPError(_RESOURCE_NOT_FOUND, "there is no such resource in this session", {"uri": uri})
        self._client(context, received).subscribe(uri)
        return types.EmptyResult()

    async def _unsubscribe(self, context: Any, _: Any) -> types.EmptyResult:
        received: _Received = context.request.scope["state"][_STATE]
        self._client(context, received).uris.discard(_params(received).uri)
        return types.EmptyResult()

    async def _set_level(self, context: Any, params: types.SetLevelRequestParams) -> types.EmptyResult:
        received: _Received = context.request.scope["state"][_STATE]
        self._client(context, received).level = params.level
        return types.EmptyResult()


def _params(received: _Received) -> rpc.CallParams:
    if received.params is None:
        # INVARIANT: what the SDK read is never decided on; when the two readings differ, nothing is called.
        raise MCPError(rpc.INVALID_REQUEST, rpc.NOT_ONE_MESSAGE)
    return received.params


async def _told(work: Coroutine[Any, Any, _Result]) -> _Result:
    """What `work` gives; whatever it raises as an error that a client may see."""
    try:
        return await work
    except MCPError:
        raise
    except rpc.RpcError as error:
        raise MCPError(error.code, str(error), error.data) from error
    except StoreUnavailableError as error:
        raise MCPError(rpc.INTERNAL_ERROR, "the control plane cannot answer right now") from error
    except Exception as error:
        raise _defect(error) from error


def _request_in(body: bytes) -> tuple[str, rpc.CallParams | None]:
    """The method and parameters of a request; nothing for what is no request. Raises `RpcError`."""
    try:
        message = rpc.read_envelope(body)
    except rpc.RpcError:
        if rpc.is_answer(body):
            return "", None
        raise
    if message.method not in _READ:
        return message.method, None
    try:
        return message.method, rpc.read_params(message)
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
