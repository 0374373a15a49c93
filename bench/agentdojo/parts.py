"""A part of the benchmark: some tasks of one suite in one variant, with all their pairs, on one gateway."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from bench.agentdojo.contracts import ENVIRONMENT, release_of
from bench.agentdojo.planning import Planning
from bench.agentdojo.playing import APPROVER, Attacked, Benign, Stage
from bench.agentdojo.tools import Dojo, python_tools
from interlock.app.system import Settings, running
from interlock.cli.traces import tell
from interlock.release.load import from_files

AT_ONCE: Final = 8


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the contracts were reviewed with the overlay, whether the guard's policies are there, whether there is a plan."""

    overlay: bool
    guard: bool = True
    plan: Planning = Planning.NONE


VARIANTS: Final = {
    "reviewed, plan with sources": Variant(overlay=True, plan=Planning.SOURCES),
    "reviewed": Variant(overlay=True),
    "reviewed, plan of operations": Variant(overlay=True, plan=Planning.OPERATIONS),
    "drafted, plan with sources": Variant(overlay=False, plan=Planning.SOURCES),
    "drafted": Variant(overlay=False),
    "drafted, plan of operations": Variant(overlay=False, plan=Planning.OPERATIONS),
    "no guard": Variant(overlay=True, guard=False),
}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker does in one go."""

    suite: str
    variant: str
    tasks: tuple[str, ...]
    injections: tuple[str, ...]
    trace: bool = False

    @property
    def runs(self) -> int:
        """How many sessions it takes."""
        return len(self.tasks) * (1 + len(self.injections))


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a part."""

    suite: str
    variant: str
    seconds: float
    benign: tuple[Benign, ...]
    pairs: tuple[Attacked, ...]


async def play(part: Part, bench: Dojo, url: str) -> Ran:
    """All tasks and pairs of a part. The database is this worker's alone: one release is in force in it at a time."""
    listed = await bench.ask("listing", suite=part.suite)
    chosen = VARIANTS[part.variant]
    files = release_of(part.suite, listed["tools"], with_overlay=chosen.overlay, with_guard=chosen.guard)
    begun = asyncio.get_running_loop().time()
    with tempfile.TemporaryDirectory(prefix="interlock-dojo-") as state:
        settings = Settings(
            state=Path(state), database_url=url, environment=ENVIRONMENT, release_files=files, trust_dev_issuer=True
        )
        async with running(settings, python=python_tools(part.suite, listed["tools"])) as system:
            stage = Stage(system, bench, part.suite, from_files(files).contracts, chosen.plan)
            benign = await together([stage.benign(task) for task in part.tasks])
            pairs = await together([stage.attacked(task, injection) for task in part.tasks for injection in part.injections])
            if part.trace and pairs:
                story = await system.plane.desk.traces.show(APPROVER, pairs[-1].session)
                tell(Console(soft_wrap=True, stderr=True), [msgspec.structs.asdict(line) for line in story.lines])
    seconds = asyncio.get_running_loop().time() - begun
    return Ran(suite=part.suite, variant=part.variant, seconds=seconds, benign=tuple(benign), pairs=tuple(pairs))


async def together(work: list[Any]) -> list[Any]:
    """Run it, a few at once, in order."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with places:
            return await item

    return await asyncio.gather(*map(one, work))
