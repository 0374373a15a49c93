"""Sends spans and metrics to an OTLP collector from a thread of its own. Whatever the collector does, only this thread waits.

Heavy imports: only where a collector is named. INVARIANT: `offer` and `send` never wait, and what does not fit is counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from interlock import __version__
from interlock.core.trace_context import TraceContext
from interlock.telemetry.calls import KeptPath
from interlock.telemetry.figures import Figures
from interlock.telemetry.otlp_metrics import metrics_data
from interlock.telemetry.settings import Otlp
from interlock.telemetry.spans import spans_of

_log = logging.getLogger(__name__)

MAX_CALLS_QUEUED: Final = 2_048
MAX_CALLS_AT_ONCE: Final = 128
CLOSE_S: Final = 3.0


class Sender:
    """Implements `calls.Spans`. Runs from its making until `close`; a daemon, so that it can never hold a process up."""

    def __init__(self, otlp: Otlp, *, process_id: str, entropy: Callable[[int], bytes], variables: Mapping[str, str]) -> None:
        self._otlp = otlp
        self._entropy = entropy
        self._resource = resource_of(process_id, variables)
        self._calls: deque[KeptPath] = deque()
        self._metrics: Figures | None = None
        self._wake = threading.Event()
        self._closing = False
        self.exported = 0
        self.dropped = 0
        self.failed = 0
        self._spans = OTLPSpanExporter()
        self._points = OTLPMetricExporter()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls that are not sent yet."""
        return len(self._calls)

    def results(self) -> dict[str, int]:
        """Spans by what became of them."""
        return {"exported": self.exported, "dropped": self.dropped, "failed": self.failed}

    def samples(self, came: TraceContext | None, trace_id: str) -> bool:
        """Whether the spans of a trace are kept."""
        return self._otlp.spans and self._otlp.sampler(came, trace_id)

    def offer(self, kept: KeptPath) -> None:
        """Take a call, or drop it and count its spans."""
        if len(self._calls) >= MAX_CALLS_QUEUED:
            self.dropped += len(kept.path.stages) + 1
            return
        self._calls.append(kept)
        if len(self._calls) == MAX_CALLS_AT_ONCE:
            self._wake.set()

    def send(self, figures: Figures) -> None:
        """Send these figures with the next round, in place of those that are still waiting."""
        self._metrics = figures
        self._wake.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what is left for as long as this, and leave. Blocks: call it from a thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            # Interrupts its waits between attempts; what it sends just now ends by the exporter's own time limit.
            self._spans.shutdown()  # type: ignore[no-untyped-call]  # the library does not say
            self._points.shutdown()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._otlp.span_pause_s)
            self._wake.clear()
            closing = self._closing
            self._round()
            if closing:
                return

    def _round(self) -> None:
        self._send_figures()
        while self._calls:
            self._export([self._calls.popleft() for _ in range(min(len(self._calls), MAX_CALLS_AT_ONCE))])
            # Calls may come faster than a slow collector takes them: figures do not wait until there are none.
            self._send_figures()

    def _send_figures(self) -> None:
        figures, self._metrics = self._metrics, None
        if figures is None:
            return
        try:
            if self._points.export(metrics_data(figures, self._resource)) is not MetricExportResult.SUCCESS:
                _log.warning("the collector did not take the metrics", extra={"event": "telemetry.not_taken"})
        except Exception:  # noqa: BLE001  # an exporter's defect costs these figures and nothing else
            _log.exception("the metrics could not be sent", extra={"event": "telemetry.not_sent"})

    def _export(self, calls: list[KeptPath]) -> None:
        made: list[ReadableSpan] = []
        try:
            for kept in calls:
                made += spans_of(kept, self._resource, self._span_id)
            taken = self._spans.export(made) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001  # an exporter's defect costs these spans and nothing else
            _log.exception("spans could not be sent", extra={"event": "telemetry.not_sent"})
            taken = False
        if taken:
            self.exported += len(made)
        else:
            self.failed += len(made)

    def _span_id(self) -> str:
        return self._entropy(8).hex()


def resource_of(process_id: str, variables: Mapping[str, str]) -> Resource:
    """Who sends: this service, version and process, and what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say."""
    attributes: dict[str, str | int] = {
        "service.version": __version__,
        "service.instance.id": process_id,
        "process.pid": os.getpid(),
    }
    if not variables.get("OTEL_SERVICE_NAME") and "service.name=" not in variables.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = "interlock"
    return Resource.create({**attributes})
