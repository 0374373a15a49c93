"""uvicorn's server, made to leave politely: no client is cut off, and the time is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import uvicorn

from interlock.app.leaving import Leaving

CLOSE: Final = (b"connection", b"close")
# How long a client may take to read the last answer, once everybody has theirs.
LAST_ANSWER_S: Final = 1.0


class PoliteServer(uvicorn.Server):
    """Leaves on SIGTERM with a notice, on SIGINT without; a second signal hurries. `serve` then returns.

    During the notice it takes connections and requests as before, and asks each client to connect anew after its answer, which
    a load balancer that has seen `/readyz` does elsewhere.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        leaving: Leaving,
        *,
        answer_now: Callable[[], None],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._leaving = leaving
        self._answer_now = answer_now
        self._say_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave on SIGTERM and SIGINT, and come back from `serve`, so that what is under way is settled afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave, number)
        yield

    def leave(self, number: int) -> None:
        """What a signal means."""
        if self._leaving.has_begun():
            self._leaving.hurry()
            return
        self._leaving.begin(at_once=number == signal.SIGINT)
        self.should_exit = True
        self._close_after_answers()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        await self._say_started()

    async def main_loop(self) -> None:
        """Serve until the notice is over."""
        await super().main_loop()
        await self._leaving.noticed()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, and let what is under way be answered; see `Leaving` for how long."""
        ending = asyncio.create_task(self._end(), name="last-answers")
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _end(self) -> None:
        await self._leaving.time_to_answer()
        self._answer_now()
        await asyncio.sleep(LAST_ANSWER_S)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        self.force_exit = True

    def _close_after_answers(self) -> None:
        """Every answer that begins from now on says that its connection ends with it."""
        self.config.encoded_headers.append(CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_started:
                cycle.default_headers = [*cycle.default_headers, CLOSE]
