"""MCP messages as bytes: what we write, and how strictly we read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from interlock import __version__
from interlock.core.listing import ListedTool
from interlock.tools.errors import CalledLateError, CallFailedError
from interlock.tools.limits import ToolLimits
from interlock.tools.port import Invocation, ToolAnswer

STATELESS: Final = "2026-07-28"
STATEFUL: Final = "2025-11-25"
# Older revisions that a server may counter-offer; for tools they differ in nothing that we use.
ACCEPTED_HANDSHAKES: Final = frozenset({STATEFUL, "2025-06-18", "2025-03-26"})

METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
# Refusals of the message itself: they say nothing about the tool, only that the two ends disagree on the protocol.
PROTOCOL_ERRORS: Final = frozenset({-32700, -32600, -32020, -32021, UNSUPPORTED_VERSION})
# Unknown tool, wrong parameters: what we agreed with the server still holds.
CALL_ERRORS: Final = frozenset({METHOD_NOT_FOUND, -32602})
ERROR_TEXT_MAX_CHARS: Final = 2_000
# True in the `data` of an error: the tool keeps to the fence, the call came after its deadline, and nothing was done.
LATE: Final = "interlock/late"

CLIENT_INFO: Final = {"name": "interlock", "version": __version__}
_ENVELOPE: Final[Mapping[str, Any]] = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class _CallParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    arguments: msgspec.Raw
    meta: Mapping[str, Any] = msgspec.field(name="_meta", default={})


class _Request(msgspec.Struct, kw_only=True):
    jsonrpc: Literal["2.0"] = "2.0"
    id: int
    method: str
    params: Any


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


class Message(msgspec.Struct, kw_only=True):
    """Any JSON-RPC message as read. `id` is absent from notifications and null in errors about unreadable requests."""

    jsonrpc: Literal["2.0"]
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str = ""
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_request(self) -> bool:
        """Whether the server asks something of us, which we never do."""
        return bool(self.method) and self.id is not msgspec.UNSET

    @property
    def is_reply(self) -> bool:
        """Whether this answers a request of ours."""
        return not self.method and self.id is not msgspec.UNSET


class _CallResult(msgspec.Struct, kw_only=True):
    content: tuple[dict[str, Any], ...]
    structured: dict[str, Any] | None = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)
    result_type: str = msgspec.field(name="resultType", default="complete")


class _ListedTool(msgspec.Struct, kw_only=True):
    name: str
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] = msgspec.field(name="inputSchema")
    output_schema: dict[str, Any] | None = msgspec.field(name="outputSchema", default=None)
    annotations: dict[str, Any] | None = None


class _Page(msgspec.Struct, kw_only=True):
    tools: list[_ListedTool]
    cursor: str | None = msgspec.field(name="nextCursor", default=None)


class _Discovered(msgspec.Struct, kw_only=True):
    versions: list[str] = msgspec.field(name="supportedVersions")


class _Initialized(msgspec.Struct, kw_only=True):
    version: str = msgspec.field(name="protocolVersion")


_Shape = TypeVar("_Shape")
_ENCODER: Final = msgspec.json.Encoder()
_MESSAGE: Final = msgspec.json.Decoder(Message)
_CALL_RESULT: Final = msgspec.json.Decoder(_CallResult)


def call(request_id: int, invocation: Invocation, *, version: str) -> bytes:
    """A `tools/call`. INVARIANT: `invocation.arguments` appear in it byte for byte, for they were hashed."""
    meta: dict[str, Any] = dict(invocation.trace_meta)
    if invocation.idempotency_key:
        meta["idempotency-key"] = invocation.idempotency_key
    if invocation.fence is not None:
        meta["interlock/fence"] = invocation.fence()
    if version == STATELESS:
        meta.update(_ENVELOPE)
    params = _CallParams(name=invocation.upstream_name, arguments=msgspec.Raw(invocation.arguments), meta=meta)
    return _ENCODER.encode(_Request(id=request_id, method="tools/call", params=params))


def request(request_id: int, method: str, params: Mapping[str, Any], *, version: str) -> bytes:
    """Any other request, with the per-request envelope where the revision wants one."""
    body = {**params, "_meta": _ENVELOPE} if version == STATELESS else params
    return _ENCODER.encode(_Request(id=request_id, method=method, params=body))


def initialize(request_id: int) -> bytes:
    """The handshake of the stateful revisions; no capability of ours is offered."""
    params = {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": CLIENT_INFO}
    return request(request_id, "initialize", params, version=STATEFUL)


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A message that has no answer."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return _ENCODER.encode(body if params is None else {**body, "params": params})


def refusal(message: Message) -> bytes:
    """Our answer to a server's request: a ping is answered, sampling, elicitation and roots do not exist here."""
    if message.method == "ping":
        return _ENCODER.encode({"jsonrpc": "2.0", "id": message.id, "result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    return _ENCODER.encode({"jsonrpc": "2.0", "id": message.id, "error": error})


def read(data: bytes) -> Message:
    """One JSON-RPC message, or `CallFailedError` (`protocol`)."""
    try:
        return _MESSAGE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CallFailedError("protocol", f"not a JSON-RPC message: {str(error)[:200]}") from None


def read_reply(data: bytes, request_id: int) -> Message:
    """The reply to `request_id`; an error with a null id is taken too, for that is how unreadable requests are refused."""
    message = read(data)
    if not message.is_reply:
        raise CallFailedError("protocol", "the answer is not a JSON-RPC response")
    refused_unread = message.id is None and message.error is not msgspec.UNSET
    if not refused_unread and (type(message.id) is not int or message.id != request_id):
        raise CallFailedError("protocol", "the answer belongs to another request")
    if (message.result is msgspec.UNSET) == (message.error is msgspec.UNSET):
        raise CallFailedError("protocol", "a response holds either a result or an error")
    return message


def error_of(message: Message) -> tuple[int, str]:
    """Code and text of the error in `message`; `(0, "")` when it holds a result."""
    if isinstance(message.error, _Error):
        return message.error.code, message.error.message[:ERROR_TEXT_MAX_CHARS]
    return 0, ""


def read_answer(message: Message) -> ToolAnswer:
    """What the tool said, shape checked. Raises `CallFailedError` (`protocol`) and `CalledLateError`.

    A JSON-RPC error about the method or its parameters is an answer too (`is_error`), so that the model may correct itself.
    """
    if isinstance(message.error, _Error):
        code, text = error_of(message)
        if code in PROTOCOL_ERRORS:
            raise CallFailedError("protocol", f"the server refused the message ({code}): {text[:200]}")
        if isinstance(message.error.data, dict) and message.error.data.get(LATE) is True:
            raise CalledLateError(text[:200])
        shown = text or "The tool answered with an error and no text."
        return ToolAnswer(content=({"type": "text", "text": shown},), is_error=True)
    result = _decoded(_CALL_RESULT, message)
    if result.result_type != "complete":
        raise CallFailedError("protocol", f"the tool wants to go on ({result.result_type[:40]}), which is not supported here")
    if not all(isinstance(block.get("type"), str) for block in result.content):
        raise CallFailedError("protocol", "a content block has no type")
    return ToolAnswer(content=result.content, structured=result.structured, is_error=result.is_error)


def read_page(message: Message) -> tuple[list[ListedTool], str | None]:
    """One page of a listing and the cursor of the next, if any."""
    code, text = error_of(message)
    if code:
        raise CallFailedError("protocol", f"the listing was refused ({code}): {text[:200]}")
    page = _decoded(msgspec.json.Decoder(_Page), message)
    return [_listed(tool) for tool in page.tools], page.cursor


def next_page(found: list[ListedTool], cursor: str | None, seen: set[str], limits: ToolLimits) -> Mapping[str, Any] | None:
    """The parameters that ask for the next page, None after the last one. Raises on listings without end."""
    if len(found) > limits.listing_max_tools:
        raise CallFailedError("too_large", f"more than {limits.listing_max_tools} tools listed")
    if cursor is None:
        return None
    if cursor in seen or len(seen) >= limits.listing_max_pages:
        raise CallFailedError("protocol", "the listing does not end")
    seen.add(cursor)
    return {"cursor": cursor}


def discovered_stateless(message: Message) -> bool:
    """Whether a `server/discover` reply is evidence of the stateless revision; anything else means: shake hands."""
    if not isinstance(message.result, msgspec.Raw):
        return False
    try:
        return STATELESS in msgspec.json.decode(message.result, type=_Discovered).versions
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False


def agreed_version(message: Message) -> str:
    """The revision an `initialize` reply settles on. Raises `CallFailedError` when it is none of ours."""
    code, text = error_of(message)
    if code:
        raise CallFailedError("protocol", f"the handshake was refused ({code}): {text[:200]}")
    version = _decoded(msgspec.json.Decoder(_Initialized), message).version
    if version not in ACCEPTED_HANDSHAKES:
        raise CallFailedError("protocol", f"the server speaks revision {version[:40]!r} only")
    return version


def _listed(tool: _ListedTool) -> ListedTool:
    return ListedTool(
        name=tool.name,
        title=tool.title or "",
        description=tool.description or "",
        input_schema=_ENCODER.encode(tool.input_schema).decode(),
        output_schema=None if tool.output_schema is None else _ENCODER.encode(tool.output_schema).decode(),
        hints=tool.annotations or {},
    )


def _decoded(decoder: msgspec.json.Decoder[_Shape], message: Message) -> _Shape:
    if not isinstance(message.result, msgspec.Raw):
        raise CallFailedError("protocol", "the answer holds no result")
    try:
        return decoder.decode(message.result)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise CallFailedError("protocol", f"the result has another shape: {str(error)[:200]}") from None
