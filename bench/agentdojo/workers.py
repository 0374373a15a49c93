"""Processes that play parts: each with a database of its own on one Postgres in memory, and its own half of the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from bench.agentdojo.parts import Part, Ran, play
from bench.agentdojo.tools import MAX_LINE_BYTES, dojo
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate

MEMORY: Final = Path("/dev/shm")  # where there is such a thing


def place() -> Path:
    """A folder for the database, in memory where that can be had: what is measured is who is stopped, not how fast."""
    inside = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="interlock-dojo-", dir=inside))
    folder.chmod(0o755)  # the database's user must come through
    return folder


@contextlib.asynccontextmanager
async def databases(many: int) -> AsyncIterator[tuple[str, ...]]:
    """Gives the URLs of so many databases, on a Postgres that is gone afterwards. Every pair has a user of its own in one."""
    folder = place()
    lease = embedded.acquire(folder, durable=False)
    try:
        names = [f"dojo{number}" for number in range(many)]
        connection = await asyncpg.connect(lease.running.superuser_url)
        try:
            for name in names:
                await connection.execute(f"CREATE DATABASE {name} OWNER {embedded.OWNER}")
        finally:
            await connection.close()
        for name in names:
            await migrate(lease.layout.url(embedded.OWNER, name))
        yield tuple(lease.layout.url(embedded.APP, name) for name in names)
    finally:
        lease.release()
        embedded.stop(folder)
        shutil.rmtree(lease.layout.cluster, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


async def work(python: Path, url: str) -> None:
    """A worker: a part a line in, what came out of it a line out, until there are no more."""
    out, sys.stdout = sys.stdout, sys.stderr
    async with dojo(python) as bench:
        while line := await asyncio.to_thread(sys.stdin.readline):
            ran = await play(msgspec.json.decode(line, type=Part), bench, url)
            print(msgspec.json.encode(ran).decode(), file=out, flush=True)


async def played(parts: list[Part], python: Path, workers: int, done: Callable[[Part, Ran], None]) -> None:
    """Have the parts played by so many processes; tells of each when it is done. Raises when a process ends early."""
    waiting = list(reversed(parts))
    async with databases(workers) as urls, asyncio.TaskGroup() as workers_left:  # when one fails, all end
        for url in urls:
            workers_left.create_task(_one(waiting, python, url, done))


async def _answer(process: asyncio.subprocess.Process, part: Part) -> Ran:
    process.stdin.write(msgspec.json.encode(part) + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a worker ended while it played {part.suite}, {part.variant}; see what it wrote")
    return msgspec.json.decode(line, type=Ran)


async def _one(waiting: list[Part], python: Path, url: str, done: Callable[[Part, Ran], None]) -> None:
    command = (sys.executable, "-m", "bench.agentdojo", "--python", python, "--work", url)
    process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, limit=MAX_LINE_BYTES)
    try:
        while waiting:
            part = waiting.pop()
            done(part, await _answer(process, part))
        process.stdin.close()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise
    finally:
        await process.wait()
