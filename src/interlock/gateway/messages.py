"""What goes into the gate and what comes out, independent of any protocol."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from interlock.core.trace_context import TraceContext


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the model proposes it. `arguments` are the raw JSON bytes as received, not yet trusted in any way.

    `wait_ms` is how long the caller would rather wait for a person's answer than be told to come back (at most a minute).
    `run` names the request that the call belongs to, for the budgets per run; the session's own run when empty. `plan` is a
    plan (JSON text) that is to be sealed before the call, if it is not; empty when the caller brings none. `way` is how it came
    and `trace` the caller's span, both for telemetry alone.
    """

    operation: str
    arguments: bytes
    idempotency_key: str = ""
    repeat_of: str = ""
    wait_ms: int = 0
    run: str = ""
    plan: bytes = b""
    way: str = ""
    trace: TraceContext | None = None


class RefusalOutcome(StrEnum):
    """What kind of no it is (DESIGN section 4, denials)."""

    DENIED = "denied"
    NEEDS_APPROVAL = "needs_approval"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"
    IN_DOUBT = "in_doubt"
    HALTED = "halted"


class Effected(StrEnum):
    """What the caller may believe happened to the world."""

    NONE = "none"
    DONE = "done"
    UNKNOWN = "unknown"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why the call returned no result. `text` is written for a model to recover from; `retry` says what may be tried.

    `retry`: `never`, `changed_args`, `same_args_after_approval`, or `after_ms` (then `retry_after_ms` is set).
    """

    call_id: str
    outcome: RefusalOutcome
    code: str
    text: str
    field: str = ""
    effect: Effected = Effected.NONE
    retry: str = "never"
    retry_after_ms: int = 0
    details: Mapping[str, object] = {}

    def meta(self) -> dict[str, object]:
        """The value of `_meta["interlock/decision"]`."""
        found: dict[str, object] = {
            "id": self.call_id,
            "outcome": self.outcome.value,
            "code": self.code,
            "effect": self.effect.value,
            "retry": self.retry,
        }
        if self.field:
            found["field"] = self.field
        if self.retry == "after_ms":
            found["after_ms"] = self.retry_after_ms
        return found | dict(self.details)


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """The tool's answer after obligations, already committed to the ledger. `meta` carries labels, ready for MCP `_meta`."""

    call_id: str
    content: tuple[Mapping[str, object], ...]
    structured: Mapping[str, object] | None
    is_error: bool
    meta: Mapping[str, object] = {}


CallResult: TypeAlias = Returned | Refusal


class VisibleOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as one session may see it; schemas are JSON text, the output schema as it will be after obligations."""

    operation: str
    title: str
    description: str
    input_schema: str
    output_schema: str | None
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
