"""`make bench-agentdojo`: a fully hijacked model against the gate, on the AgentDojo suites, with no model in between.

`--suites banking,slack`, `--variants 'drafted;reviewed'`, `--task` and `--injection` choose parts; `--python` is where
agentdojo is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.agentdojo.parts import VARIANTS, Part, Ran
from bench.agentdojo.report import rows_of, show, write
from bench.agentdojo.tools import dojo
from bench.agentdojo.workers import played, work

SUITES: Final = ("workspace", "travel", "slack", "banking")
WORKERS: Final = 2
MAX_PART_RUNS: Final = 160
# How long a session takes in each suite, against the others: for the guess of what is left.
WEIGHTS: Final = {"workspace": 5, "travel": 4, "slack": 3, "banking": 1}


async def parts_of(chosen: argparse.Namespace) -> list[Part]:
    """What was chosen, cut small enough that no worker is left with all of it at the end."""
    found = []
    async with dojo(chosen.python) as bench:
        listed = {suite: await bench.ask("listing", suite=suite) for suite in chosen.suites.split(",")}
    for variant, suite in itertools.product(chosen.variants.split(";"), listed):
        tasks = [task for task in listed[suite]["users"] if not chosen.task or task in chosen.task.split(",")]
        wanted = chosen.injection.split(",")
        injections = tuple(name for name in listed[suite]["injections"] if not chosen.injection or name in wanted)
        each = max(1, MAX_PART_RUNS // (1 + len(injections)))
        found += [
            Part(suite=suite, variant=variant, tasks=tuple(tasks[n : n + each]), injections=injections, trace=chosen.trace)
            for n in range(0, len(tasks), each)
        ]
    return found


def whole(chosen: argparse.Namespace) -> bool:
    """Whether nothing was left out."""
    everything = set(chosen.suites.split(",")) == set(SUITES) and set(chosen.variants.split(";")) == set(VARIANTS)
    return everything and not chosen.task and not chosen.injection


async def run(chosen: argparse.Namespace) -> list[Ran]:
    """Everything that was chosen, with a word after each part; what is known is written each time."""
    parts, found, begun = await parts_of(chosen), list[Ran](), time.perf_counter()
    all_of_it = sum(part.runs * WEIGHTS[part.suite] for part in parts)
    behind, console = 0, Console(stderr=True, soft_wrap=True)

    def done(part: Part, ran: Ran) -> None:
        nonlocal behind
        found.append(ran)
        behind += part.runs * WEIGHTS[part.suite]
        spent_s = time.perf_counter() - begun
        left_s = spent_s * (all_of_it - behind) / behind
        told = f"{part.suite}, {part.variant}: {part.runs} sessions in {ran.seconds:.0f} s"
        console.print(f"[{100 * behind // all_of_it:3} %] {told}; {spent_s / 60:.1f} min gone, about {left_s / 60:.1f} to go")
        if chosen.json:
            write(chosen.json, rows_of(found), whole=whole(chosen) and len(found) == len(parts), seconds=spent_s)

    await played(parts, chosen.python, min(chosen.workers, len(parts)), done)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agentdojo")
    parser.add_argument("--python", type=Path, required=True, help="the python where agentdojo is installed")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--task", default="", help="only these tasks of the user")
    parser.add_argument("--injection", default="", help="only these injections; `none` for the users' tasks alone")
    parser.add_argument("--workers", type=int, default=WORKERS, help="how many processes play")
    parser.add_argument("--trace", action="store_true", help="tell the story of each part's last pair, as `trace show` does")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", default="", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        asyncio.run(work(chosen.python, chosen.work))
        return
    show(rows_of(asyncio.run(run(chosen))))


if __name__ == "__main__":
    sys.exit(main())
