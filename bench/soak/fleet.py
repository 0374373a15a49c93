"""The gateways: real `interlock up` processes; and what they hold of memory, files and connections over time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from bench.soak import release
from bench.soak.balancer import Balancer, Place

GATEWAYS: Final = 4
START_S: Final = 60.0
READY_S: Final = 30.0
LEAVE_S: Final = 40.0
SAMPLE_EVERY_S: Final = 10.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Left(msgspec.Struct, frozen=True):
    """How a gateway left: when in minutes since the beginning, in how many seconds, with which exit code, what it said."""

    at_min: float
    took_s: float
    code: int
    said: str


class Gateway:
    """One `interlock up`."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, port: int, place: Place, log: Path) -> None:
        self.number, self.process, self.port, self.place, self.log = number, process, port, place, log


class Fleet:
    """Four gateways on one database. The first stays for the whole time; each of the others is replaced in its turn."""

    def __init__(self, folder: Path, url: str, directory: Path, balancer: Balancer) -> None:
        self._folder, self._url, self._directory, self._balancer = folder, url, directory, balancer
        self.gateways: list[Gateway] = []
        self.left: list[Left] = []
        self.began_s = time.monotonic()
        self._started = 0
        self._turn = 0

    async def start(self, *more: str) -> Gateway:
        """Start one and wait until the balancer has it."""
        self._started += 1
        log = self._folder / f"gateway-{self._started}.log"
        words = [
            *("-m", "interlock", "up", "--state", str(self._folder / "state"), "--database-url", self._url),
            *("--directory", str(self._directory), "--environment", release.ENVIRONMENT, "--port", "0", "--json", *more),
        ]
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=errors, stdin=asyncio.subprocess.DEVNULL
            )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        said = json.loads(line or b"{}")
        if "url" not in said:
            raise RuntimeError(f"a gateway did not start: {said} {log.read_text()}")
        port = int(said["url"].rpartition(":")[2])
        place = self._balancer.add(port)
        made = Gateway(self._started, process, port, place, log)
        async with asyncio.timeout(READY_S):
            while not place.is_ready:  # noqa: ASYNC110  # as an orchestrator waits
                await asyncio.sleep(0.1)
        return made

    async def fill(self, first: Path) -> None:
        """Start them all; the first puts the release in force."""
        self.gateways.append(await self.start("--release", str(first)))
        while len(self.gateways) < GATEWAYS:
            self.gateways.append(await self.start())

    async def roll(self) -> Left:
        """Start a new one, then tell an old one to leave, and wait until it has."""
        self._turn += 1
        place = 1 + self._turn % (GATEWAYS - 1)
        new = await self.start()
        old, self.gateways[place] = self.gateways[place], new
        return await self.end(old)

    async def end(self, gateway: Gateway) -> Left:
        """Tell one to leave, and see how it does."""
        told_s = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            gateway.process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(gateway.process.wait(), LEAVE_S)
        except TimeoutError:
            gateway.process.kill()
            code = await gateway.process.wait()
        self._balancer.remove(gateway.place)
        said = gateway.log.read_text(errors="replace")
        found = Left((told_s - self.began_s) / 60, round(time.monotonic() - told_s, 2), code, said[-2000:])
        self.left.append(found)
        return found

    async def end_all(self) -> None:
        """All leave."""
        await asyncio.gather(*(self.end(gateway) for gateway in self.gateways))
        self.gateways.clear()

    def said(self) -> dict[str, str]:
        """What those that are there have written to their logs."""
        return {gateway.log.name: gateway.log.read_text(errors="replace")[-4000:] for gateway in self.gateways}


def held_by(pid: int) -> dict[str, float]:
    """Memory in MB, open files and threads of a process; nothing when it is gone."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return {}
    return {"rss_mb": round(resident, 1), "fds": files, "threads": threads}


def private_mb(pid: int) -> float:
    """What a process alone holds, in MB: of Postgres's shared buffers nothing is counted twice."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))) / 1024


async def sample(fleet: Fleet, owner: asyncpg.Connection[Any], own: Balancer) -> dict[str, Any]:
    """Where everything stands now."""
    backends = await owner.fetch("SELECT pid, usename FROM pg_stat_activity WHERE backend_type = 'client backend'")
    size = await owner.fetchval("SELECT pg_database_size('interlock')")
    gateways = []
    for place, gateway in enumerate(fleet.gateways):
        gateways.append(
            {"place": place, "number": gateway.number, "connections": gateway.place.connections, **held_by(gateway.process.pid)}
        )
    return {
        "minutes": round((time.monotonic() - fleet.began_s) / 60, 3),
        "gateways": gateways,
        "postgres_backends": sum(row["usename"] == "interlock_app" for row in backends),
        "postgres_private_mb": round(sum(private_mb(row["pid"]) for row in backends), 1),
        "database_mb": round(size / 2**20, 1),
        "load_rss_mb": held_by(os.getpid())["rss_mb"],
        "connections": sum(place.connections for place in own.places),
    }
