"""MCP revision 2026-07-28: every request stands alone. This is the hot path, so it is plain ASGI and msgspec."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from interlock import __version__
from interlock.core.who import Session
from interlock.gateway.messages import CallResult, Proposal, VisibleOperation
from interlock.server import envelope as rpc
from interlock.server.asgi import (
    BodyTooLargeError,
    DisconnectedError,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    header,
    read_body,
)
from interlock.server.limits import MAX_BODY_BYTES
from interlock.store.errors import StoreUnavailableError

_log = logging.getLogger(__name__)
_PRIVATE: Final = {"cacheScope": "private", "ttlMs": 0}
_ACCEPTED: Final = 202
_TOO_LARGE: Final = 413
_DEFECT: Final = 500
_WRONG_METHOD: Final = 405
_WRONG_TYPE: Final = 415


class Gate(Protocol):
    """What the ways in need of the gate."""

    async def call(self, session: Session, proposal: Proposal) -> CallResult:
        """Decide and, if it may be, execute once."""
        ...

    async def visible(self, session: Session) -> tuple[VisibleOperation, ...]:
        """What the session may use."""
        ...


class StatelessMcp:
    """Answers one POST. The session was established before; this handler knows nothing of tokens."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send, session: Session) -> None:
        """Serve one request. Never raises for what a client sends."""
        if scope["method"] != "POST":
            await answer_problem(send, _WRONG_METHOD, "this endpoint takes POST", (b"allow", b"POST"))
            return
        if not (header(scope, b"content-type") or "").lower().startswith("application/json"):
            await answer_problem(send, _WRONG_TYPE, "send application/json")
            return
        request_id: int | str | None = None
        try:
            body = await read_body(receive, max_bytes=MAX_BODY_BYTES)
            message = rpc.read_envelope(body)
            if not isinstance(message.id, (int, str)):
                # Whatever a notification names, nothing is done: this revision has none that a server acts on.
                _check_version(header(scope, b"mcp-protocol-version"))
                await answer(send, _ACCEPTED, b"", headers=())
                return
            request_id = message.id
            params = rpc.read_params(message)
            _check_headers(scope, message, params)
            text = rpc.success(request_id, await self._result(scope, receive, session, message, params))
        except DisconnectedError:
            return
        except BodyTooLargeError:
            await answer_problem(send, _TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
            return
        except rpc.RpcError as error:
            await answer(send, rpc.HTTP_STATUS.get(error.code, 200), rpc.failure(request_id, error))
            return
        except Exception:  # noqa: BLE001  # whatever breaks in here, the client gets an error it can read and the operator a traceback
            _log.exception("an MCP request failed", extra={"event": "mcp.failed"})
            await answer(send, _DEFECT, rpc.failure(request_id, rpc.unexpected()))
            return
        await answer(send, 200, text)

    async def _result(
        self, scope: Scope, receive: Receive, session: Session, message: rpc.Envelope, params: rpc.CallParams
    ) -> dict[str, Any]:
        match message.method:
            case "tools/call":
                key, traceparent = header(scope, b"idempotency-key"), header(scope, b"traceparent")
                proposal = rpc.proposal_of(params, key, version=rpc.STATELESS, traceparent=traceparent)
                return rpc.call_result(await _while_connected(self._gate.call(session, proposal), receive))
            case "tools/list":
                try:
                    tools = [rpc.listed_tool(operation) for operation in await self._gate.visible(session)]
                except StoreUnavailableError as error:
                    raise rpc.RpcError(rpc.INTERNAL_ERROR, "the control plane cannot answer right now") from error
                return {"resultType": "complete", "tools": tools, **_PRIVATE}
            case "server/discover":
                return {
                    "resultType": "complete",
                    "supportedVersions": [rpc.STATELESS],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "interlock", "version": __version__},
                    **_PRIVATE,
                }
            case _:
                raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "this method is not offered here")


async def _while_connected(call: Any, receive: Receive) -> CallResult:
    """Wait for the gate as long as the client does. When it leaves, the gate is told; a claimed call settles all the same."""
    working: asyncio.Task[CallResult] = asyncio.ensure_future(call)
    listening = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise DisconnectedError
    finally:
        listening.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _check_version(version: Any) -> None:
    """Refuse revisions that this handler does not speak. Raises `RpcError`."""
    if version != rpc.STATELESS:
        data = {"supported": [rpc.STATELESS], "requested": str(version)}
        raise rpc.RpcError(rpc.UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _check_headers(scope: Scope, message: rpc.Envelope, params: rpc.CallParams) -> None:
    """What intermediaries read in the headers must be what we read in the body. Raises `RpcError`."""
    meta = params.meta or {}
    missing = [key for key in (rpc.VERSION_KEY, rpc.CAPABILITIES_KEY) if key not in meta]
    if missing:
        raise rpc.RpcError(rpc.INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}")
    version = meta[rpc.VERSION_KEY]
    if header(scope, b"mcp-protocol-version") != version:
        raise rpc.RpcError(rpc.HEADER_MISMATCH, "the header mcp-protocol-version does not match the request")
    if header(scope, b"mcp-method") != message.method:
        raise rpc.RpcError(rpc.HEADER_MISMATCH, "the header mcp-method does not match the request")
    if message.method == "tools/call" and rpc.decoded_header(header(scope, b"mcp-name")) != params.name:
        raise rpc.RpcError(rpc.HEADER_MISMATCH, "the header mcp-name does not match the request")
    _check_version(version)
