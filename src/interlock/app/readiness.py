"""Whether the database answers, takes things up, and the release in force loads: asked now and then, however many ask us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from interlock.core.ports import Clock
from interlock.release.errors import ReleaseError
from interlock.store.errors import StoreError, StoreUnavailableError

_log = logging.getLogger(__name__)

READY_HOLDS_S: Final = 0.25
# Probes give up after a second or two, and take silence for an answer that they cannot read.
READY_WITHIN_S: Final = 1.0
ROOM_EVERY_S: Final = 1.0
# How many looks in a row must find room again: at the edge of a full disk it comes and goes.
ROOM_AGAIN_LOOKS: Final = 3


class Readiness:
    """One look at a time, and its answer for a moment."""

    def __init__(self, look: Callable[[], Awaitable[None]], room: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._look = look
        self._room = room
        self._clock = clock
        self._no_room: StoreUnavailableError | None = None
        self._rooms = 0
        self._looking = asyncio.Lock()
        self._looked_s = float("-inf")
        self._error: StoreError | ReleaseError | None = None

    async def check(self) -> None:
        """Raises `StoreError` or `ReleaseError` when it is not so, or cannot be known in time."""
        async with self._looking:
            if self._clock.monotonic_s() - self._looked_s >= READY_HOLDS_S:
                self._error = await self._found()
                self._looked_s = self._clock.monotonic_s()
        error = self._error or self._no_room
        if error is not None:
            raise StoreUnavailableError("not ready") from error

    async def look_for_room(self) -> None:
        """See whether the database takes anything up: a chore. One that does not is not ready until it surely does again."""
        try:
            await self._room()
        except StoreUnavailableError as error:
            if self._no_room is None:
                _log.error("not ready: %s", error, extra={"event": "database.no_room"})
            self._no_room, self._rooms = error, 0
            return
        self._rooms += 1
        if self._rooms >= ROOM_AGAIN_LOOKS:
            self._no_room = None

    async def _found(self) -> StoreError | ReleaseError | None:
        try:
            await asyncio.wait_for(self._look(), READY_WITHIN_S)
        except TimeoutError:
            return StoreUnavailableError(f"the database did not answer within {READY_WITHIN_S} s")
        except (StoreError, ReleaseError) as error:
            return error
        return None
