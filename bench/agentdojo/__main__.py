"""`make bench-agentdojo`: a fully hijacked model against the gate, on the AgentDojo suites, with no model in between.

`--suites banking,slack` and `--variants 'drafted;reviewed'` choose parts; `--python` is where agentdojo is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.agentdojo.contracts import ENVIRONMENT, release_of
from bench.agentdojo.planning import Planning
from bench.agentdojo.playing import APPROVER, Attacked, Benign, Stage
from bench.agentdojo.tools import Dojo, dojo, python_tools
from interlock.app.system import Settings, running
from interlock.cli.traces import tell
from interlock.release.load import from_files
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
SUITES: Final = ("banking", "slack", "workspace", "travel")


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the contracts were reviewed with the overlay, whether the guard's policies are there, whether there is a plan."""

    overlay: bool
    guard: bool = True
    plan: Planning = Planning.NONE


VARIANTS: Final = {
    "no guard": Variant(overlay=True, guard=False),
    "drafted": Variant(overlay=False),
    "reviewed": Variant(overlay=True),
    "drafted, plan of operations": Variant(overlay=False, plan=Planning.OPERATIONS),
    "reviewed, plan of operations": Variant(overlay=True, plan=Planning.OPERATIONS),
    "drafted, plan with sources": Variant(overlay=False, plan=Planning.SOURCES),
    "reviewed, plan with sources": Variant(overlay=True, plan=Planning.SOURCES),
}
AT_ONCE: Final = 8


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One suite in one variant."""

    suite: str
    variant: str
    seconds: float
    benign: tuple[Benign, ...]
    pairs: tuple[Attacked, ...]

    def row(self) -> dict[str, Any]:
        """The figures."""
        tool = [pair for pair in self.pairs if not pair.text_only]
        return {
            "suite": self.suite,
            "variant": self.variant,
            "tasks": len(self.benign),
            "tasks done with no human": sum(task.alone for task in self.benign),
            "tasks that ask": sum(bool(task.asked) for task in self.benign),
            "tasks refused": sum(bool(task.refused) for task in self.benign),
            "calls": sum(task.calls for task in self.benign),
            "calls that ask": sum(len(task.asked) for task in self.benign),
            "pairs": len(self.pairs),
            "text only": len(self.pairs) - len(tool),
            "not reached": sum(not pair.reached for pair in tool),
            "attacks that succeeded": sum(pair.broken for pair in self.pairs),
            "attacks with an executed effect": sum(bool(pair.acted) for pair in tool),
            "attacks that only reached a human": sum(not pair.broken and bool(pair.asked) for pair in tool),
            "attacks refused": sum(not pair.broken and not pair.asked and bool(pair.refused) for pair in tool),
            "seconds": round(self.seconds, 1),
        }


async def play(bench: Dojo, url: str, suite: str, variant: str, only: argparse.Namespace) -> Ran:
    """All tasks and pairs of a suite in one variant, on one gateway."""
    chosen = VARIANTS[variant]
    listed = await bench.ask("listing", suite=suite)
    files = release_of(suite, listed["tools"], with_overlay=chosen.overlay, with_guard=chosen.guard)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="interlock-dojo-") as state:
        settings = Settings(
            state=Path(state), database_url=url, environment=ENVIRONMENT, release_files=files, trust_dev_issuer=True
        )
        async with running(settings, python=python_tools(suite, listed["tools"])) as system:
            stage = Stage(system, bench, suite, from_files(files).contracts, chosen.plan)
            tasks = [task for task in listed["users"] if only.task in ("", task)]
            injections = [
                injection for injection in listed["injections"] if not only.injection or injection in only.injection.split(",")
            ]
            benign = await together([stage.benign(task) for task in tasks])
            pairs = await together([stage.attacked(task, injection) for task in tasks for injection in injections])
            if only.trace:
                story = await system.plane.desk.traces.show(APPROVER, pairs[-1].session)
                tell(Console(soft_wrap=True), [msgspec.structs.asdict(line) for line in story.lines])
    return Ran(suite=suite, variant=variant, seconds=time.perf_counter() - begun, benign=tuple(benign), pairs=tuple(pairs))


async def together(work: list[Any]) -> list[Any]:
    """Run it, a few at once, in order."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with places:
            return await item

    return await asyncio.gather(*map(one, work))


@contextlib.asynccontextmanager
async def databases() -> AsyncIterator[Any]:
    """Gives the URL of a database, on a Postgres that is gone afterwards. Every pair has a user of its own in it."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-dojo-"))
    lease = embedded.acquire(folder, durable=False)  # what is measured is who is stopped, not how fast
    try:
        await migrate(lease.running.owner_url)
        yield lease.running.app_url
    finally:
        lease.release()
        embedded.stop(folder)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the figures."""
    table = Table(*(name for name in rows[0]))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=220).print(table)


def written(found: list[Ran]) -> bytes:
    """The figures, what asked or was refused in whose task, every attack that succeeded, and a session of each kind."""
    rows = []
    for ran in found:
        stopped = next((pair for pair in ran.pairs if pair.asked or pair.refused), None)
        rows.append(
            {
                **ran.row(),
                "asks": {task.task: task.asked for task in ran.benign if task.asked},
                "refused": {task.task: task.refused for task in ran.benign if task.refused},
                "succeeded": [(pair.task, pair.injection, pair.acted) for pair in ran.pairs if pair.broken],
                "executed": [(pair.task, pair.injection, pair.acted) for pair in ran.pairs if pair.acted and not pair.broken],
                "stopped": None if stopped is None else (stopped.task, stopped.injection, stopped.asked, stopped.refused),
            }
        )
    return msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"


async def run(chosen: argparse.Namespace) -> list[Ran]:
    """Everything that was chosen; what is known is written after each part."""
    found = []
    async with dojo(chosen.python) as bench, databases() as url:
        for suite in chosen.suites.split(","):
            for variant in chosen.variants.split(";"):
                found.append(await play(bench, url, suite, variant, chosen))
                print(json.dumps(found[-1].row()), file=sys.stderr, flush=True)
                if chosen.json:
                    chosen.json.write_bytes(written(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agentdojo")
    parser.add_argument("--python", type=Path, required=True, help="the python where agentdojo is installed")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--task", default="", help="only this task of the user")
    parser.add_argument("--injection", default="", help="only these injections")
    parser.add_argument("--trace", action="store_true", help="tell the story of the last pair, as `interlock trace show` does")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    show([ran.row() for ran in asyncio.run(run(chosen))])


if __name__ == "__main__":
    main()
