"""MCP revision 2026-07-28: every request stands alone. This is the hot path, so it is plain ASGI and msgspec."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from interlock import __version__
from interlock.core.who import Session
from interlock.gateway.messages import NOBODY, Caller, CallResult, Returned
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
from interlock.server.http import LINE, OpenLine, waited_s
from interlock.server.limits import MAX_BODY_BYTES
from interlock.server.listening import LISTEN, Listening
from interlock.server.mcp_methods import CALLS, LISTS, NAMED, Gate, Methods, result_of
from interlock.server.streaming import LEVELS, Answering, at_least, notification, wants_events

__all__ = ["Gate", "StatelessMcp"]

_log = logging.getLogger(__name__)
_PRIVATE: Final = {"cacheScope": "private", "ttlMs": 0}
_CACHEABLE: Final = LISTS | {"resources/read"}
_ACCEPTED: Final = 202
_TOO_LARGE: Final = 413
_DEFECT: Final = 500
_WRONG_METHOD: Final = 405
_WRONG_TYPE: Final = 415
_OFFERED: Final = ("sampling", "elicitation", "roots")
_CHANGES: Final = {"listChanged": True}
CAPABILITIES: Final[Mapping[str, Any]] = {
    "tools": _CHANGES,
    "resources": {**_CHANGES, "subscribe": True},
    "prompts": _CHANGES,
    "completions": {},
    "logging": {},
}


class StatelessMcp:
    """Answers one POST. The session was established before; this handler knows nothing of tokens."""

    def __init__(self, gate: Gate, listening: Listening) -> None:
        self._gate = gate
        self._methods = Methods(gate)
        self._listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send, session: Session, tool: str | None = None) -> None:
        """Serve one request, of one `tool` alone when that is given. Never raises for what a client sends."""
        if scope["method"] != "POST":
            await answer_problem(send, _WRONG_METHOD, "this endpoint takes POST", (b"allow", b"POST"))
            return
        if not (header(scope, b"content-type") or "").lower().startswith("application/json"):
            await answer_problem(send, _WRONG_TYPE, "send application/json")
            return
        request_id: int | str | None = None
        answering = Answering(send, may_stream=wants_events(scope))
        try:
            body = await read_body(scope, receive, max_bytes=MAX_BODY_BYTES)
            message = rpc.read_envelope(body)
            if not isinstance(message.id, (int, str)):
                # Whatever a notification names, nothing is done: this revision has none that a server acts on.
                _check_version(header(scope, b"mcp-protocol-version"))
                await answer(send, _ACCEPTED, b"", headers=())
                return
            request_id = message.id
            params = rpc.read_params(message)
            _check_headers(scope, message, params)
            if message.method == LISTEN:
                await self._listening.serve(scope, receive, send, session, request_id, params, tool)
                return
            result = await self._result(scope, receive, session, message, params, tool, answering)
            text = rpc.success(request_id, result)
        except DisconnectedError:
            return
        except BodyTooLargeError:
            await answer_problem(send, _TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
            return
        except rpc.RpcError as error:
            await answering.end(rpc.failure(request_id, error), rpc.HTTP_STATUS.get(error.code, 200))
            return
        except Exception:  # noqa: BLE001  # whatever breaks in here, the client gets an error it can read and the operator a traceback
            _log.exception("an MCP request failed", extra={"event": "mcp.failed"})
            await answering.end(rpc.failure(request_id, rpc.unexpected()), _DEFECT)
            return
        await answering.end(text)

    async def _result(
        self,
        scope: Scope,
        receive: Receive,
        session: Session,
        message: rpc.Envelope,
        params: rpc.CallParams,
        tool: str | None,
        answering: Answering,
    ) -> dict[str, Any]:
        method = message.method
        if method in CALLS:
            came = rpc.Came(
                key=header(scope, b"idempotency-key"),
                version=rpc.STATELESS,
                traceparent=header(scope, b"traceparent"),
                waited_s=waited_s(scope),
                mirrored=rpc.mirrored_arguments(scope["headers"]) if method == "tools/call" else None,
            )
            proposal = await self._methods.proposal(session, method, params, tool, came)
            caller, told = _caller(params, answering), params.meta or {}
            if caller is NOBODY:
                called = await _while_connected(self._gate.call(session, proposal), scope[LINE])
            else:
                called = await answering.until(self._gate.call(session, proposal, caller), receive)
            if isinstance(called, Returned):
                for entry in called.logs:
                    if at_least(entry.get("level"), str(told.get(rpc.LOG_LEVEL))):
                        answering.tell(notification("notifications/message", entry))
            found = result_of(method, params, called)
        elif method in LISTS:
            found = {"resultType": "complete", **await self._methods.listing(session, method, params, tool)}
        elif method == "server/discover":
            server = {"name": "interlock", "version": __version__}
            return {
                "resultType": "complete",
                "supportedVersions": [rpc.STATELESS],
                "capabilities": CAPABILITIES,
                "serverInfo": server,
                "_meta": {"io.modelcontextprotocol/serverInfo": server},
                **_PRIVATE,
            }
        else:
            raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "this method is not offered here")
        cacheable = method in _CACHEABLE and found["resultType"] == "complete"
        return {**found, **_PRIVATE} if cacheable else found


def _caller(params: rpc.CallParams, answering: Answering) -> Caller:
    """What this client can do while its call is under way. What a tool asks it is told in the answer (MRTR)."""
    meta = params.meta or {}
    capabilities, token, level = meta.get(rpc.CAPABILITIES_KEY), meta.get("progressToken"), meta.get(rpc.LOG_LEVEL)
    offers = frozenset(name for name in _OFFERED if isinstance(capabilities, dict) and isinstance(capabilities.get(name), dict))
    has_token = isinstance(token, int | str) and not isinstance(token, bool)
    if not offers and not has_token and level not in LEVELS:
        return NOBODY

    def progress(done: float, total: float | None) -> None:
        reached = {"progress": done} if total is None else {"progress": done, "total": total}
        answering.tell(notification("notifications/progress", {"progressToken": token, **reached}))

    return Caller(offers=offers, progress=progress if has_token else None, log_level=str(level) if level in LEVELS else None)


async def _while_connected(call: Coroutine[Any, Any, CallResult], line: OpenLine) -> CallResult:
    """Wait for the gate as long as the client does. When it leaves, the gate is told; a claimed call settles all the same.

    Raises `DisconnectedError`. The task of the request itself waits for the gate, and the connection cancels it: a task for the
    call and one that listens would cost as much as reading the request.
    """
    waiting = asyncio.current_task()
    assert waiting is not None  # noqa: S101  # requests are served by tasks
    line.tell_when_gone(waiting.cancel)
    try:
        return await call
    except asyncio.CancelledError:
        # Whoever else ends this request means it.
        if line.is_gone and not waiting.uncancel():
            raise DisconnectedError from None
        raise
    finally:
        line.tell_when_gone(None)


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
    mirrored = NAMED.get(message.method)
    if mirrored is not None and rpc.decoded_header(header(scope, b"mcp-name")) != getattr(params, mirrored):
        raise rpc.RpcError(rpc.HEADER_MISMATCH, "the header mcp-name does not match the request")
    _check_version(version)
