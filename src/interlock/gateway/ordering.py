"""Turns: calls of one lineage that keep overtaking each other are decided one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """One lock per lineage, kept only while somebody holds or wants it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, lineage: str) -> AsyncIterator[None]:
        """Wait for the lineage's turn."""
        lock, wanted = self._locks.get(lineage, (asyncio.Lock(), 0))
        self._locks[lineage] = (lock, wanted + 1)
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._locks[lineage]
            if wanted == 1:
                del self._locks[lineage]
            else:
                self._locks[lineage] = (lock, wanted - 1)
