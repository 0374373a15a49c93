"""What servers tell unasked: a listing that changed is read again at once, and then whoever listens here is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from interlock.core.changes import Changed, Changes, Listing
from interlock.core.contract import Contract, Kind
from interlock.release.model import Release
from interlock.store.errors import StoreError
from interlock.tools.directory import Connectors
from interlock.tools.port import ToolUnavailableError

_log = logging.getLogger(__name__)

AGAIN_FIRST_S: Final = 2.0
AGAIN_MOST_S: Final = 60.0
BETWEEN_LOOKS_S: Final = 1.0
MAX_WATCHED: Final = 100


class UpstreamListening:
    """One stream to each server of the release in force. A server that tells nobody is looked at every minute, as ever.

    INVARIANT: clients are told after the listing was compared with its review, so that none lists what is quarantined by it.
    """

    def __init__(self, connectors: Connectors, changes: Changes, look_at: Callable[[str], Awaitable[None]]) -> None:
        """`look_at` compares one tool's listing with its review."""
        self._connectors = connectors
        self._changes = changes
        self._look_at = look_at
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_running = False
        self._has_followed = False

    async def run(self) -> None:
        """Listen until cancelled."""
        self._is_running = True
        try:
            await asyncio.Event().wait()
        finally:
            self._is_running = False
            self._stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, release: Release) -> None:
        """Listen to the servers of this release from now on; after another one, everything may be listed anew."""
        self._stop()
        for listing in Listing if self._has_followed else ():
            self._changes.tell(Changed(listing=listing))
        self._has_followed = True
        if not self._is_running:
            return
        for tool in release.tools:
            contracts = [contract for contract in release.contracts.values() if contract.tool == tool]
            if contracts and self._connectors.is_remote(tool):
                task = asyncio.get_running_loop().create_task(self._listen_to(tool, _watched(contracts)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _listen_to(self, tool: str, uris: tuple[str, ...]) -> None:
        heard: set[Listing] = set()
        news = asyncio.Event()

        def hear(listing: Listing | None, uri: str) -> None:
            if listing is None and uri in uris:
                self._changes.tell(Changed(tool=tool, uri=uri))
            elif listing is not None:
                heard.add(listing)
                news.set()

        looking = asyncio.get_running_loop().create_task(self._look(tool, heard, news))
        pause_s = AGAIN_FIRST_S
        try:
            while (connector := self._connectors.get(tool)) is not None:
                try:
                    if not await connector.listen(uris, hear):
                        return
                    pause_s = AGAIN_FIRST_S
                except ToolUnavailableError as error:
                    _log.debug("a server is not heard any more: %s", error, extra={"event": "upstream.unheard", "tool": tool})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MOST_S)
                # What it told meanwhile nobody heard.
                heard.update(Listing)
                news.set()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self, tool: str, heard: set[Listing], news: asyncio.Event) -> None:
        """However often a server says so, it is looked at once in a while."""
        while True:
            await news.wait()
            news.clear()
            now = frozenset(heard)
            heard.clear()
            try:
                if now:
                    await self._look_at(tool)
            except StoreError as error:
                _log.warning("a changed listing could not be looked at: %s", error, extra={"event": "upstream.unseen"})
            for listing in sorted(now):
                self._changes.tell(Changed(tool=tool, listing=listing))
            await asyncio.sleep(BETWEEN_LOOKS_S)


def _watched(contracts: list[Contract]) -> tuple[str, ...]:
    """The resources that clients may want to be told of."""
    uris = [item.upstream_name for item in contracts if item.kind is Kind.RESOURCE and "{" not in item.upstream_name]
    return tuple(uris[:MAX_WATCHED])
