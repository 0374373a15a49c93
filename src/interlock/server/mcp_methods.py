"""The methods of MCP that both revisions share, as operations of the gate: listings, calls, readings, prompts, completions.

At `/mcp` everything a session may use is offered, tools and prompts as `tool.operation`; at `/mcp/TOOL` that tool alone, under
the names that its own server gives, so that a client moves behind Interlock by one URL.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from interlock.core.changes import Changed, Changes
from interlock.core.contract import Kind
from interlock.core.who import Session
from interlock.gateway.messages import NOBODY, Caller, CallResult, Found, Proposal, Refusal, Returned, VisibleOperation
from interlock.gateway.streams import OpenStreams
from interlock.server import envelope as rpc
from interlock.server.limits import MAX_PAGE_ENTRIES
from interlock.store.errors import StoreUnavailableError

CALLS: Final[Mapping[str, Kind]] = {
    "tools/call": Kind.TOOL,
    "resources/read": Kind.RESOURCE,
    "prompts/get": Kind.PROMPT,
    "completion/complete": Kind.COMPLETION,
}
LISTS: Final = frozenset({"tools/list", "resources/list", "resources/templates/list", "prompts/list"})
NAMED: Final[Mapping[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that the header `mcp-name` mirrors."""
_PROTOCOL: Final[Mapping[str, int]] = {"state_unknown": rpc.INVALID_PARAMS, "header_mismatch": rpc.HEADER_MISMATCH}
"""Refusals that speak of the message, and not of the call."""


class Gate(Protocol):
    """What the ways in need of the gate."""

    changes: Changes
    streams: OpenStreams

    async def call(self, session: Session, proposal: Proposal, caller: Caller = NOBODY) -> CallResult:
        """Decide and, if it may be, execute once."""
        ...

    async def visible(self, session: Session) -> tuple[VisibleOperation, ...]:
        """What the session may use."""
        ...

    async def find(self, session: Session, kind: Kind, name: str, tool: str | None = None) -> Found | None:
        """The operation behind a name or URI of a server."""
        ...


class Methods:
    """For one gate. Results are without `resultType` and caching hints, which only the newest revision has."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def listing(self, session: Session, method: str, params: rpc.CallParams, tool: str | None) -> dict[str, Any]:
        """One page of a listing. Raises `RpcError`."""
        try:
            shown = await self._gate.visible(session)
        except StoreUnavailableError as error:
            raise rpc.RpcError(rpc.INTERNAL_ERROR, "the control plane cannot answer right now") from error
        own = [item for item in shown if tool is None or item.tool == tool]
        match method:
            case "tools/list":
                return _page("tools", [_tool(item, tool) for item in own if item.kind is Kind.TOOL], params.cursor)
            case "prompts/list":
                return _page("prompts", [_prompt(item, tool) for item in own if item.kind is Kind.PROMPT], params.cursor)
            case "resources/list":
                plain = [item for item in own if item.kind is Kind.RESOURCE and "{" not in item.upstream_name]
                return _page("resources", [_resource(item, "uri") for item in plain], params.cursor)
            case _:
                templates = [item for item in own if item.kind is Kind.RESOURCE and "{" in item.upstream_name]
                return _page("resourceTemplates", [_resource(item, "uriTemplate") for item in templates], params.cursor)

    async def proposal(
        self, session: Session, method: str, params: rpc.CallParams, tool: str | None, came: rpc.Came
    ) -> Proposal:
        """The proposal in a request that makes a call. Raises `RpcError`."""
        kind = CALLS[method]
        if kind is Kind.TOOL and tool is None:
            return rpc.proposal_of(params, came, kind)
        name, arguments = _named(params, kind, tool)
        if kind is Kind.PROMPT and tool is None:
            found: Found | None = Found(operation=name)
        else:
            try:
                found = await self._gate.find(session, kind, name, tool)
            except StoreUnavailableError as error:
                raise rpc.RpcError(rpc.INTERNAL_ERROR, "the control plane cannot answer right now") from error
        if found is None:
            # The gate is asked all the same: that somebody tried is on record.
            found = Found(operation=f"{tool or '?'}.{name}"[: rpc.MAX_NAME_CHARS])
        raw = found.arguments if kind is Kind.RESOURCE else arguments
        changed = msgspec.structs.replace(params, name=found.operation, arguments=msgspec.Raw(raw))
        return rpc.proposal_of(changed, came, kind)

    async def may_hear(self, session: Session, changed: Changed, tool: str | None) -> bool:
        """Whether a session may still be told of a change: it has not ended, and it may use what has changed.

        What cannot be known is no.
        """
        try:
            return await self.holds(session) and (not changed.uri or await self.subscribable(session, changed.uri, tool))
        except StoreUnavailableError:
            return False

    async def holds(self, session: Session) -> bool:
        """Whether a session still may use anything, asked afresh. What cannot be known is no."""
        try:
            return await self._gate.streams.stands(session) and bool(await self._gate.visible(session))
        except StoreUnavailableError:
            return False

    async def subscribable(self, session: Session, uri: str, tool: str | None) -> bool:
        """Whether a session may read a resource, and so be told when it changes."""
        found = await self._gate.find(session, Kind.RESOURCE, uri, tool)
        return found is not None and any(item.operation == found.operation for item in await self._gate.visible(session))


def result_of(method: str, params: rpc.CallParams, result: CallResult) -> dict[str, Any]:
    """The MCP result of a call of any kind. Raises `RpcError` for what only an error can say."""
    if isinstance(result, Returned) and result.asks is not None:
        return _input_required(result)
    if isinstance(result, Refusal) and result.code in _PROTOCOL:
        raise rpc.RpcError(_PROTOCOL[result.code], result.text, {"interlock/decision": result.meta()})
    if isinstance(result, Returned) and result.needs:
        needed: dict[str, Any] = {"requiredCapabilities": {name: {} for name in result.needs}}
        raise rpc.RpcError(rpc.NEEDS_CAPABILITY, _text(result), needed)
    kind = CALLS[method]
    answered = params.answers is not msgspec.UNSET or params.state != ""
    if kind is Kind.TOOL and not (answered and isinstance(result, Returned) and result.error_code):
        return rpc.call_result(result)
    about: dict[str, Any] = {"uri": params.uri} if kind is Kind.RESOURCE else {}
    if isinstance(result, Refusal):
        raise rpc.RpcError(rpc.INVALID_PARAMS, result.text, {**about, "interlock/decision": result.meta()})
    if result.is_error or result.structured is None:
        raise rpc.RpcError(rpc.INVALID_PARAMS, _text(result) or "the server gave no result", {**about, **result.meta})
    return {"resultType": "complete", **result.structured, "_meta": dict(result.meta)}


def _input_required(result: Returned) -> dict[str, Any]:
    assert result.asks is not None  # noqa: S101  # the caller looked
    found: dict[str, Any] = {"resultType": "input_required", "_meta": dict(result.meta)}
    found |= {"inputRequests": result.asks.requests} if result.asks.requests else {}
    return found | ({} if result.asks.state is None else {"requestState": result.asks.state})


def _text(result: Returned) -> str:
    return " ".join(text for block in result.content if isinstance(text := block.get("text"), str))


def _named(params: rpc.CallParams, kind: Kind, tool: str | None) -> tuple[str, bytes]:
    """What a request names, and the bytes of its arguments. Raises `RpcError`."""
    if kind is Kind.RESOURCE:
        name, arguments = params.uri, b"{}"
    elif kind is Kind.COMPLETION:
        name, arguments = _completed(params, tool)
    else:
        name, arguments = params.name, bytes(params.arguments)
    if not name:
        raise rpc.RpcError(rpc.INVALID_PARAMS, f"{'uri' if kind is Kind.RESOURCE else 'name'} is missing")
    return name, arguments


def _completed(params: rpc.CallParams, tool: str | None) -> tuple[str, bytes]:
    of = params.ref or {}
    named = of.get("name") if of.get("type") == "ref/prompt" else of.get("uri")
    if not isinstance(named, str):
        raise rpc.RpcError(rpc.INVALID_PARAMS, "ref names a prompt or a resource")
    if of.get("type") == "ref/prompt" and tool is None:
        # Here prompts are called as their operations are.
        named = f"@{named}"
    context = b"" if params.context is msgspec.UNSET else b',"context":' + bytes(params.context)
    return named, b'{"argument":' + bytes(params.argument) + context + b"}"


def _tool(operation: VisibleOperation, tool: str | None) -> dict[str, Any]:
    found = rpc.listed_tool(operation)
    return found if tool is None else {**found, "name": operation.upstream_name}


def _prompt(operation: VisibleOperation, tool: str | None) -> dict[str, Any]:
    schema = msgspec.json.decode(operation.input_schema)
    required = schema.get("required", ())
    arguments = [
        {"name": name, "required": name in required, **_said(inside, "title", "description")}
        for name, inside in schema.get("properties", {}).items()
    ]
    found: dict[str, Any] = {"name": operation.operation if tool is None else operation.upstream_name}
    found |= {"title": operation.title} if operation.title else {}
    found["description"] = operation.description
    return found | ({"arguments": arguments} if arguments else {})


def _said(inside: Any, *names: str) -> dict[str, str]:
    return {name: inside[name] for name in names if isinstance(inside, dict) and isinstance(inside.get(name), str)}


def _resource(operation: VisibleOperation, key: str) -> dict[str, Any]:
    found = {key: operation.upstream_name, "name": operation.operation, "description": operation.description}
    found |= {"title": operation.title} if operation.title else {}
    return found | ({"mimeType": operation.mime_type} if operation.mime_type else {})


def _page(name: str, entries: Sequence[Mapping[str, Any]], cursor: str | None) -> dict[str, Any]:
    """A page of a listing. The cursor is a place in it: what comes or goes meanwhile may be met twice, or not at all."""
    start = 0 if cursor is None else _place(cursor)
    page: dict[str, Any] = {name: entries[start : start + MAX_PAGE_ENTRIES]}
    if start + MAX_PAGE_ENTRIES < len(entries):
        page["nextCursor"] = base64.urlsafe_b64encode(f"from:{start + MAX_PAGE_ENTRIES}".encode()).decode()
    return page


def _place(cursor: str) -> int:
    try:
        word, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
    except (binascii.Error, ValueError):
        word, number = "", ""
    if word != "from" or not (number.isascii() and number.isdigit()) or len(number) > 9:  # noqa: PLR2004  # no listing is as long
        raise rpc.RpcError(rpc.INVALID_PARAMS, "this cursor is none of ours; list from the beginning")
    return int(number)
