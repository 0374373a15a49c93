"""MCP messages as bytes: what we write, and how strictly we read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar, assert_never

import msgspec

from interlock import __version__
from interlock.core.contract import Kind
from interlock.core.uris import expand
from interlock.tools.errors import AnswerNotKeptError, CalledLateError, CallFailedError
from interlock.tools.limits import DEFAULT_LIMITS, ToolLimits
from interlock.tools.port import Asks, Invocation, ToolAnswer

STATELESS: Final = "2026-07-28"
STATEFUL: Final = "2025-11-25"
# Older revisions that a server may counter-offer; for tools they differ in nothing that we use.
ACCEPTED_HANDSHAKES: Final = frozenset({STATEFUL, "2025-06-18", "2025-03-26"})

METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
# Refusals of the message itself: they say nothing about the tool, only that the two ends disagree on the protocol.
PROTOCOL_ERRORS: Final = frozenset({-32700, -32600, -32020, UNSUPPORTED_VERSION})
NEEDS_CAPABILITY: Final = -32021
RESOURCE_NOT_FOUND: Final = -32002
# Unknown tool, wrong parameters, something that the caller does not offer: what we agreed with the server still holds.
CALL_ERRORS: Final = frozenset({METHOD_NOT_FOUND, -32602, NEEDS_CAPABILITY, RESOURCE_NOT_FOUND})
METHODS: Final[Mapping[Kind, str]] = {
    Kind.TOOL: "tools/call",
    Kind.RESOURCE: "resources/read",
    Kind.PROMPT: "prompts/get",
    Kind.COMPLETION: "completion/complete",
}
ERROR_TEXT_MAX_CHARS: Final = 2_000
# True in the `data` of an error: the tool keeps to the fence, the call came after its deadline, and nothing was done.
LATE: Final = "interlock/late"

LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
CLIENT_INFO: Final = {"name": "interlock", "version": __version__}
_ENVELOPE: Final[Mapping[str, Any]] = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}


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
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
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
    content: tuple[dict[str, Any], ...] | msgspec.UnsetType = msgspec.UNSET
    result_type: str = msgspec.field(name="resultType", default="complete")
    structured: dict[str, Any] | None = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)


class _Kindless(msgspec.Struct, kw_only=True):
    """What tells an answer from a request for input."""

    result_type: str = msgspec.field(name="resultType", default="complete")
    requests: dict[str, dict[str, Any]] = msgspec.field(name="inputRequests", default={})
    state: str | None = msgspec.field(name="requestState", default=None)


class _ReadResult(msgspec.Struct, kw_only=True):
    contents: tuple[dict[str, Any], ...]


class _PromptResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    messages: tuple[dict[str, Any], ...]
    description: str = ""


class _Completion(msgspec.Struct, kw_only=True, omit_defaults=True):
    values: tuple[str, ...]
    total: int | None = None
    more: bool | None = msgspec.field(name="hasMore", default=None)


class _CompleteResult(msgspec.Struct, kw_only=True):
    completion: _Completion


class _Discovered(msgspec.Struct, kw_only=True):
    versions: list[str] = msgspec.field(name="supportedVersions")


class _Declaring(msgspec.Struct, kw_only=True):
    capabilities: dict[str, Any] = {}


class _Initialized(msgspec.Struct, kw_only=True):
    version: str = msgspec.field(name="protocolVersion")


_Shape = TypeVar("_Shape")
_ENCODER: Final = msgspec.json.Encoder()
_MESSAGE: Final = msgspec.json.Decoder(Message)
_CALL_RESULT: Final = msgspec.json.Decoder(_CallResult)
_KINDLESS: Final = msgspec.json.Decoder(_Kindless)
_READ_RESULT: Final = msgspec.json.Decoder(_ReadResult)
_PROMPT_RESULT: Final = msgspec.json.Decoder(_PromptResult)
_COMPLETE_RESULT: Final = msgspec.json.Decoder(_CompleteResult)


def call(request_id: int, invocation: Invocation, *, version: str) -> bytes:
    """The request that makes a call. INVARIANT: `invocation.arguments` appear in it byte for byte, for they were hashed.

    Of a resource they make its URI, by a template that was hashed with the release.
    """
    line = invocation.line
    meta: dict[str, Any] = dict(invocation.trace_meta)
    if invocation.idempotency_key:
        meta["idempotency-key"] = invocation.idempotency_key
    if invocation.fence is not None:
        meta["interlock/fence"] = invocation.fence()
    if line.progress is not None:
        meta["progressToken"] = request_id
    if version == STATELESS:
        meta.update(_ENVELOPE)
        if line.offers:
            meta["io.modelcontextprotocol/clientCapabilities"] = {name: {} for name in sorted(line.offers)}
        if line.log_level is not None:
            meta[LOG_LEVEL] = line.log_level
    params: dict[str, Any] = {"_meta": meta, **invocation.more}
    match invocation.kind:
        case Kind.TOOL | Kind.PROMPT:
            params |= {"name": invocation.upstream_name, "arguments": msgspec.Raw(invocation.arguments)}
        case Kind.RESOURCE:
            params["uri"] = uri_of(invocation)
        case Kind.COMPLETION:
            params |= msgspec.json.decode(invocation.arguments, type=dict[str, msgspec.Raw])
            named = "name" if invocation.completes is Kind.PROMPT else "uri"
            params["ref"] = {"type": f"ref/{invocation.completes or ''}", named: invocation.upstream_name}
    return _ENCODER.encode(_Request(id=request_id, method=METHODS[invocation.kind], params=params))


def uri_of(invocation: Invocation) -> str:
    """The URI of the resource that is read."""
    return expand(invocation.upstream_name, msgspec.json.decode(invocation.arguments, type=dict[str, str]))


def name_of(invocation: Invocation) -> str | None:
    """What the header `Mcp-Name` says of a call (2026-07-28); None where there is none."""
    if invocation.kind is Kind.COMPLETION:
        return None
    return uri_of(invocation) if invocation.kind is Kind.RESOURCE else invocation.upstream_name


def request(request_id: int, method: str, params: Mapping[str, Any], *, version: str) -> bytes:
    """Any other request, with the per-request envelope where the revision wants one."""
    body = {**params, "_meta": _ENVELOPE} if version == STATELESS else params
    return _ENCODER.encode(_Request(id=request_id, method=method, params=body))


def initialize(request_id: int, offers: frozenset[str] = frozenset()) -> bytes:
    """The handshake of the stateful revisions. `offers` are what some contract of the tool lets it ask of a caller."""
    capabilities: dict[str, Any] = {name: {} for name in sorted(offers)}
    params = {"protocolVersion": STATEFUL, "capabilities": capabilities, "clientInfo": CLIENT_INFO}
    return request(request_id, "initialize", params, version=STATEFUL)


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A message that has no answer."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return _ENCODER.encode(body if params is None else {**body, "params": params})


def refusal(message: Message) -> bytes:
    """Our answer to a server's request that goes no further: a ping is answered, everything else does not exist here."""
    if message.method == "ping":
        return answer(message, {})
    error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    return _ENCODER.encode({"jsonrpc": "2.0", "id": message.id, "error": error})


def answer(message: Message, result: Mapping[str, Any]) -> bytes:
    """The answer to a request of the server."""
    return _ENCODER.encode({"jsonrpc": "2.0", "id": message.id, "result": result})


def declined(message: Message, why: str) -> bytes:
    """The answer to a request of the server that was not passed on, or not answered."""
    return _ENCODER.encode({"jsonrpc": "2.0", "id": message.id, "error": {"code": -32600, "message": why}})


def params_of(message: Message) -> dict[str, Any]:
    """The parameters of a message of the server. Raises `CallFailedError` (`protocol`) when they are no object."""
    if message.params is msgspec.UNSET:
        return {}
    try:
        return msgspec.json.decode(message.params, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise CallFailedError("protocol", "the parameters of a message are no object") from None


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


def check_not_kept(error: AnswerNotKeptError, request_id: int) -> None:
    """The same check of an answer of which nothing was kept but what it says at its top."""
    refused_unread = error.request_id is None and error.is_error
    if not refused_unread and (type(error.request_id) is not int or error.request_id != request_id):
        raise CallFailedError("protocol", "the answer belongs to another request")


def error_of(message: Message) -> tuple[int, str]:
    """Code and text of the error in `message`; `(0, "")` when it holds a result."""
    if isinstance(message.error, _Error):
        return message.error.code, message.error.message[:ERROR_TEXT_MAX_CHARS]
    return 0, ""


def read_answer(message: Message, kind: Kind = Kind.TOOL, limits: ToolLimits = DEFAULT_LIMITS) -> ToolAnswer:
    """What the tool said, shape checked. Raises `CallFailedError` (`protocol`) and `CalledLateError`.

    A JSON-RPC error about the method or its parameters is an answer too (`is_error`), so that the model may correct itself.
    """
    if isinstance(message.error, _Error):
        return _read_error(message.error)
    if kind is Kind.TOOL:
        result = decoded(_CALL_RESULT, message)
        if result.result_type == "complete":
            return _tool_answer(result)
    found = decoded(_KINDLESS, message)
    if found.result_type == "input_required":
        too_large = len(found.requests) > limits.asks_max or len(found.state or "") > limits.state_max_bytes
        if too_large or not (found.requests or found.state):
            raise CallFailedError("protocol", "the tool asks for nothing, or for too much at once")
        return ToolAnswer(asks=Asks(requests=found.requests, state=found.state))
    if found.result_type != "complete":
        raise CallFailedError("protocol", f"the tool wants to go on ({found.result_type[:40]}), which is not supported here")
    match kind:
        case Kind.TOOL:
            raise AssertionError  # its complete results were read above
        case Kind.RESOURCE:
            read = decoded(_READ_RESULT, message)
            if not all(isinstance(item.get("text", item.get("blob")), str) for item in read.contents):
                raise CallFailedError("protocol", "a content of a resource is neither text nor blob")
            return ToolAnswer(structured={"contents": list(read.contents)})
        case Kind.PROMPT:
            prompt = decoded(_PROMPT_RESULT, message)
            _check_blocks(tuple(_block(item) for item in prompt.messages))
            return ToolAnswer(structured=msgspec.to_builtins(prompt))
        case Kind.COMPLETION:
            return ToolAnswer(structured=msgspec.to_builtins(decoded(_COMPLETE_RESULT, message)))
        case _:
            assert_never(kind)


def _tool_answer(result: _CallResult) -> ToolAnswer:
    if result.content is msgspec.UNSET:
        raise CallFailedError("protocol", "the result has no content")
    _check_blocks(result.content)
    return ToolAnswer(content=result.content, structured=result.structured, is_error=result.is_error)


def _block(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    if message.get("role") not in {"user", "assistant"} or not isinstance(content, dict):
        raise CallFailedError("protocol", "a message of a prompt has no role or no content")
    return content


def _check_blocks(blocks: tuple[Mapping[str, Any], ...]) -> None:
    if not all(isinstance(block.get("type"), str) for block in blocks):
        raise CallFailedError("protocol", "a content block has no type")


def _read_error(error: _Error) -> ToolAnswer:
    code, text = error.code, error.message[:ERROR_TEXT_MAX_CHARS]
    if code in PROTOCOL_ERRORS:
        raise CallFailedError("protocol", f"the server refused the message ({code}): {text[:200]}")
    data = error.data if isinstance(error.data, dict) else {}
    if data.get(LATE) is True:
        raise CalledLateError(text[:200])
    needs = data.get("requiredCapabilities") if code == NEEDS_CAPABILITY else None
    return ToolAnswer(
        content=({"type": "text", "text": text or "The tool answered with an error and no text."},),
        is_error=True,
        error_code=code,
        needs=tuple(sorted(needs)) if isinstance(needs, dict) else (),
    )


def discovered_stateless(message: Message) -> bool:
    """Whether a `server/discover` reply is evidence of the stateless revision; anything else means: shake hands."""
    if not isinstance(message.result, msgspec.Raw):
        return False
    try:
        return STATELESS in msgspec.json.decode(message.result, type=_Discovered).versions
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False


def declared(message: Message) -> frozenset[str]:
    """What a server says in its first answer that it has (`prompts`, `resources`); nothing where that cannot be read."""
    if not isinstance(message.result, msgspec.Raw):
        return frozenset()
    try:
        return frozenset(msgspec.json.decode(message.result, type=_Declaring).capabilities)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return frozenset()


def agreed_version(message: Message) -> str:
    """The revision an `initialize` reply settles on. Raises `CallFailedError` when it is none of ours."""
    code, text = error_of(message)
    if code:
        raise CallFailedError("protocol", f"the handshake was refused ({code}): {text[:200]}")
    version = decoded(msgspec.json.Decoder(_Initialized), message).version
    if version not in ACCEPTED_HANDSHAKES:
        raise CallFailedError("protocol", f"the server speaks revision {version[:40]!r} only")
    return version


def decoded(decoder: msgspec.json.Decoder[_Shape], message: Message) -> _Shape:
    """The result of a reply. Raises `CallFailedError` (`protocol`) when it has another shape."""
    if not isinstance(message.result, msgspec.Raw):
        raise CallFailedError("protocol", "the answer holds no result")
    try:
        return decoder.decode(message.result)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise CallFailedError("protocol", f"the result has another shape: {str(error)[:200]}") from None
