"""What servers list, asked for by people before anything of it is in a release."""

from __future__ import annotations

import asyncio

from interlock.app.sources import SystemClock
from interlock.core.listing import ListedTool
from interlock.release.model import Release, Tool, ToolSource
from interlock.tools.directory import Connectors
from interlock.tools.port import ToolUnavailableError

_ANYWHERE = "listing"


class UnlistedError(Exception):
    """A server cannot be asked what it lists; the message says why and what to look at."""


async def listed(name: str, source: ToolSource) -> tuple[ListedTool, ...]:
    """The whole listing of one server. Raises `UnlistedError`."""
    connectors = Connectors(environment=_ANYWHERE, clock=SystemClock())
    try:
        return await connectors.listing(Tool(name=name, sources={_ANYWHERE: source}))
    except ToolUnavailableError as error:
        raise UnlistedError(str(error)) from error
    finally:
        await connectors.aclose()


async def all_listed(release: Release, environment: str) -> dict[str, tuple[ListedTool, ...] | str]:
    """What every server of a release lists in an environment; for one that cannot be asked, why."""

    async def one(tool: Tool) -> tuple[ListedTool, ...] | str:
        source = tool.sources.get(environment)
        if source is None:
            return f"no source in {environment}"
        try:
            return await listed(tool.name, source)
        except UnlistedError as error:
            return str(error)

    names = [
        name for name, tool in release.tools.items() if environment not in tool.sources or not tool.sources[environment].python
    ]
    answers = await asyncio.gather(*(one(release.tools[name]) for name in names))
    return dict(zip(names, answers, strict=True))
