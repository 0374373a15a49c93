"""What goes into the gate and what comes out, independent of any protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from interlock.core.contract import Kind
from interlock.core.trace_context import TraceContext


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What a way in can do for a call while it is under way, beside waiting for its result.

    `offers` are the capabilities of the client that a tool may use (`sampling`, `elicitation`, `roots`). `ask` puts a request
    of the tool to the client and gives its result, None when there is none; without it, what a tool asks comes back as the
    answer, and the caller's answers come with another proposal. `progress` takes done and total. `log_level` is from which
    level on log messages are wanted, None for none.
    """

    offers: frozenset[str] = frozenset()
    ask: Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]] | None = None
    progress: Callable[[float, float | None], None] | None = None
    log_level: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool wants to know before it goes on: requests by key, and its own state, which comes back with the answers."""

    requests: Mapping[str, Mapping[str, Any]] = {}
    state: str | None = None


NOBODY = Caller()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the model proposes it. `arguments` are the raw JSON bytes as received, not yet trusted in any way.

    `wait_ms` is how long the caller would rather wait for a person's answer than be told to come back (at most a minute).
    `run` names the request that the call belongs to, for the budgets per run; the session's own run when empty. `plan` is a
    plan (JSON text) that is to be sealed before the call, if it is not; empty when the caller brings none. `way` is how it
    came, `trace` the caller's span, and `waited_s` how long ago its first byte was here: for telemetry alone. `kind` is what
    the operation must be, None when the caller does not care. `answers` (JSON text) and `state` answer what the tool asked
    before. `mirrored` are headers that repeat arguments (`core.mirrored.mismatch`), None where the protocol has none.
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
    waited_s: float = 0.0
    kind: Kind | None = None
    answers: bytes = b""
    state: str = ""
    mirrored: Mapping[str, str | None] | None = None


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
    """The tool's answer after obligations, already committed to the ledger. `meta` carries labels, ready for MCP `_meta`.

    With `asks` there is no answer yet. `logs` are log messages that came before it. `error_code` is that of a tool's JSON-RPC
    error, `needs` the capabilities that it wants of the client.
    """

    call_id: str
    content: tuple[Mapping[str, object], ...]
    structured: Mapping[str, object] | None
    is_error: bool
    meta: Mapping[str, object] = {}
    asks: Asked | None = None
    logs: tuple[Mapping[str, object], ...] = ()
    error_code: int = 0
    needs: tuple[str, ...] = ()


CallResult: TypeAlias = Returned | Refusal


class VisibleOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as one session may see it; schemas are JSON text, the output schema as it will be after obligations.

    `upstream_name` is what its server calls it: a name, a URI or a URI template. `completes` is what a completion is for.
    """

    operation: str
    title: str
    description: str
    input_schema: str
    output_schema: str | None
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    kind: Kind = Kind.TOOL
    tool: str = ""
    upstream_name: str = ""
    mime_type: str = ""
    completes: Kind | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The operation behind a name or URI of a server, and the arguments (JSON text) that a URI holds."""

    operation: str
    arguments: bytes = b"{}"
