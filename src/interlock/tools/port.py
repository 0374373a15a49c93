"""The one small port behind which every kind of tool stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from interlock.core.changes import Listing
from interlock.core.contract import Kind
from interlock.core.listing import ListedTool


class ConnectionKey(msgspec.Struct, frozen=True, kw_only=True):
    """Who shares an upstream connection. For a stateless tool tenant, user and agent are empty."""

    tool: str
    tenant: str = ""
    user: str = ""
    agent: str = ""
    credential: str = ""


class PauseGuard(Protocol):
    """Stands between the last check and the first write: a process that is paused in between does not go on to write."""

    def arm(self) -> None:
        """From here on, a pause that outlasts the lease ends this process."""
        ...

    def disarm(self) -> None:
        """The write has been handed to the kernel, or will not happen."""
        ...


class StartGuard(PauseGuard, Protocol):
    """A `PauseGuard` that control changes wait for as well: none is acknowledged between the check and the start it allowed.

    `enter`, `begin` and `leave` are for what starts within the process, which no timer may kill for being slow. Leaving twice
    is harmless.
    """

    def begin(self) -> None:
        """After `arm`: what was to start takes its first step now, and may take its time; `leave` when it has."""
        ...

    def enter(self) -> None:
        """From here on no control change is acknowledged."""
        ...

    def leave(self) -> None:
        """What was to start has started, or will not."""
        ...


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool needs to refuse a call that comes too late.

    `epoch` is the control epoch it was sent under, `deadline_ms` the Unix time in milliseconds after which its sender had no
    right to send it. Passed in `_meta` under `interlock/fence`, to functions in process by `interlock.tools.fence`.
    """

    epoch: int
    deadline_ms: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What may come and go between a tool and its caller while a call is under way.

    `offers` names what the tool may ask of the caller (`sampling`, `elicitation`, `roots`). `ask` is given the method and the
    parameters of such a request and returns the caller's result; it raises `AskRefusedError`. `progress` takes numbers only.
    `log_level` is from which level on the tool's log messages are collected, None for none of them.
    """

    offers: frozenset[str] = frozenset()
    ask: Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]] | None = None
    progress: Callable[[float, float | None], None] | None = None
    log_level: str | None = None


class AskRefusedError(Exception):
    """What a tool asked of its caller is not passed on, or was not answered; the message is for the tool."""


class Asks(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool wants to know before it goes on (2026-07-28): requests by key, and its own opaque state."""

    requests: Mapping[str, Mapping[str, Any]] = {}
    state: str | None = None


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One call to one tool. `arguments` are the canonical bytes that were hashed; they are sent as they are.

    `before_first_byte` is called where the first byte of this call is about to be written, after connect and TLS; when it
    raises, nothing may be sent. `idempotency_key` is the tool's own, passed in `_meta` under `idempotency-key`, empty when
    it has none. `fence` is asked when the message is written. `more` are the members `inputResponses` and `requestState` of a
    call that answers what its tool asked for.
    """

    key: ConnectionKey
    upstream_name: str
    arguments: bytes
    timeout_ms: int
    before_first_byte: Callable[[], None]
    idempotency_key: str = ""
    trace_meta: Mapping[str, str] = {}
    pause_guard: StartGuard | None = None
    fence: Callable[[], Fence] | None = None
    kind: Kind = Kind.TOOL
    completes: Kind | None = None
    line: Line = Line()
    more: Mapping[str, Any] = {}


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool said. `content` holds MCP content blocks as plain dicts; `structured` is its structured content, if any.

    Of a resource, prompt or completion `structured` is the result as MCP has it. `logs` are log messages (level, logger, data)
    that came before; `asks` is set when there is no answer yet. `error_code` is that of a JSON-RPC error, `needs` what the tool
    wants of the caller and was not offered. `not_kept_bytes` is how long an answer was that is too long to keep, `unreadable`
    why one is not JSON: then all that is known of it is `is_error`.
    """

    content: tuple[Mapping[str, object], ...] = ()
    structured: Mapping[str, object] | None = None
    is_error: bool = False
    logs: tuple[Mapping[str, object], ...] = ()
    asks: Asks | None = None
    error_code: int = 0
    needs: tuple[str, ...] = ()
    not_kept_bytes: int = 0
    unreadable: str = ""


class ToolFailure(msgspec.Struct, frozen=True, kw_only=True):
    """No answer. `sent` says whether the tool may have begun with it: if not, it certainly did nothing.

    It is False when no byte of the call has left, and when the tool itself said that the call came after its fence (`late`).
    `code` is one of `unreachable`, `timeout`, `protocol`, `too_large`, `refused`, `cancelled`, `late`; `detail` is for
    operators, not for callers.
    """

    sent: bool
    code: str
    detail: str


ToolResult: TypeAlias = ToolAnswer | ToolFailure


class Connector(Protocol):
    """One tool in one environment. Never raises for what a tool or network does: that is a `ToolFailure`."""

    async def invoke(self, invocation: Invocation) -> ToolResult:
        """Call once. No retries here."""
        ...

    async def list_tools(self, kinds: frozenset[Kind] = frozenset({Kind.TOOL})) -> tuple[ListedTool, ...]:
        """All pages of the upstream's listings of these kinds; raises `ToolUnavailableError` when it cannot be had."""
        ...

    async def listen(self, uris: tuple[str, ...], hear: Callable[[Listing | None, str], None]) -> bool:
        """Hear what changes at the server until it ends the stream; False when it tells nobody.

        Raises `ToolUnavailableError` when the stream broke.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; calls in flight end as `ToolFailure`."""
        ...


class ToolUnavailableError(Exception):
    """The upstream could not be reached or does not speak MCP; the message says which and what to do."""
