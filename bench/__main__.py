"""`make bench`: measure everything on this machine, print it beside its budgets, keep JSON. Takes about eight minutes.

`--only NAME` measures one part: budgets, decision, governed, upstream, ledger, provenance, kill, recovery, start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import budgets, decision, governed, kill, ledger, provenance, recovery, upstream

HERE = Path(__file__).parent
ROOT = HERE.parent
# What is measured: its budget, and whether less or more is better.
BUDGETS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "decision p50 us, 2,000 policies": ("<= 400", lambda value: value <= 400),
    "decision p99 us, 2,000 policies": ("<= 1,000", lambda value: value <= 1_000),
    "decision p50, 10,000 policies against 20": ("flat", lambda value: value <= 1.5),
    "governed / bare throughput, 32 clients": (">= 0.25", lambda value: value >= 0.25),
    "governed added p50 ms, 1 client": ("<= 4", lambda value: value <= 4),
    "in front / direct p50, 32 clients": ("<= 2", lambda value: value <= 2),
    "in front / direct p50, 1 client": ("<= 2", lambda value: value <= 2),
    "in front / direct throughput, 32 clients": (">= 0.35", lambda value: value >= 0.35),
    "governed / bare throughput, 32 clients, 4 processes": (">= 0.25", lambda value: value >= 0.25),
    "in front / direct throughput, 32 clients, 4 processes": (">= 0.35", lambda value: value >= 0.35),
    "ledger events/s written": (">= 20,000", lambda value: value >= 20_000),
    "ledger events/s verified": (">= 100,000", lambda value: value >= 100_000),
    "budgets, 64 writers, one tenant / 64 tenants": (">= 0.8", lambda value: value >= 0.8),
    "provenance p50 ms, session of 1 MB": ("<= 1", lambda value: value <= 1),
    "kill to answer p99 ms, 8 processes": ("<= 100", lambda value: value <= 100),
    "kill to answer p99 ms, 8 processes, half of the rate": ("<= 100", lambda value: value <= 100),
    "kill to answer max ms, 8 processes, one paused": ("<= 1,200", lambda value: value <= 1_200),
    "executions begun after the answer, 8 processes": ("0", lambda value: value == 0),
    "executions begun after the answer, 8 processes, half of the rate": ("0", lambda value: value == 0),
    "executions begun after the answer, 8 processes, one paused": ("0", lambda value: value == 0),
    "gateway memory MB": ("<= 200", lambda value: value <= 200),
    "interlock --help s": ("< 0.3", lambda value: value < 0.3),
    "interlock up on existing data s": ("< 4", lambda value: value < 4),
}


def decisions() -> dict[str, float]:
    rows = {row["policies"]: row for row in decision.run()}
    found = {}
    for count, row in rows.items():
        found[f"decision p50 us, {count:,} policies"] = row["p50_us"]
        found[f"decision p99 us, {count:,} policies"] = row["p99_us"]
    found["decision p50, 10,000 policies against 20"] = rows[10_000]["p50_us"] / rows[20]["p50_us"]
    return found


def upstreams() -> dict[str, float]:
    return {
        f"{row.get('server')}, {row.get('client')}: {name}": value
        for row in upstream.run()
        for name, value in row.items()
        if isinstance(value, float)
    }


def starts() -> dict[str, float]:
    command = [sys.executable, "-m", "interlock"]

    def helped() -> float:
        begun = time.perf_counter()
        subprocess.run([*command, "--help"], check=True, capture_output=True)
        return time.perf_counter() - begun

    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    variables = state / "variables"
    names = ("TICKETS", "PAYMENTS", "CUSTOMERS", "MAIL", "CONFIG_PROD", "CONFIG_STAGING")
    variables.write_text("".join(f"{name}_URL=http://127.0.0.1:9/mcp\n" for name in names))
    release = ROOT / "examples" / "acme" / "release"

    def up() -> float:
        begun = time.perf_counter()
        words = ["up", "--state", state, "--release", release, "--variables", variables, "--port", "0", "--json"]
        with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            took = time.perf_counter() - begun
            process.terminate()
        return took

    up()
    return {
        "interlock --help s": statistics.median(helped() for _ in range(5)),
        "interlock up on existing data s": statistics.median(up() for _ in range(3)),
    }


PARTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "decision": decisions,
    "governed": governed.run,
    "upstream": upstreams,
    "ledger": ledger.run,
    "budgets": budgets.run,
    "provenance": provenance.run,
    "kill": kill.run,
    "recovery": recovery.run,
    "start": starts,
}


def show(found: Mapping[str, float]) -> None:
    table = Table("what", "measured", "budget", "")
    for name, (budget, holds) in BUDGETS.items():
        if name in found:
            met = "[green]met[/]" if holds(found[name]) else "[red]missed[/]"
            table.add_row(name, f"{found[name]:,.2f}", budget, met)
    rest = Table("also measured", "")
    for name, value in found.items():
        if name not in BUDGETS:
            rest.add_row(name, f"{value:,.2f}")
    console = Console()
    console.print(table)
    console.print(rest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    chosen = parser.parse_args()
    found: dict[str, float] = {}
    for name, measure in PARTS.items():
        if chosen.only in (None, name):
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            found |= measure()
    show(found)
    if chosen.only is None:
        chosen.json.parent.mkdir(exist_ok=True)
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
