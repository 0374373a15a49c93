"""A gateway in a process of its own, as whoever breaks it sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any


class Remote:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._answers: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        self._numbers = 0
        self._hearing = asyncio.create_task(self._hear())

    @staticmethod
    async def start(url: str, state: Path, tool: str) -> Remote:
        """Start one and wait until it serves."""
        words = ("-m", "bench.chaos.gateway", url, str(state), tool)
        pipe = asyncio.subprocess.PIPE
        with (state.parent / f"{state.name}.log").open("ab") as log:
            made = Remote(await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe, stderr=log))
        if await made._expect("") is None:
            raise RuntimeError(f"a gateway did not start; see {state}.log")
        return made

    async def call(self, operation: str, order: str) -> dict[str, Any] | None:
        """What the caller is told; None when the gateway died on the way."""
        self._numbers += 1
        answer = self._expect(str(self._numbers))
        self.say(f"call {self._numbers} {operation} {order}")
        return await answer

    def say(self, line: str) -> None:
        """Tell it something; one that is dead hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.process.stdin.write(line.encode() + b"\n")

    async def end(self) -> None:
        """Kill it, whatever state it is in."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._hearing

    def _expect(self, number: str) -> asyncio.Future[dict[str, Any] | None]:
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        if self._hearing.done():
            future.set_result(None)
        return future

    async def _hear(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            told = json.loads(line)
            self._answers.pop(told["id"]).set_result(told)
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)
