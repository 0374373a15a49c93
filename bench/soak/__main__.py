"""`python -m bench.soak --minutes 60 --json FILE --svg FILE`: the hour, a table, JSON, and the plot. Exit code 1 says: look."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import asyncpg
import uvloop

from bench.soak import release, tools
from bench.soak.balancer import Balancer
from bench.soak.clients import Town, everybody
from bench.soak.fleet import SAMPLE_EVERY_S, Fleet, Left, sample
from bench.soak.judge import all_found_out, judged, ledger, tables
from bench.soak.plot import plotted
from bench.soak.tally import BROKEN, Tally
from interlock.app.sources import SystemClock, SystemIds
from interlock.identity.dev_issuer import DevIssuer, load_directory
from interlock.identity.keys import KeyRing
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate

ROLL_EVERY_S: Final = 60.0
TELL_EVERY_S: Final = 60.0
MAX_KEPT_SAMPLES: Final = 130
TOOL_START_S: Final = 30.0
END_S: Final = 90.0
BAD: Final = (
    "done twice", "told as done and missing", "told as not done and there", "in the table and without a claim",
    "claims whose record is not what the tool's table says", "claims unaccounted for", "answers nobody could understand",
    "clients that broke", "gateways that did not leave properly",
)  # fmt: skip


@contextlib.asynccontextmanager
async def tool_servers(url: str) -> AsyncIterator[dict[str, str]]:
    """The bank and the desk, each in a process of its own; gives their URLs."""
    processes, urls = [], {}
    try:
        for name in ("bank", "desk"):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            processes.append(
                await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.soak.tools", name, str(port), url)
            )
            until_s = time.monotonic() + TOOL_START_S
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    if time.monotonic() > until_s:
                        raise
                    await asyncio.sleep(0.1)
            urls[name] = f"http://127.0.0.1:{port}/mcp"
        yield urls
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


class Soak:
    """One run."""

    def __init__(self, fleet: Fleet, town: Town, balancer: Balancer, owner: Any) -> None:
        self.fleet, self.town, self.balancer, self.owner = fleet, town, balancer, owner
        self.samples: list[dict[str, Any]] = []
        self.faults: list[str] = []

    async def run(self, seconds: float, releases: list[dict[str, str]]) -> None:
        """Load, rolling restarts and samples for so long."""
        self.fleet.began_s = self.town.began_s = time.monotonic()
        clients = [asyncio.create_task(start(), name=name) for name, start in everybody(self.town, releases).items()]
        chores = [asyncio.create_task(self._roll()), asyncio.create_task(self._sample())]
        try:
            done, _ = await asyncio.wait({*clients, *chores}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            self._note_ends(done)
            left_s = seconds - (time.monotonic() - self.fleet.began_s)
            if left_s > 0:
                await asyncio.sleep(left_s)  # one of them broke: the others go on, so that everything is seen
        finally:
            self.town.over.set()
            chores[1].cancel()
            ended, late = await asyncio.wait({*clients, chores[0]}, timeout=END_S)
            self._note_ends(ended)
            self.faults += [f"{task.get_name()} did not come to an end" for task in late]
            for task in late:
                task.cancel()

    def _note_ends(self, done: set[asyncio.Task[None]]) -> None:
        for task in done:
            error = None if task.cancelled() else task.exception()
            text = f"{task.get_name()}: {error!r}"
            if error is not None and text not in self.faults:
                self.faults.append(text)

    async def _roll(self) -> None:
        next_s = time.monotonic()
        while not self.town.over.is_set():
            next_s = max(next_s + ROLL_EVERY_S, time.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.town.over.wait(), next_s - time.monotonic())
            if not self.town.over.is_set():
                await self.fleet.roll()

    async def _sample(self) -> None:
        told_s = time.monotonic()
        while True:
            self.samples.append(await sample(self.fleet, self.owner, self.balancer))
            if time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                self._tell()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _tell(self) -> None:
        tally, last = self.town.tally, self.samples[-1]
        memory = " ".join(f"{one.get('rss_mb', 0):.0f}" for one in last["gateways"])
        broken = sum(count for (_, code), count in tally.answers.items() if code == BROKEN)
        told = f"{tally.calls()} answers, {len(tally.told_done)} refunds, {broken} broken, {len(tally.odd)} odd"
        print(
            f"{last['minutes']:.1f} min: {told}, {len(self.fleet.left)} left; MB {memory}; database {last['database_mb']} MB",
            file=sys.stderr,
            flush=True,
        )


async def soak(lease: Any, folder: Path, seconds: float) -> dict[str, Any]:
    """Everything, from an empty database to the judgement."""
    owner = await asyncpg.connect(lease.layout.url("postgres"))
    await owner.execute("CREATE DATABASE soak_tools")
    tools_url = lease.layout.url("postgres", "soak_tools")
    table = await asyncpg.connect(tools_url)
    await table.execute(tools.TABLE)
    directory = release.write_directory(folder / "directory.yaml")
    async with tool_servers(tools_url) as urls, Balancer().open() as balancer:
        releases = [release.files(**urls, most=most) for most in (release.MOST_AT_ALL, release.MOST_AT_ALL - 10)]
        first = release.write(folder / "release", releases[0])
        fleet = Fleet(folder, lease.running.app_url, directory, balancer)
        try:
            await fleet.fill(first)
            issuer = DevIssuer(
                directory=load_directory(directory),
                keys=KeyRing(folder / "state" / "keys"),
                environment=release.ENVIRONMENT,
                clock=SystemClock(),
                ids=SystemIds(),
            )
            run = Soak(fleet, Town(balancer.port, issuer, Tally()), balancer, owner)
            await run.run(seconds, releases)
            open_still = await all_found_out(owner)
            said = fleet.said()
        finally:
            await fleet.end_all()
        tally = run.town.tally
        found = {
            **await judged(owner, table, tally),
            "claims unaccounted for": open_still,
            **await ledger(lease.running.auditor_url, folder / "state"),
        }
        biggest = await tables(owner)
    await table.close()
    await owner.close()
    return {**_shown(run, found, seconds), "tables": biggest, "logs at the end": said}


def _shown(run: Soak, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    tally, left = run.town.tally, run.fleet.left
    by_code: Counter[str] = Counter()
    for (_, code), count in tally.answers.items():
        by_code[code] += count
    took = sorted(one.took_s for one in left)
    improper = [f"{one.at_min:.1f} min, code {one.code}, {one.took_s} s: {one.said}" for one in left if one.code != 0]
    return {
        "minutes": round(seconds / 60, 1),
        "answers": tally.calls(),
        "answers a second": round(tally.calls() / seconds, 1),
        **found,
        "gateways replaced": len(left),
        "gateways that did not leave properly": len(improper),
        "seconds to leave, median and most": [took[len(took) // 2], took[-1]] if took else [],
        "connections through the balancer": run.balancer.connections,
        "connections that broke under a request": by_code[BROKEN],
        "answers nobody could understand": by_code["ODD"],
        "streams of the page opened": tally.streams,
        "clients that broke": len(run.faults),
        "balancer": dict(run.balancer.troubles),
        **flatness(run.samples),
        "answers by code": dict(by_code.most_common()),
        "answers by client and code": {f"{who}: {code}": count for (who, code), count in sorted(tally.answers.items())},
        "odd": tally.odd,
        "broken": tally.broken,
        "faults": run.faults,
        "improper": improper,
        "warnings": _warnings(left),
        "rolls": [round(one.at_min, 2) for one in left],
        "seconds to leave": [one.took_s for one in left],
        "samples": thinned(run.samples),
    }


def flatness(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Memory and files of the gateway that stayed: means of its second and last quarter, and the slope from the second on."""
    mine = [one for sample in samples for one in sample["gateways"] if one["place"] == 0 and "rss_mb" in one]
    quarter = len(mine) // 4
    if not quarter:
        return {}
    early, late = mine[quarter : 2 * quarter], mine[-quarter:]
    since = [
        (sample["minutes"], one["rss_mb"])
        for sample in samples
        for one in sample["gateways"]
        if one["place"] == 0 and "rss_mb" in one
    ][quarter:]

    def mean(of: Sequence[dict[str, Any]], what: str) -> float:
        return round(sum(one[what] for one in of) / len(of), 1)

    return {
        "the gateway that stayed, MB in the second and in the last quarter": [mean(early, "rss_mb"), mean(late, "rss_mb")],
        "the gateway that stayed, MB an hour after the first quarter (least squares)": round(
            60 * linear_regression(*zip(*since, strict=True)).slope, 1
        ),
        "the gateway that stayed, open files in the second and in the last quarter": [mean(early, "fds"), mean(late, "fds")],
        "most MB of any gateway": max(one["rss_mb"] for sample in samples for one in sample["gateways"] if "rss_mb" in one),
    }


def written(found: dict[str, Any]) -> str:
    """JSON for people to read: a line for each sample."""
    samples = ",\n".join(f"  {json.dumps(sample)}" for sample in found["samples"])
    rest = json.dumps({name: value for name, value in found.items() if name != "samples"}, indent=1)
    return f'{rest[:-2]},\n "samples": [\n{samples}\n ]\n}}\n'


def thinned(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as a plot can show."""
    step = max(1, -(-len(samples) // MAX_KEPT_SAMPLES))
    return [*samples[::step]]


def _warnings(left: Sequence[Left]) -> dict[str, int]:
    """What those that left had to say, by its first words."""
    found: Counter[str] = Counter()
    for one in left:
        for line in one.said.splitlines():
            words = line.split()
            found[" ".join(words[2:9])] += len(words) > 2
    return dict(found.most_common(30))


def main() -> int:
    """Run it, print what was found, keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--keep", action="store_true", help="Leave the folder with the logs.")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="interlock-soak-"))
    (folder / "state").mkdir(mode=0o700)
    lease = embedded.acquire(folder / "state")
    try:
        asyncio.run(migrate(lease.running.owner_url))
        found = uvloop.run(soak(lease, folder, chosen.minutes * 60))
    finally:
        lease.release()
        if not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
    samples = found["samples"]
    if chosen.json is not None:
        chosen.json.write_text(written(found))
    if chosen.svg is not None:
        chosen.svg.write_text(plotted(samples, found["rolls"]))
    for name, value in found.items():
        if name not in {"samples", "rolls", "seconds to leave", "tables", "logs at the end"} and value not in ({}, []):
            print(f"{name:75} {value if not isinstance(value, dict) else ''}")
            for part, count in value.items() if isinstance(value, dict) else ():
                print(f"    {part:80} {count}")
    print(f"load average at the end {os.getloadavg()}")
    return int(any(found[name] for name in BAD) or found["ledger"] != "intact")


if __name__ == "__main__":
    sys.exit(main())
