"""What the gate tells of its calls: when each began, which stages it passed and how it ended. Nothing waits for it.

INVARIANT: nothing is decided by what stands here, and whatever becomes of it, a call goes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Final, Protocol

import msgspec

from interlock.core.claim import ClaimAnswer, ClaimRequest, RecordAnswer, RecordRequest, SettleAnswer, SettleRequest
from interlock.core.contract import Kind
from interlock.core.ports import Clock
from interlock.core.trace_context import TraceContext
from interlock.gateway.messages import Proposal
from interlock.gateway.ports import ClaimDesk

MAX_STAGES: Final = 64
NOT_TRACED: Final[Mapping[str, str]] = {}


class Stage(msgspec.Struct, frozen=True):
    """A stage that a call has passed: `receive`, `decide`, `claim`, `invoke`, `settle`, `record`. On the clock of the gate.

    `sent` is the span that the tool was told of, `operation` the one that was invoked, which may be a read of the gate's own;
    `failed` is why the tool gave no answer, or `tool_error` when it answered with an error.
    """

    name: str
    began_s: float
    ended_s: float
    operation: str = ""
    sent: TraceContext | None = None
    failed: str = ""
    kind: Kind = Kind.TOOL


class Path:
    """One call on its way. `here` is its own span when traces are kept, `came` the caller's when it said a valid one."""

    __slots__ = ("_span_ids", "began_s", "call_id", "came", "here", "stages")

    def __init__(
        self,
        call_id: str,
        came: TraceContext | None,
        began_s: float,
        here: TraceContext | None = None,
        span_ids: Callable[[], str] = str,
    ) -> None:
        self.call_id = call_id
        self.came = came
        self.here = here
        self.began_s = began_s
        self.stages: list[Stage] = []
        self._span_ids = span_ids

    @property
    def trace_id(self) -> str:
        """The trace it belongs to, empty when there is none."""
        known = self.here or self.came
        return "" if known is None else known.trace_id

    def handing_on(self) -> TraceContext | None:
        """What the tool is told: a new span of ours; the caller's own when no traces are kept here; None when there is none."""
        if self.here is None:
            return self.came
        return TraceContext(trace_id=self.here.trace_id, span_id=self._span_ids(), sampled=self.here.sampled)


class EndedCall(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. `operation` is one of the release's, or empty: never what a caller made up.

    `outcome`: `returned`, `asks` (the tool asks back), `tool_error`, `replayed`, `abandoned`, or that of the refusal, whose
    `code` it then has.
    """

    call_id: str
    session_id: str
    agent: str
    task: str
    way: str
    operation: str
    kind: Kind
    outcome: str
    code: str


class Telemetry(Protocol):
    """Keeps what it is told, somewhere else and later. Neither method waits or raises."""

    def began(self, call_id: str, proposal: Proposal) -> Path:
        """A call has come in."""
        ...

    def ended(self, path: Path, call: EndedCall) -> None:
        """It has ended."""
        ...


class Untold:
    """Keeps nothing, and only hands the caller's trace on to the tool."""

    def began(self, call_id: str, proposal: Proposal) -> Path:
        """A path that nobody looks at."""
        return Path(call_id, proposal.trace, 0.0)

    def ended(self, path: Path, call: EndedCall) -> None:
        """Nothing."""


_following: ContextVar[Path | None] = ContextVar("interlock_path", default=None)


def follow(path: Path) -> None:
    """From here on, what this task does is done for this call."""
    _following.set(path)


def followed() -> Path | None:
    """The call that this task works for, if any."""
    return _following.get()


def passed(
    name: str,
    began_s: float,
    ended_s: float,
    *,
    operation: str = "",
    sent: TraceContext | None = None,
    failed: str = "",
    kind: Kind = Kind.TOOL,
) -> None:
    """A stage of the call at hand has ended."""
    path = _following.get()
    if path is not None and len(path.stages) < MAX_STAGES:
        path.stages.append(Stage(name, began_s, ended_s, operation, sent, failed, kind))


class TimedDesk:
    """A `ClaimDesk` that says how long each commit took, to whichever call it was for."""

    def __init__(self, desk: ClaimDesk, clock: Clock) -> None:
        self._desk = desk
        self._now_s = clock.monotonic_s

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """As the desk's own."""
        began_s = self._now_s()
        try:
            return await self._desk.claim(request)
        finally:
            passed("claim", began_s, self._now_s())

    async def record(self, request: RecordRequest) -> RecordAnswer:
        """As the desk's own."""
        began_s = self._now_s()
        try:
            return await self._desk.record(request)
        finally:
            passed("record", began_s, self._now_s())

    async def settle(self, request: SettleRequest) -> SettleAnswer:
        """As the desk's own."""
        began_s = self._now_s()
        try:
            return await self._desk.settle(request)
        finally:
            passed("settle", began_s, self._now_s())
