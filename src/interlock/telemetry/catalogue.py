"""Every metric there is: its name, its labels and what it says. `docs/reference/metrics.md` is rendered from here.

Labels are few and come from the release or from code: never a user, a session, or what a caller made up.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Kind(StrEnum):
    """What a metric is, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `shared` ones are read from the database, so every process says the same; ask one, or take the maximum."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()
    shared: bool = False


def _counter(name: str, says: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, says=says, labels=labels)


def _gauge(name: str, says: str, *labels: str, shared: bool = False) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, says=says, labels=labels, shared=shared)


def _histogram(name: str, says: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, says=says, labels=labels)


CALLS: Final = _counter(
    "interlock_calls_total",
    "Calls that have ended, by what the caller was told; `code` is that of a refusal. A call of no known operation has `none`.",
    "operation",
    "outcome",
    "code",
)
IN_FLIGHT: Final = _gauge(
    "interlock_calls_in_flight", "Calls inside the gate now, those that wait for people or tools included."
)
CALL_SECONDS: Final = _histogram(
    "interlock_call_duration_seconds", "A call from the gate's door and back, by operation.", "operation"
)
STAGE_SECONDS: Final = _histogram(
    "interlock_stage_duration_seconds",
    "A stage of a call: `receive` (first byte to the gate), `decide`, `claim`, `invoke` (the tool), `settle`, `record`.",
    "stage",
)
TOOL_SECONDS: Final = _histogram(
    "interlock_tool_duration_seconds", "A tool's answer, reads of the gate's own included, by operation.", "operation"
)
QUEUE: Final = _gauge(
    "interlock_queue_length",
    "What waits in this process: `writer` (for the next commit), `risk` (to be weighed), `spans` (to be sent), `logs`.",
    "queue",
)
LEASE_LEFT: Final = _gauge("interlock_lease_seconds_left", "How long this process may still start calls; 0 without a lease.")
BREAKERS: Final = _gauge(
    "interlock_breakers", "Operations of this process by the phase of their breaker: `closed`, `open`, `trying`.", "phase"
)
POOL: Final = _gauge("interlock_database_connections", "Connections of this process's pool: `idle`, `in_use`, `most`.", "state")
DATABASE_UP: Final = _gauge(
    "interlock_database_up", "1 when the figures read from the database are of now, 0 when it did not answer in time."
)
PROCESSES: Final = _gauge("interlock_processes", "Processes that are alive.", shared=True)
STOPPED: Final = _gauge("interlock_stopped_scopes", "Scopes that are stopped: kills and quarantines.", shared=True)
APPROVALS: Final = _gauge("interlock_approvals_waiting", "Requests that wait for a person's answer.", shared=True)
DOUBTS: Final = _gauge("interlock_doubts_open", "Calls whose end is not known.", shared=True)
UNSETTLED: Final = _gauge("interlock_claims_unsettled", "Claims that are made and not settled.", shared=True)
BUDGET: Final = _gauge(
    "interlock_budget_used_ratio",
    "Of each budget of which somebody has used half, how much the one who used most has, calls in flight included; 1 is all.",
    "budget",
    shared=True,
)
BUILD: Final = _gauge("interlock_build_info", "Always 1; which version this process runs.", "version")
RELEASE: Final = _gauge("interlock_release_info", "Always 1; which release this process decides by.", "digest", "name")
TOKENS: Final = _counter("interlock_tokens_refused_total", "Tokens and proofs that were refused, by reason.", "code")
SPANS: Final = _counter(
    "interlock_spans_total",
    "Spans by what became of them: `exported`, `dropped` (the queue was full), `failed` (the collector did not take them).",
    "result",
)
LOGS_DROPPED: Final = _counter(
    "interlock_log_lines_dropped_total", "Lines that were not written, for nobody took them in time."
)

ALL: Final = (
    CALLS,
    IN_FLIGHT,
    CALL_SECONDS,
    STAGE_SECONDS,
    TOOL_SECONDS,
    QUEUE,
    LEASE_LEFT,
    BREAKERS,
    POOL,
    DATABASE_UP,
    PROCESSES,
    STOPPED,
    APPROVALS,
    DOUBTS,
    UNSETTLED,
    BUDGET,
    BUILD,
    RELEASE,
    TOKENS,
    SPANS,
    LOGS_DROPPED,
)
