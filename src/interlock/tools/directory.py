"""Which connector serves which tool, from one release to the next."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Protocol

import msgspec

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.mirrored import Mirrored, mirrored_parameters
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.release.model import Release, Tool, ToolSource
from interlock.tools.beside import ASKED
from interlock.tools.connector import McpConnector, UnusableConnector, Upstream
from interlock.tools.credential import Credential
from interlock.tools.errors import ToolConfigurationError, ToolUnavailableError
from interlock.tools.http.endpoint import Endpoint
from interlock.tools.http.upstream import HttpUpstream
from interlock.tools.limits import DEFAULT_LIMITS, ToolLimits
from interlock.tools.messages import ACCEPTED_HANDSHAKES, STATELESS
from interlock.tools.port import ConnectionKey, Connector
from interlock.tools.python import PythonTools
from interlock.tools.stdio import StdioUpstream


def connection_key(tool: Tool, session: Session) -> ConnectionKey:
    """Whose upstream connection a call of `session` may use.

    INVARIANT: for a tool that is not stateless, two users, agents or tenants never share one.
    """
    lineage = session.lineage
    source = tool.sources.get(lineage.environment)
    credential = source.credential if source is not None else ""
    if tool.stateless:
        return ConnectionKey(tool=tool.name, credential=credential)
    return ConnectionKey(tool=tool.name, tenant=lineage.tenant, user=lineage.user, agent=lineage.agent, credential=credential)


class Kept(Connector, Protocol):
    """A connector that can tell when nothing is under way."""

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        ...


class _Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that a connector depends on: the same recipe in the next release keeps it, connections and all."""

    tool: Tool
    source: ToolSource
    mirrored: Mapping[str, Mirrored]
    offers: frozenset[str] = frozenset()


class Connectors:
    """The connectors of one environment. Belongs to one event loop; `replace` before first use, `aclose` at the end.

    `stand_in` makes what stands for every tool instead of a connector to where it runs: a dry world's recorders.
    """

    def __init__(
        self,
        *,
        environment: str,
        clock: Clock,
        python: PythonTools | None = None,
        limits: ToolLimits = DEFAULT_LIMITS,
        tls: ssl.SSLContext | None = None,
        stand_in: Callable[[Tool], Kept] | None = None,
    ) -> None:
        self._stand_in = stand_in
        self._environment = environment
        self._clock = clock
        self._python = python
        self._limits = limits
        self._tls = tls
        self._made: dict[str, tuple[_Recipe, Kept]] = {}
        self._retiring: dict[asyncio.Task[None], Kept] = {}
        self._closed = False

    def get(self, tool_name: str) -> Connector | None:
        """The connector of a tool, None when the release gives it no source in this environment."""
        found = self._made.get(tool_name)
        return None if found is None else found[1]

    def is_remote(self, tool_name: str) -> bool:
        """Whether a tool of this environment is a server of its own, and not functions in this process."""
        found = self._made.get(tool_name)
        return found is not None and not found[0].source.python

    def tool(self, tool_name: str) -> Tool:
        """The tool as the release has it; only for names that `get` knows (else `KeyError`)."""
        return self._made[tool_name][0].tool

    async def listing(self, tool: Tool) -> tuple[ListedTool, ...]:
        """What a server lists, over a connection of its own; also for a tool of no release. Raises `ToolUnavailableError`."""
        source = tool.sources.get(self._environment)
        if source is None:
            raise ToolUnavailableError(f"{tool.name} has no source in {self._environment}")
        connector = self._make(_Recipe(tool=tool, source=source, mirrored={}))
        try:
            return await connector.list_tools(frozenset(Kind))
        finally:
            await connector.aclose()

    def replace(self, release: Release) -> None:
        """Take up a release, on the event loop: connectors that are the same stay, the others close after their calls.

        A source that cannot be used as written makes the calls of its tool fail before anything is sent.
        """
        if self._closed:
            return
        made: dict[str, tuple[_Recipe, Kept]] = {}
        for name, tool in release.tools.items():
            source = tool.sources.get(self._environment)
            if source is None:
                continue
            recipe = _Recipe(tool=tool, source=source, mirrored=_mirrored(release, name), offers=_offers(release, name))
            before = self._made.get(name)
            made[name] = before if before is not None and before[0] == recipe else (recipe, self._make(recipe))
        gone = [kept for name, (_, kept) in self._made.items() if name not in made or made[name][1] is not kept]
        self._made = made
        for kept in gone:
            task = asyncio.get_running_loop().create_task(self._retire(kept))
            self._retiring[task] = kept
            task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def aclose(self) -> None:
        """Close all at once; calls in flight end as `ToolFailure` (`cancelled`)."""
        self._closed = True
        retiring, made = dict(self._retiring), self._made
        self._made = {}
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        kept = [*retiring.values(), *(entry[1] for entry in made.values())]
        await asyncio.gather(*(connector.aclose() for connector in kept))
        if self._python is not None:
            self._python.close()

    async def _retire(self, kept: Kept) -> None:
        """Close once the calls decided by the old release, and those just about to start, are over."""
        await asyncio.sleep(self._limits.retire_grace_s)
        await kept.quiet()
        await kept.aclose()

    def _make(self, recipe: _Recipe) -> Kept:
        if self._stand_in is not None:
            return self._stand_in(recipe.tool)
        try:
            return self._connector(recipe)
        except ToolConfigurationError as error:
            return UnusableConnector(f"tool {recipe.tool.name} in {self._environment}: {error}")

    def _connector(self, recipe: _Recipe) -> Kept:
        source, tool, limits, clock = recipe.source, recipe.tool, self._limits, self._clock
        if bool(source.url) + bool(source.command) + bool(source.python) != 1:
            raise ToolConfigurationError("give exactly one of `url`, `command` and `python`")
        if tool.protocol not in {"", STATELESS, *ACCEPTED_HANDSHAKES}:
            raise ToolConfigurationError(f"`protocol` is {STATELESS}, 2025-11-25 or nothing")
        if source.python:
            if self._python is None:
                raise ToolConfigurationError("no Python functions are registered in this process")
            return self._python.connector(source.python)
        if source.command:
            credential = Credential(source.credential, clock=clock, limits=limits)

            def process(_: ConnectionKey) -> StdioUpstream:
                return StdioUpstream(
                    command=source.command,
                    credential=credential,
                    pin=tool.protocol,
                    limits=limits,
                    clock=clock,
                    offers=recipe.offers,
                )

            # A process of its own that only listens would be another server.
            return self._mcp(tool, process, limits.processes_max, listens_apart=False)
        endpoint = Endpoint.parse(source.url)
        tls = (self._tls or _default_tls()) if endpoint.tls else None
        secret = Credential(source.credential, clock=clock, limits=limits)

        def server(_: ConnectionKey) -> HttpUpstream:
            return HttpUpstream(
                endpoint=endpoint,
                tls=tls,
                credential=secret,
                pin=tool.protocol,
                mirrored=recipe.mirrored,
                limits=limits,
                offers=recipe.offers,
            )

        return self._mcp(tool, server, limits.keys_max)

    def _mcp(
        self, tool: Tool, make: Callable[[ConnectionKey], Upstream], keys_max: int, *, listens_apart: bool = True
    ) -> McpConnector:
        return McpConnector(
            tool=tool.name,
            stateless=tool.stateless,
            make=make,
            keys_max=keys_max,
            limits=self._limits,
            clock=self._clock,
            listens_apart=listens_apart,
        )


def _offers(release: Release, tool: str) -> frozenset[str]:
    """What some contract of a tool lets it ask of a caller: what its server is told that we can be asked."""
    passed = (contract.passes for contract in release.contracts.values() if contract.tool == tool)
    return frozenset(item.value for passes in passed for item in passes) & frozenset(ASKED.values())


def _mirrored(release: Release, tool: str) -> Mapping[str, Mirrored]:
    found = {
        contract.upstream_name: mirrored_parameters(contract.input_schema)
        for contract in release.contracts.values()
        if contract.tool == tool
    }
    return {name: mirrored for name, mirrored in found.items() if mirrored}


@cache
def _default_tls() -> ssl.SSLContext:
    """Verifies certificates and host names; built once, for it costs tens of milliseconds."""
    return ssl.create_default_context()
