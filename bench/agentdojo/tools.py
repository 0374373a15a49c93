"""The suite's functions as tools of a gateway, and the benchmark's process behind them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from interlock.tools.port import ToolAnswer
from interlock.tools.python import PythonFunction, PythonTools

HERE: Final = Path(__file__).parent
CURRENT: contextvars.ContextVar[Pair] = contextvars.ContextVar("CURRENT")
MAX_LINE_BYTES: Final = 64 * 1024 * 1024


class Dojo:
    """The process with the suites, one question at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def ask(self, op: str, **words: Any) -> dict[str, Any]:
        async with self._turn:
            self._process.stdin.write(json.dumps({"op": op, **words}).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the benchmark's process ended; see what it wrote")
        return json.loads(line)


@contextlib.asynccontextmanager
async def dojo(python: Path) -> AsyncIterator[Dojo]:
    """Start the benchmark's process; `python` is that of its virtual environment."""
    process = await asyncio.create_subprocess_exec(
        python, "-W", "ignore", HERE / "world.py", stdin=-1, stdout=-1, limit=MAX_LINE_BYTES
    )
    try:
        yield Dojo(process)
    finally:
        process.stdin.close()
        await process.wait()


class Pair:
    """One environment while it is used: what its tools did, and whether a poisoned result was read."""

    def __init__(self, dojo: Dojo, name: str) -> None:
        self.dojo, self.name = dojo, name
        self.poisoned = False
        self.failed: list[str] = []

    async def call(self, function: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Run a function. Texts are texts; whatever has fields comes with its fields, as a server of such tools gives it."""
        answer = await self.dojo.ask("call", world=self.name, function=function, arguments=arguments)
        if "error" in answer:
            self.failed.append(answer["error"])
            return ToolAnswer(content=({"type": "text", "text": answer["error"]},), is_error=True)
        self.poisoned = self.poisoned or answer["poisoned"]
        result = answer["result"]
        if isinstance(result, str):
            return ToolAnswer(content=({"type": "text", "text": result},))
        structured = result if isinstance(result, dict) else {"result": result}
        return ToolAnswer(content=({"type": "text", "text": json.dumps(result)},), structured=structured)


def python_tools(suite: str, tools: list[Mapping[str, Any]]) -> PythonTools:
    """Every function of a suite, run in the environment of the pair that calls."""

    def function(name: str) -> PythonFunction:
        async def run(**arguments: Any) -> ToolAnswer:
            return await CURRENT.get().call(name, arguments)

        return PythonFunction(function=run)

    return PythonTools({f"{suite}:{tool['name']}": function(tool["name"]) for tool in tools})
