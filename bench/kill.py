"""How long a kill takes to answer while eight gateways call as fast as they can, and what their tools see begin afterwards.

The tools judge: each execution notes its number and time in memory that this process shares. `python -m bench.kill --trials 20`
is a quick run; `python -m bench.kill gateway URL STATE SLOT FILE` is one of the gateways.
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

from interlock.app.containment import Containment, KillAnswer
from interlock.app.plane import RecordedSessions
from interlock.app.sources import SystemClock, SystemIds
from interlock.app.system import Settings, running
from interlock.core.who import Lineage, Session
from interlock.gateway.messages import Proposal
from interlock.ledger.drafts import draft
from interlock.ledger.events import ControlChanged
from interlock.store.controls import Controls
from interlock.store.database import open_database
from interlock.store.embedded import server as embedded
from interlock.store.leases import Leases
from interlock.store.migrate import migrate
from interlock.store.sessions import Sessions
from interlock.tools.python import PythonFunction, PythonTools

PROCESSES: Final = 8
CALLERS: Final = 4
TRIALS: Final = 200
PAUSED_TRIALS: Final = 10
WATCH_S: Final = 0.15
AGAIN_S: Final = 20.0
IDS: Final = SystemIds()
SLOT: Final = struct.Struct("qd")  # executions begun so far, and when the last one did (CLOCK_MONOTONIC, shared by all)
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

        async def caller(number: int) -> None:
            session = Session(
                session_id=system.ids.new("ses"),
                lineage=Lineage(tenant="acme", environment="bench", agent="bot", user=f"user{slot}-{number}"),
                task="bench",
                roles=("Staff",),
                attributes={},
                expires_at_us=system.clock.wall_us() + 3_600_000_000,
            )
            await RecordedSessions(Sessions(system.database), system.ids).open(session, "")
            n = 0
            while True:
                n += 1
                answer = await system.gate.call(session, Proposal(operation="local.note", arguments=b'{"n":%d}' % n))
                if getattr(answer, "code", "") == "halted":
                    await asyncio.sleep(0.05)  # a client that is told to stop does not hammer

        print(json.dumps({"process_id": system.process_id}), flush=True)
        await asyncio.gather(*(caller(number) for number in range(CALLERS)))


class Fleet:
    """The gateways, and what their tools have seen."""

    def __init__(self, memory: mmap.mmap, processes: list[subprocess.Popen[str]]) -> None:
        self._memory = memory
        self.processes = processes

    def begun(self) -> list[int]:
        """Executions begun so far, by process."""
        return [SLOT.unpack_from(self._memory, slot * SLOT.size)[0] for slot in range(len(self.processes))]

    def late(self, answered_s: float) -> int:
        """Processes in which an execution has begun since."""
        return sum(SLOT.unpack_from(self._memory, slot * SLOT.size)[1] > answered_s for slot in range(len(self.processes)))

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
    shared = folder / "begun"
    shared.write_bytes(bytes(PROCESSES * SLOT.size))
    with shared.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    processes: list[subprocess.Popen[str]] = []
    try:
        for slot in range(PROCESSES):  # one after the other: the first puts the release in force
            words = [sys.executable, "-m", "bench.kill", "gateway", url, str(folder / f"g{slot}"), str(slot), str(shared)]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("a gateway did not start")
        yield Fleet(memory, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


async def _trials(url: str, fleet: Fleet, trials: int, paused_trials: int) -> dict[str, float]:
    database = await open_database(url)
    controls = Controls(database)
    containment = Containment(controls=controls, leases=Leases(database), clock=SystemClock())

    def event(*, halted: bool) -> Any:
        return draft(ControlChanged(scope="fleet", halted=halted, reason="bench", by="bench"), ids=IDS)

    async def kill() -> tuple[float, float, KillAnswer]:
        began_s = time.monotonic()
        answer = await containment.stop(scope="fleet", reason="bench", by="bench", event=event(halted=True))
        answered_s = time.monotonic()
        return (answered_s - began_s) * 1000, answered_s, answer

    async def resume() -> None:
        await controls.change(scope="fleet", halted=False, reason="bench", by="bench", event=event(halted=False))

    change, claims = controls.change, list[float]()

    async def timed(**more: Any) -> Any:
        began_s = time.monotonic()
        answer = await change(**more)
        if more["halted"]:
            claims.append((time.monotonic() - began_s) * 1000)
        return answer

    controls.change = timed  # type: ignore[method-assign]  # how much of it was waiting for claims under way
    live: list[float] = []
    paused: list[float] = []
    late = woken = flying = 0
    first, began_s = sum(fleet.begun()), time.monotonic()
    for _ in range(trials):
        await fleet.all_at_work()
        took_ms, answered_s, answer = await kill()
        live.append(took_ms)
        flying += answer.in_flight_total
        if answer.processes is None or any(held.lease != "acknowledged" for held in answer.processes):
            raise RuntimeError(f"a live process did not acknowledge: {answer.processes}")
        await asyncio.sleep(WATCH_S)
        late += fleet.late(answered_s)
        await resume()
    raced, seconds = sum(fleet.begun()) - first, time.monotonic() - began_s
    for trial in range(paused_trials):
        await fleet.all_at_work()
        pid = fleet.processes[trial % PROCESSES].pid
        os.kill(pid, signal.SIGSTOP)
        took_ms, answered_s, _ = await kill()
        paused.append(took_ms)
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(WATCH_S * 4)
        woken += fleet.late(answered_s)
        await resume()
    await database.close()
    live.sort()
    paused.sort()
    return {
        f"kill to answer p50 ms, {PROCESSES} processes": statistics.median(live),
        f"kill to answer p99 ms, {PROCESSES} processes": live[min(len(live) - 1, int(len(live) * 0.99))],
        f"kill to answer max ms, {PROCESSES} processes": live[-1],
        "of it until no claim could commit any more, p50 ms": statistics.median(claims[:trials]),
        "kill to answer p50 ms, one process paused": statistics.median(paused) if paused else 0.0,
        "kill to answer max ms, one process paused": paused[-1] if paused else 0.0,
        "executions begun after the answer": late,
        "executions begun after the answer by a process that was paused": woken,
        "kill trials": trials,
        "kill trials with one process paused": paused_trials,
        "executions raced by the kills": raced,
        "executions a second while killed and resumed": raced / seconds,
        "calls in flight at a kill, mean": flying / trials,
        "machine load before": os.getloadavg()[0],
    }


def run(trials: int = TRIALS, paused_trials: int = PAUSED_TRIALS) -> dict[str, float]:
    """Kill and resume eight gateways under load, on a durable Postgres of their own."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(folder)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        load = os.getloadavg()[0]
        with fleet(lease.running.app_url, folder) as made:
            found = uvloop.run(_trials(lease.running.app_url, made, trials, paused_trials))
        return {**found, "machine load before": load}
    finally:
        lease.release()


def main() -> None:
    """A table and, with `--json FILE`, JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--paused", type=int, default=PAUSED_TRIALS)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = run(chosen.trials, chosen.paused)
    for name, value in found.items():
        print(f"{name:66} {value:12,.1f}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        url, state, slot, shared = sys.argv[2:6]
        uvloop.run(_gateway(url, Path(state), int(slot), Path(shared)))
    else:
        main()
