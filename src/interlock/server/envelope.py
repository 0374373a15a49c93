"""JSON-RPC and MCP messages as bytes. Arguments are never parsed here: the gate gets the bytes that came."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.trace_context import TRACEPARENT, first_traced
from interlock.gateway.limits import MAX_APPROVAL_WAIT_MS
from interlock.gateway.messages import CallResult, Proposal, Refusal, Returned, VisibleOperation

STATELESS: Final = "2026-07-28"
HANDSHAKES: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
NEEDS_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
MAX_NAME_CHARS: Final = 2_200
HTTP_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    NEEDS_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
    INTERNAL_ERROR: 500,
}
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
WAIT_MS: Final = "interlock/wait-ms"
IDEMPOTENCY_KEY: Final = "interlock/idempotency-key"
REPEAT_OF: Final = "interlock/repeat-of"
RUN: Final = "interlock/run"
PLAN: Final = "interlock/plan"
LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
NOT_ONE_MESSAGE: Final = "the body must be one JSON-RPC request or notification"


class Envelope(msgspec.Struct, kw_only=True):
    """A JSON-RPC request or notification; `params` stay raw."""

    jsonrpc: str
    method: str
    id: int | str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Answer(msgspec.Struct, kw_only=True):
    """What a client answers to a request of the server. `method` is there to be absent."""

    jsonrpc: str
    id: int | str
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class CallParams(msgspec.Struct, kw_only=True):
    """Parameters of any method; `arguments` are the bytes as they came."""

    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    uri: str = ""
    ref: dict[str, Any] | None = None
    argument: msgspec.Raw = msgspec.Raw(b"null")
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    cursor: str | None = None
    answers: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="inputResponses", default=msgspec.UNSET)
    state: str = msgspec.field(name="requestState", default="")
    notifications: dict[str, Any] = {}
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """What HTTP headers say beside a call: its key, the revision, the caller's span, arguments again (`Proposal.mirrored`).

    `waited_s` is how long ago the first byte of the request was here.
    """

    key: str | None = None
    version: str = ""
    traceparent: str | None = None
    waited_s: float = 0.0
    mirrored: Mapping[str, str | None] | None = None


class RpcError(Exception):  # a JSON-RPC answer, not a defect
    """The message is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.request_id: int | str | None = None


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_PARAMS: Final = msgspec.json.Decoder(CallParams)
_ANSWER: Final = msgspec.json.Decoder(Answer)
_PARAM: Final = b"mcp-param-"
_ENCODER: Final = msgspec.json.Encoder()


def read_envelope(body: bytes) -> Envelope:
    """One request or notification. Raises `RpcError`: batches and answers are no requests."""
    try:
        envelope = _ENVELOPE.decode(body)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_REQUEST, NOT_ONE_MESSAGE) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, "the body is not valid JSON") from error
    if envelope.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"')
    return envelope


def is_answer(body: bytes) -> bool:
    """Whether a body is a client's answer to a request of the server: it has a result or an error, and no method."""
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    has_one = (answer.result is msgspec.UNSET) != (answer.error is msgspec.UNSET)
    return answer.jsonrpc == "2.0" and answer.method is msgspec.UNSET and has_one


def read_params(envelope: Envelope) -> CallParams:
    """The parameters. Raises `RpcError`."""
    try:
        return _PARAMS.decode(envelope.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID_PARAMS, "the parameters are not of the method's form") from error


def proposal_of(params: CallParams, came: Came, kind: Kind = Kind.TOOL) -> Proposal:
    """The proposal in a request that makes a call. Raises `RpcError` when keys are not texts.

    The `traceparent` in `_meta` goes before the header, as OpenTelemetry's conventions for MCP say.
    """
    key_header = came.key
    meta = params.meta or {}
    key = meta.get(IDEMPOTENCY_KEY, key_header or "")
    if key_header and key != key_header:
        raise RpcError(INVALID_PARAMS, f"the header idempotency-key and {IDEMPOTENCY_KEY} differ; send one of them")
    repeat_of, run = meta.get(REPEAT_OF, ""), meta.get(RUN, "")
    if not isinstance(key, str) or not isinstance(repeat_of, str) or not isinstance(run, str):
        raise RpcError(INVALID_PARAMS, f"{IDEMPOTENCY_KEY}, {REPEAT_OF} and {RUN} are texts")
    wait_ms = meta.get(WAIT_MS, 0)
    if not isinstance(wait_ms, int) or isinstance(wait_ms, bool) or wait_ms < 0:
        raise RpcError(INVALID_PARAMS, f"{WAIT_MS} is a number of milliseconds")
    plan = meta.get(PLAN)
    if not isinstance(plan, dict | None):
        raise RpcError(INVALID_PARAMS, f"{PLAN} is an object: the plan as it is given to POST /v1/plans")
    if not params.name:
        raise RpcError(INVALID_PARAMS, "name is missing")
    answers = b"" if params.answers is msgspec.UNSET else bytes(params.answers)
    if answers and not answers.startswith(b"{"):
        raise RpcError(INVALID_PARAMS, "inputResponses is an object: an answer for each request")
    return Proposal(
        operation=params.name,
        arguments=bytes(params.arguments),
        idempotency_key=key,
        repeat_of=repeat_of,
        wait_ms=min(wait_ms, MAX_APPROVAL_WAIT_MS),
        run=run,
        plan=b"" if plan is None else _ENCODER.encode(plan),
        way=f"mcp {came.version}",
        trace=first_traced(meta.get(TRACEPARENT), came.traceparent),
        waited_s=came.waited_s,
        kind=kind,
        answers=answers,
        state=params.state,
        mirrored=came.mirrored,
    )


def call_result(result: CallResult) -> dict[str, Any]:
    """The MCP result of a call: a refusal is a tool error that the model can read, on every revision."""
    match result:
        case Refusal():
            return {
                "resultType": "complete",
                "content": [{"type": "text", "text": result.text}],
                "isError": True,
                "_meta": {"interlock/decision": result.meta()},
            }
        case Returned():
            found: dict[str, Any] = {
                "resultType": "complete",
                "content": list(result.content),
                "isError": result.is_error,
                "_meta": dict(result.meta),
            }
            if result.structured is not None:
                found["structuredContent"] = result.structured
            return found


def listed_tool(operation: VisibleOperation) -> dict[str, Any]:
    """One entry of `tools/list`."""
    found: dict[str, Any] = {
        "name": operation.operation,
        "description": operation.description,
        "inputSchema": msgspec.Raw(operation.input_schema.encode()),
        "annotations": {
            "readOnlyHint": operation.read_only,
            "destructiveHint": operation.destructive,
            "idempotentHint": operation.idempotent,
            "openWorldHint": operation.open_world,
        },
    }
    if operation.title:
        found["title"] = operation.title
    if operation.output_schema is not None:
        found["outputSchema"] = msgspec.Raw(operation.output_schema.encode())
    return found


def success(request_id: int | str, result: Mapping[str, Any]) -> bytes:
    """A JSON-RPC answer."""
    return _ENCODER.encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def failure(request_id: int | str | None, error: RpcError) -> bytes:
    """A JSON-RPC error."""
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        body["data"] = error.data
    return _ENCODER.encode({"jsonrpc": "2.0", "id": request_id, "error": body})


def decoded_header(value: str | None) -> str | None:
    """A mirrored header value, read as MCP writes it: plain, or `=?base64?...?=`. None when it cannot be read."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    coded = value[9:-2]
    try:
        data = base64.b64decode(coded, validate=True)
        # Only the canonical form: another spelling of the same bytes is read differently by somebody.
        return data.decode("utf-8") if base64.b64encode(data).decode("ascii") == coded else None
    except (binascii.Error, ValueError):
        return None


def mirrored_arguments(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str | None]:
    """The headers `mcp-param-*` by what follows; None for one that cannot be read, or stands twice."""
    found: dict[str, str | None] = {}
    for name, value in headers:
        if name.startswith(_PARAM):
            token = name[len(_PARAM) :].decode("latin-1")
            found[token] = None if token in found else decoded_header(value.decode("latin-1"))
    return found


def unexpected() -> RpcError:
    """What a client is told when something broke here. A call may have been claimed before it did."""
    return RpcError(
        INTERNAL_ERROR, "an unexpected error; whether a call took effect is in its trace, so look before repeating it"
    )
