"""How long a kill takes to answer while eight gateways are called, and what their tools see begin afterwards.

The tools judge: each execution notes its number and time in memory that all processes share. Three rounds: everybody calls as
fast as they can, the same with one gateway paused, and half of the rate that it came to (so that the answer is not made of
waiting for a processor). `python -m bench.kill --trials 20` is a quick run; `python -m bench.kill gateway URL STATE SLOT FILE`
is one of the gateways.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.sessions import opened
from interlock.app.containment import Containment, KillAnswer
from interlock.app.memory import keep_what_is_loaded
from interlock.app.sources import SystemClock, SystemIds
from interlock.app.system import Settings, running
from interlock.gateway.messages import Proposal
from interlock.ledger.drafts import draft
from interlock.ledger.events import ControlChanged
from interlock.store.controls import Controls
from interlock.store.database import Database, open_database
from interlock.store.embedded import server as embedded
from interlock.store.leases import Leases
from interlock.store.migrate import migrate
from interlock.tools.python import PythonFunction, PythonTools

PROCESSES: Final = 8
CALLERS: Final = 4
TRIALS: Final = 200
HALF_TRIALS: Final = 100
PAUSED_TRIALS: Final = 10
WATCH_S: Final = 0.15
RATE_S: Final = 3.0
AGAIN_S: Final = 20.0
FULL: Final = f"{PROCESSES} processes"
HALF: Final = f"{PROCESSES} processes, half of the rate"
PAUSED: Final = f"{PROCESSES} processes, one paused"
IDS: Final = SystemIds()
SLOT: Final = struct.Struct("qd")  # executions begun so far, and when the last one did (CLOCK_MONOTONIC, shared by all)
PACE: Final = struct.Struct("d")  # behind the slots: seconds from one call of a caller to its next
PACE_AT: Final = PROCESSES * SLOT.size
FILES: Final = {
    "release.yaml": "name: bench\n",
    "agents.yaml": """
bot:
  bench: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: local.note, for: {roles: [Staff], task: bench}}
""",
    "tasks.yaml": "bench: {purpose: measure, open_to: [Staff], agents: [bot]}\n",
    "tools/local.yaml": """
python: "local:"
operations: {note: {effects: [write], repeat: allow, input: {n: integer}, output: {n: integer}, reviewed: {by: bench}}}
""",
}


async def _gateway(url: str, state: Path, slot: int, shared: Path) -> None:
    with shared.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    begun = 0

    async def note(n: int) -> dict[str, int]:
        nonlocal begun
        begun += 1
        SLOT.pack_into(memory, slot * SLOT.size, begun, time.monotonic())
        return {"n": n}

    settings = Settings(state=state, database_url=url, environment="bench", release_files=FILES)
    async with running(settings, python=PythonTools({"local:note": PythonFunction(function=note)})) as system:
        keep_what_is_loaded()

        async def caller(number: int) -> None:
            session = await opened(system, f"user{slot}-{number}")
            n = 0
            while True:
                n += 1
                begun_s = time.monotonic()
                answer = await system.gate.call(session, Proposal(operation="local.note", arguments=b'{"n":%d}' % n))
                least_s = 0.05 if getattr(answer, "code", "") == "halted" else 0.0  # who is told to stop does not hammer
                until_s = max(begun_s + PACE.unpack_from(memory, PACE_AT)[0], time.monotonic() + least_s)
                await asyncio.sleep(max(0.0, until_s - time.monotonic()))

        print(json.dumps({"process_id": system.process_id}), flush=True)
        await asyncio.gather(*(caller(number) for number in range(CALLERS)))


async def _no_mark() -> bool:
    """Nothing is kept beside this database."""
    return True


class Fleet:
    """The gateways, and what their tools have seen."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._shared = folder / "begun"
        self._shared.write_bytes(bytes(PACE_AT + PACE.size))
        with self._shared.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, slot: int) -> None:
        """Start a gateway, in place of the one that was in this slot."""
        SLOT.pack_into(self._memory, slot * SLOT.size, 0, 0.0)
        words = [sys.executable, "-m", "bench.kill", "gateway", self._url, str(self._folder / f"g{slot}"), str(slot)]
        process = subprocess.Popen([*words, str(self._shared)], stdout=subprocess.PIPE, text=True)
        self.processes[slot : slot + 1] = [process]
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("a gateway did not start")

    def end(self) -> None:
        """End them all."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def begun(self) -> list[int]:
        """Executions begun so far, by process."""
        return [SLOT.unpack_from(self._memory, slot * SLOT.size)[0] for slot in range(len(self.processes))]

    def late(self, answered_s: float) -> list[int]:
        """The processes in which an execution has begun since, by their slots."""
        return [slot for slot in range(len(self.processes)) if SLOT.unpack_from(self._memory, slot * SLOT.size)[1] > answered_s]

    def pace(self, every_s: float) -> None:
        """Let each caller call once in so many seconds; 0 for as fast as it can."""
        PACE.pack_into(self._memory, PACE_AT, every_s)

    async def rate(self) -> float:
        """Executions a second, measured now."""
        before, began_s = sum(self.begun()), time.monotonic()
        await asyncio.sleep(RATE_S)
        return (sum(self.begun()) - before) / (time.monotonic() - began_s)

    async def all_at_work(self) -> None:
        """Wait until each has begun something new."""
        before = self.begun()
        until_s = time.monotonic() + AGAIN_S
        while any(now <= then for now, then in zip(self.begun(), before, strict=True)):
            if time.monotonic() > until_s:
                raise RuntimeError(f"a gateway has stopped working: {before} then {self.begun()}")
            await asyncio.sleep(0.005)


@contextmanager
def fleet(url: str, folder: Path) -> Iterator[Fleet]:
    """Eight gateways under load."""
    made = Fleet(url, folder)
    try:
        for slot in range(PROCESSES):  # one after the other: the first puts the release in force
            made.start(slot)
        yield made
    finally:
        made.end()


class Bench:
    """Kills and resumes, and what is noted of it."""

    def __init__(self, fleet: Fleet, database: Database) -> None:
        self.fleet = fleet
        self.flying: list[int] = []
        self.claims: list[float] = []
        self.ended = 0
        self._leases = Leases(database)
        self._controls = Controls(database)
        self._containment = Containment(controls=self._controls, leases=self._leases, clock=SystemClock(), noted=_no_mark)
        self._change = self._controls.change
        self._controls.change = self._timed  # type: ignore[method-assign]  # how much was waiting for claims under way

    async def _timed(self, **more: Any) -> Any:
        began_s = time.monotonic()
        answer = await self._change(**more)
        if more["halted"]:
            self.claims.append((time.monotonic() - began_s) * 1000)
            self.flying.append(len(answer.in_flight))
        return answer

    def _event(self, *, halted: bool) -> Any:
        return draft(ControlChanged(scope="fleet", halted=halted, reason="bench", by="bench"), ids=IDS)

    async def _kill(self) -> tuple[float, float, KillAnswer]:
        began_s = time.monotonic()
        answer = await self._containment.stop(scope="fleet", reason="bench", by="bench", event=self._event(halted=True))
        answered_s = time.monotonic()
        return (answered_s - began_s) * 1000, answered_s, answer

    async def _resume(self) -> None:
        await self._change(scope="fleet", halted=False, reason="bench", by="bench", event=self._event(halted=False))

    async def live(self, trials: int) -> tuple[list[float], int]:
        """Kill with everybody alive: how long each took in ms, and in how many processes something began afterwards."""
        took, late = [], 0
        for _ in range(trials):
            await self.fleet.all_at_work()
            took_ms, answered_s, answer = await self._kill()
            took.append(took_ms)
            if answer.processes is None or any(held.lease != "acknowledged" for held in answer.processes):
                raise RuntimeError(f"a live process did not acknowledge: {answer.processes}")
            await asyncio.sleep(WATCH_S)
            late += len(self.fleet.late(answered_s))
            await self._resume()
        return took, late

    async def paused(self, trials: int) -> tuple[list[float], int]:
        """Kill while one gateway is paused, wake it after the answer, and see what begins anywhere."""
        took, late = [], 0
        for trial in range(trials):
            await self.fleet.all_at_work()
            paused = trial % PROCESSES
            pid = self.fleet.processes[paused].pid
            os.kill(pid, signal.SIGSTOP)
            took_ms, answered_s, answer = await self._kill()
            took.append(took_ms)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(WATCH_S * 4)
            for slot in self.fleet.late(answered_s):
                late += 1
                which = "the paused one" if slot == paused else "another"
                print(f"begun after the answer by {which}; leases: {answer.processes}", file=sys.stderr)
            await self._resume()
            if self.fleet.processes[paused].poll() is not None:  # paused between the check and the start, and not woken up
                self.ended += 1
                await asyncio.to_thread(self.fleet.start, paused)
                while len(await self._leases.holders()) > PROCESSES:  # noqa: ASYNC110  # its lease is still to run out
                    await asyncio.sleep(WATCH_S)
        return took, late


def _figures(name: str, took: list[float], late: int) -> dict[str, float]:
    took = sorted(took)
    return {
        f"kill to answer p50 ms, {name}": statistics.median(took),
        f"kill to answer p99 ms, {name}": took[min(len(took) - 1, int(len(took) * 0.99))],
        f"kill to answer max ms, {name}": took[-1],
        f"kills, {name}": len(took),
        f"executions begun after the answer, {name}": late,
    }


async def _trials(url: str, fleet: Fleet, trials: int, half_trials: int, paused_trials: int) -> dict[str, float]:
    database = await open_database(url)
    bench = Bench(fleet, database)
    await fleet.all_at_work()
    keep_what_is_loaded()
    full = await fleet.rate()
    first, began_s = sum(fleet.begun()), time.monotonic()
    found = _figures(FULL, *await bench.live(trials))
    raced = sum(fleet.begun()) - first
    found |= {
        "of it until no claim could commit any more, p50 ms": statistics.median(bench.claims),
        "calls in flight at a kill, mean": statistics.mean(bench.flying),
        "executions raced by the kills": raced,
        "executions a second while killed and resumed": raced / (time.monotonic() - began_s),
        "executions a second, eight gateways together": full,
        "machine load during the kills": os.getloadavg()[0],
    }
    if paused_trials:
        found |= _figures(PAUSED, *await bench.paused(paused_trials))
        found["paused ones that their guard ended"] = bench.ended
    if half_trials:
        fleet.pace(PROCESSES * CALLERS / (full / 2))
        await fleet.all_at_work()
        half = await fleet.rate()
        found |= {**_figures(HALF, *await bench.live(half_trials)), "executions a second at half of the rate": half}
    await database.close()
    return found


def run(trials: int = TRIALS, half_trials: int = HALF_TRIALS, paused_trials: int = PAUSED_TRIALS) -> dict[str, float]:
    """Kill and resume eight gateways under load, on a durable Postgres of their own."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(folder)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        load = os.getloadavg()[0]
        with fleet(lease.running.app_url, folder) as made:
            found = uvloop.run(_trials(lease.running.app_url, made, trials, half_trials, paused_trials))
        return {**found, "machine load before": load}
    finally:
        lease.release()


def main() -> None:
    """A table and, with `--json FILE`, JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill")
    parser.add_argument("--trials", type=int, default=TRIALS, help="kills with everybody calling as fast as they can")
    parser.add_argument("--half", type=int, default=HALF_TRIALS, help="kills at half of that rate")
    parser.add_argument("--paused", type=int, default=PAUSED_TRIALS, help="kills with one gateway paused")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = run(chosen.trials, chosen.half, chosen.paused)
    print(f"{'kill to answer':60} {'kills':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'begun after it':>15}")
    for name in (FULL, HALF, PAUSED):
        if f"kills, {name}" in found:
            p50, p99, most = (found[f"kill to answer {which} ms, {name}"] for which in ("p50", "p99", "max"))
            late = found[f"executions begun after the answer, {name}"]
            print(f"{name:60} {found[f'kills, {name}']:6} {p50:8.1f} {p99:8.1f} {most:8.1f} {late:15}")
    for name, value in found.items():
        if not name.endswith((FULL, HALF, PAUSED)):
            print(f"{name:60} {value:8,.1f}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        url, state, slot, shared = sys.argv[2:6]
        uvloop.run(_gateway(url, Path(state), int(slot), Path(shared)))
    else:
        main()
