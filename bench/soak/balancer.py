"""A small real load balancer: TCP passed through, places asked for `/readyz` twice a second, nothing ever retried.

A connection stays where it was put. A place that is not ready gets no new one, and keeps those that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

ASK_EVERY_S: Final = 0.5
ASK_WITHIN_S: Final = 2.0
CHUNK_BYTES: Final = 64 * 1024
_ASK: Final = b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n"


class Place:
    """A gateway as the balancer sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_ready = False
        self.connections = 0


class Balancer:
    """Give it places; it serves on `port`. `affine` sources go where they went before, as long as that is ready."""

    def __init__(self) -> None:
        self.port = 0
        self.places: list[Place] = []
        self.troubles: Counter[str] = Counter()
        self.connections = 0
        self._turn = 0
        self._went: dict[str, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Balancer]:
        """Serve until the end of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        asking = asyncio.create_task(self._ask_all())
        try:
            yield self
        finally:
            asking.cancel()
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(asking, *self._tasks, return_exceptions=True)

    def add(self, port: int) -> Place:
        """A new place; it gets connections once it is ready."""
        place = Place(port)
        self.places.append(place)
        return place

    def remove(self, place: Place) -> None:
        """It is gone."""
        self.places.remove(place)

    async def _ask_all(self) -> None:
        while True:
            await asyncio.gather(*(self._ask(place) for place in list(self.places)))
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, place: Place) -> None:
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
                writer.write(_ASK)
                answer = await reader.readline()
                writer.close()
            place.is_ready = b" 200 " in answer
        except (OSError, TimeoutError):
            place.is_ready = False

    def _choose(self, source: str) -> Place | None:
        ready = [place for place in self.places if place.is_ready]
        if not ready:
            return None
        if source != "127.0.0.1":
            if self._went.get(source) not in ready:
                self._went[source] = ready[hash(source) % len(ready)]
            return self._went[source]
        self._turn += 1
        return ready[self._turn % len(ready)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            place = self._choose(writer.get_extra_info("peername")[0])
            if place is None:
                self.troubles["no gateway was ready"] += 1
                return
            try:
                there_reader, there = await asyncio.open_connection("127.0.0.1", place.port)
            except OSError:
                self.troubles["a gateway that was ready refused the connection"] += 1
                return
            place.connections += 1
            try:
                await asyncio.gather(self._pass(reader, there), self._pass(there_reader, writer))
            finally:
                place.connections -= 1
                there.close()
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
            if not writer.is_closing():
                writer.write_eof()
        except (OSError, RuntimeError):
            writer.close()
