"""Calls that are over, made into spans. Done in the sender's thread, so that a call costs no more than its stages.

Names and attributes follow OpenTelemetry's conventions for MCP and for GenAI's `execute_tool`, where these have one.
Never an argument, an output or a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, assert_never

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from interlock import __version__
from interlock.core.contract import Kind
from interlock.core.trace_context import TraceContext
from interlock.gateway.telemetry import Stage
from interlock.telemetry.calls import NO_OPERATION, KeptPath

_SCOPE: Final = InstrumentationScope("interlock", __version__)
_MCP: Final = "mcp"
_METHODS: Final[Mapping[Kind, str]] = {
    Kind.TOOL: "tools/call",
    Kind.RESOURCE: "resources/read",
    Kind.PROMPT: "prompts/get",
    Kind.COMPLETION: "completion/complete",
}
_RELEASED: Final = frozenset({"returned", "tool_error", "replayed", "asks"})
_FAILED: Final = Status(StatusCode.ERROR)
_FINE: Final = Status(StatusCode.UNSET)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def spans_of(kept: KeptPath, resource: Resource, new_span_id: Callable[[], str]) -> Iterator[ReadableSpan]:
    """The span of a call, then those of its stages; the last is the release to the caller, if there was one."""
    path, call = kept.path, kept.call
    if path.here is None:
        return
    zero_ns = kept.ended_us * 1000 - int(kept.ended_s * 1e9)

    def span(
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[float, float],
        attributes: dict[str, str],
    ) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=resource,
            attributes=attributes,
            kind=kind,
            status=_FAILED if "error.type" in attributes else _FINE,
            start_time=zero_ns + int(times[0] * 1e9),
            end_time=zero_ns + int(times[1] * 1e9),
            instrumentation_scope=_SCOPE,
        )

    here = _context(path.here)
    came = None if path.came is None else _context(path.came, remote=True)
    name, attributes = _of_call(kept)
    began_s = min(path.began_s, path.stages[0].began_s) if path.stages else path.began_s
    yield span(name, SpanKind.SERVER, here, came, (began_s, kept.ended_s), attributes)
    for stage in path.stages:
        times = (stage.began_s, stage.ended_s)
        if stage.operation:
            name, attributes = _of_tool(stage)
            context = _context(stage.sent) if stage.sent is not None else _child(path.here, new_span_id())
            yield span(name, SpanKind.CLIENT, context, here, times, attributes)
        else:
            yield span(f"interlock {stage.name}", SpanKind.INTERNAL, _child(path.here, new_span_id()), here, times, {})
    if call.outcome in _RELEASED and path.stages:
        times = (path.stages[-1].ended_s, kept.ended_s)
        yield span("interlock release", SpanKind.INTERNAL, _child(path.here, new_span_id()), here, times, {})


def _of_call(kept: KeptPath) -> tuple[str, dict[str, str]]:
    call = kept.call
    operation = call.operation or NO_OPERATION
    attributes = {
        **_named(call.kind, operation),
        "gen_ai.agent.name": call.agent,
        "interlock.call.id": call.call_id,
        "interlock.session.id": call.session_id,
        "interlock.task": call.task,
        "interlock.outcome": call.outcome,
    }
    if call.outcome not in {"returned", "replayed", "asks"}:
        attributes["error.type"] = call.code or call.outcome
    way, _, version = call.way.partition(" ")
    if way != _MCP:
        del attributes["mcp.method.name"]
        return f"execute_tool {operation}", attributes
    if version:
        attributes["mcp.protocol.version"] = version
    return f"{_METHODS[call.kind]} {operation}", attributes


def _of_tool(stage: Stage) -> tuple[str, dict[str, str]]:
    attributes = _named(stage.kind, stage.operation)
    if stage.failed:
        attributes["error.type"] = stage.failed
    return f"{_METHODS[stage.kind]} {stage.operation}", attributes


def _named(kind: Kind, operation: str) -> dict[str, str]:
    """What is called, as the conventions for its kind name it; a resource's URI is nobody's label."""
    method = {"mcp.method.name": _METHODS[kind]}
    match kind:
        case Kind.TOOL:
            return {**method, "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": operation}
        case Kind.PROMPT | Kind.COMPLETION:
            return {**method, "gen_ai.prompt.name": operation}
        case Kind.RESOURCE:
            return {**method, "interlock.operation": operation}
        case _:
            assert_never(kind)


def _child(parent: TraceContext, span_id: str) -> SpanContext:
    return SpanContext(int(parent.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


def _context(known: TraceContext, *, remote: bool = False) -> SpanContext:
    flags = TraceFlags(int(known.sampled))
    return SpanContext(int(known.trace_id, 16), int(known.span_id, 16), is_remote=remote, trace_flags=flags)
