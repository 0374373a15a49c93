"""Whether the database answers and the release in force loads: asked a few times a second, however many strangers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from interlock.core.ports import Clock
from interlock.release.errors import ReleaseError
from interlock.store.errors import StoreError, StoreUnavailableError

READY_HOLDS_S: Final = 0.25
# Probes give up after a second or two, and take silence for an answer that they cannot read.
READY_WITHIN_S: Final = 1.0


class Readiness:
    """One look at a time, and its answer for a moment."""

    def __init__(self, look: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_s = float("-inf")
        self._error: StoreError | ReleaseError | None = None

    async def check(self) -> None:
        """Raises `StoreError` or `ReleaseError` when it is not so, or cannot be known in time."""
        async with self._looking:
            if self._clock.monotonic_s() - self._looked_s >= READY_HOLDS_S:
                self._error = await self._found()
                self._looked_s = self._clock.monotonic_s()
        if self._error is not None:
            raise StoreUnavailableError("not ready") from self._error

    async def _found(self) -> StoreError | ReleaseError | None:
        try:
            await asyncio.wait_for(self._look(), READY_WITHIN_S)
        except TimeoutError:
            return StoreUnavailableError(f"the database did not answer within {READY_WITHIN_S} s")
        except (StoreError, ReleaseError) as error:
            return error
        return None
