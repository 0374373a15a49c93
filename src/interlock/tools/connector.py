"""A tool that is an MCP server: one upstream per connection key behind the port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.ports import Clock
from interlock.tools.attempt import Attempt
from interlock.tools.errors import CallFailedError, ToolUnavailableError
from interlock.tools.keyed import Keyed
from interlock.tools.limits import ToolLimits
from interlock.tools.listening import Hear
from interlock.tools.listings import TOOLS
from interlock.tools.port import ConnectionKey, Invocation, ToolAnswer, ToolFailure, ToolResult


class Upstream(Protocol):
    """One MCP server as one connection key sees it. Raises `CallFailedError` only."""

    async def call(self, attempt: Attempt) -> ToolAnswer:
        """Call once; `attempt.first_byte` is called immediately before the first write."""
        ...

    async def list_tools(self, kinds: frozenset[Kind]) -> tuple[ListedTool, ...]:
        """All that it lists of these kinds."""
        ...

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> None:
        """Hear what changes, and of these resources, until the server ends it; `refused` when it tells nobody."""
        ...

    async def aclose(self) -> None:
        """End calls under way and close; never raises."""
        ...


class McpConnector:
    """The `Connector` of tools over HTTP and stdio.

    INVARIANT: a tool that is not stateless is never reached through a connection that belongs to nobody in particular.
    """

    def __init__(
        self,
        *,
        tool: str,
        stateless: bool,
        make: Callable[[ConnectionKey], Upstream],
        keys_max: int,
        limits: ToolLimits,
        clock: Clock,
        listens_apart: bool = True,
    ) -> None:
        """With `listens_apart` changes are heard over a connection of their own, else over that which listings come by."""
        self._listens_apart = listens_apart
        self._tool = tool
        self._make = make
        self._stateless = stateless
        self._limits = limits
        self._upstreams: Keyed[Upstream] = Keyed(make, keys_max=keys_max, idle_s=limits.key_idle_s, clock=clock)

    async def invoke(self, invocation: Invocation) -> ToolResult:
        """Call once, within `invocation.timeout_ms`. Never raises for what the tool or the network does."""
        attempt = Attempt(invocation)
        key = invocation.key
        if key.tool != self._tool or not (self._stateless or (key.tenant and key.user and key.agent)):
            return attempt.failed("refused", "the connection key does not say whose call this is")
        if not invocation.arguments.startswith(b"{"):
            return attempt.failed("refused", "the arguments are not a JSON object")
        return await attempt.end(self._call(attempt))

    async def list_tools(self, kinds: frozenset[Kind] = TOOLS) -> tuple[ListedTool, ...]:
        """The upstream's whole listings of these kinds, over a connection that no user's calls share."""
        key = ConnectionKey(tool=self._tool)
        try:
            upstream = self._upstreams.take(key)
            try:
                async with asyncio.timeout(self._limits.listing_timeout_ms / 1000):
                    return await upstream.list_tools(kinds)
            finally:
                self._upstreams.give(key)
        except TimeoutError:
            raise ToolUnavailableError(f"{self._tool}: no listing in time; is the server up?") from None
        except CallFailedError as error:
            raise ToolUnavailableError(f"{self._tool}: {error.code}: {error.detail}") from None

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> bool:
        """Hear what changes at the server; cancel to end it.

        False when the server tells nobody. Raises `ToolUnavailableError` when the stream broke: listen again after a while.
        """
        key, own = ConnectionKey(tool=self._tool), None
        try:
            if self._listens_apart:
                upstream = own = self._make(key)
            else:
                # Not kept from being closed: whoever needs its place for a call gets it, and it is listened to anew.
                upstream = self._upstreams.take(key)
                self._upstreams.give(key)
            await upstream.listen(uris, hear)
        except CallFailedError as error:
            if error.code == "refused":
                return False
            raise ToolUnavailableError(f"{self._tool}: {error.code}: {error.detail}") from None
        finally:
            if own is not None:
                await own.aclose()
        return True

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        await self._upstreams.quiet()

    async def aclose(self) -> None:
        """Close every connection; calls in flight end as `ToolFailure` (`cancelled`)."""
        await self._upstreams.aclose()

    async def _call(self, attempt: Attempt) -> ToolAnswer:
        key = attempt.invocation.key
        upstream = self._upstreams.take(key)
        try:
            return await upstream.call(attempt)
        finally:
            self._upstreams.give(key)


class UnusableConnector:
    """Stands for a tool whose source cannot be used as written: every call fails before anything is sent."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def invoke(self, invocation: Invocation) -> ToolResult:  # noqa: ARG002  # the port's signature
        """Always a failure that was not sent."""
        return ToolFailure(sent=False, code="unreachable", detail=self._reason)

    async def list_tools(self, kinds: frozenset[Kind] = TOOLS) -> tuple[ListedTool, ...]:  # noqa: ARG002  # the port's signature
        """Always raises `ToolUnavailableError`."""
        raise ToolUnavailableError(self._reason)

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> bool:  # noqa: ARG002  # the port's signature
        """There is nothing to hear."""
        return False

    async def quiet(self) -> None:
        """Nothing is ever under way."""

    async def aclose(self) -> None:
        """Nothing to close."""
