"""Implements the gate's `Telemetry`: tallies at once, spans and lines somewhere else and later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from interlock.core.ports import Clock
from interlock.core.trace_context import TraceContext
from interlock.gateway.messages import Proposal
from interlock.gateway.telemetry import EndedCall, Path, Stage
from interlock.telemetry.catalogue import SECONDS
from interlock.telemetry.tallies import Count, Labels, Spread

CALLS_LOGGER: Final = "interlock.calls"
NO_OPERATION: Final = "none"
_SPAN_ID_BYTES: Final = 8
_TRACE_ID_BYTES: Final = 16
_log = logging.getLogger(CALLS_LOGGER)


class KeptPath(msgspec.Struct, frozen=True):
    """A call that is over, to be made into spans: `ended_us` on the wall, `ended_s` on the clock of its stages."""

    path: Path
    call: EndedCall
    ended_s: float
    ended_us: int


class Spans(Protocol):
    """Where calls go that are to become spans."""

    def samples(self, came: TraceContext | None, trace_id: str) -> bool:
        """Whether the spans of a trace are kept."""
        ...

    def offer(self, kept: KeptPath) -> None:
        """Take a call, or drop it and count. Never waits."""
        ...

    @property
    def waiting(self) -> int:
        """Calls that are not sent yet."""
        ...

    def results(self) -> dict[str, int]:
        """Spans by what became of them."""
        ...


class Lines(Protocol):
    """Where log lines go."""

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        ...

    @property
    def dropped(self) -> int:
        """Lines that were given up."""
        ...


class CallTelemetry:
    """Everything happens on the event loop of the gate. `entropy` gives that many random bytes."""

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._entropy = entropy
        self.spans: Spans | None = None
        self.lines: Lines | None = None
        self.logs_calls = False
        self.in_flight = 0
        self.calls = Count()
        self.call_seconds = Spread(SECONDS)
        self.stage_seconds = Spread(SECONDS)
        self.tool_seconds = Spread(SECONDS)

    def began(self, call_id: str, proposal: Proposal) -> Path:
        """A call has come in; it goes on in the caller's trace, or begins one."""
        self.in_flight += 1
        now_s = self._clock.monotonic_s()
        came, waited_s = proposal.trace, proposal.waited_s
        here = None if self.spans is None else self._span(self.spans, came)
        path = Path(call_id, came, now_s, here, self._span_id)
        if waited_s > 0:
            path.stages.append(Stage("receive", now_s - waited_s, now_s))
        return path

    def ended(self, path: Path, call: EndedCall) -> None:
        """A call has ended."""
        self.in_flight -= 1
        now_s = self._clock.monotonic_s()
        operation = call.operation or NO_OPERATION
        self.calls.add((operation, call.outcome, call.code))
        self.call_seconds.add(operation, now_s - path.began_s)
        add = self.stage_seconds.add
        for stage in path.stages:
            took_s = stage.ended_s - stage.began_s
            add(stage.name, took_s)
            if stage.operation:
                self.tool_seconds.add(stage.operation, took_s)
        if self.spans is not None and path.here is not None and path.here.sampled:
            self.spans.offer(KeptPath(path, call, now_s, self._clock.wall_us()))
        if self.logs_calls:
            _log.info(
                "%s: %s",
                operation,
                call.code or call.outcome,
                extra={
                    "event": "call.ended",
                    "call_id": call.call_id,
                    "trace_id": path.trace_id,
                    "session_id": call.session_id,
                    "agent": call.agent,
                    "operation": operation,
                    "outcome": call.outcome,
                    "code": call.code,
                    "took_ms": round((now_s - path.began_s) * 1000, 3),
                },
            )

    def waiting(self) -> dict[str, float]:
        """How long the queues are that lead out of the process, by name; only those that there are."""
        found: dict[str, float] = {}
        if self.spans is not None:
            found["spans"] = self.spans.waiting
        if self.lines is not None:
            found["logs"] = self.lines.waiting
        return found

    def sent(self) -> dict[Labels, float]:
        """Spans by what became of them."""
        return {} if self.spans is None else {(result,): number for result, number in self.spans.results().items()}

    def lines_dropped(self) -> float:
        """Log lines that were given up."""
        return 0 if self.lines is None else self.lines.dropped

    def _span(self, spans: Spans, came: TraceContext | None) -> TraceContext:
        """The call's own span."""
        trace_id = self._entropy(_TRACE_ID_BYTES).hex() if came is None else came.trace_id
        return TraceContext(trace_id=trace_id, span_id=self._span_id(), sampled=spans.samples(came, trace_id))

    def _span_id(self) -> str:
        return self._entropy(_SPAN_ID_BYTES).hex()
