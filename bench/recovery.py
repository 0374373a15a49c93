"""How long after the database takes connections again the first governed call passes: after a crash, and after a restart.

`python -m bench.recovery` takes half a minute. One gateway and one caller that asks again and again; Postgres is its own, with
fsync on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import uvloop

from bench.governed import FILES
from bench.sessions import opened
from interlock.app.system import Settings, System, running
from interlock.core.who import Session
from interlock.gateway.messages import Proposal, Returned
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate
from interlock.tools.python import PythonFunction, PythonTools

TRIALS: Final = 5
LOOK_S: Final = 0.005
WITHIN_S: Final = 60.0


class Caller:
    """Calls again and again, and notes when the last call that passed had begun and ended."""

    def __init__(self, system: System, session: Session) -> None:
        self._system = system
        self._session = session
        self.passed: tuple[float, float] = (0.0, 0.0)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            began_s = time.monotonic()
            answer = await self._system.gate.call(self._session, Proposal(operation="local.ping", arguments=b'{"n":1}'))
            if isinstance(answer, Returned):
                self.passed = (began_s, time.monotonic())
            await asyncio.sleep(LOOK_S)


async def _ping(n: int) -> dict[str, int]:
    return {"n": n}


async def _once(url: str, caller: Caller, break_it: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the first connection that is taken again to the end of the first call that began after the break."""
    watching = await asyncpg.connect(url)
    down = asyncio.Event()
    watching.add_termination_listener(lambda _: down.set())
    breaking = asyncio.create_task(break_it())
    await down.wait()
    down_s = time.monotonic()
    while True:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await (await asyncpg.connect(url, timeout=1)).close()
            break
        await asyncio.sleep(LOOK_S)
    up_s = time.monotonic()
    while caller.passed[0] < down_s:  # what is waited for is a figure, not an event
        if time.monotonic() > up_s + WITHIN_S:
            raise RuntimeError("no call passes since the database is back")
        await asyncio.sleep(LOOK_S)
    await breaking
    return max(0.0, caller.passed[1] - up_s)


async def _trials(state: Path, lease: embedded.Lease, trials: int) -> dict[str, float]:
    url, leases = lease.running.superuser_url, [lease]

    async def crash() -> None:
        connection = await asyncpg.connect(url)
        (pid,) = await connection.fetchrow(
            "SELECT pid FROM pg_stat_activity WHERE usename = $1 LIMIT 1", embedded.APP
        )  # Postgres takes the death of one of its own for a crash, and recovers from its log
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            await connection.close(timeout=1)

    async def restart() -> None:
        os.kill(leases[-1].running.pid, signal.SIGINT)
        while embedded.status_of(leases[-1].layout) is not None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        leases.append(await asyncio.to_thread(embedded.acquire, state))

    settings = Settings(
        state=state,
        database_url=lease.running.app_url,
        environment="bench",
        release_files=FILES,
        variables={"UPSTREAM": "http://127.0.0.1:9/mcp"},
    )
    async with running(settings, python=PythonTools({"local:ping": PythonFunction(function=_ping)})) as system:
        caller = Caller(system, await opened(system, "user"))
        calling = asyncio.create_task(caller.run())
        found: dict[str, float] = {}
        for name, break_it in (("crash", crash), ("restart", restart)):
            took = []
            for _ in range(trials):
                took.append(await _once(url, caller, break_it))
                await asyncio.sleep(1)  # so that each finds a gateway that has settled down
            found[f"first call after a database {name} p50 s"] = statistics.median(took)
            found[f"first call after a database {name} max s"] = max(took)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    for held in leases[1:]:
        held.release()
    return found


def run(trials: int = TRIALS) -> dict[str, float]:
    """Break a database under a gateway again and again."""
    logging.disable(logging.CRITICAL)  # that the database is away is what we want
    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        return uvloop.run(_trials(state, lease, trials))
    finally:
        lease.release()
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
