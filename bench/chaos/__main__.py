"""The long run: `python -m bench.chaos --minutes 10 --seed 7`. A table and, with `--json FILE`, JSON.

The same seed makes the same faults in the same order; which call meets them is the machine's timing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import uvloop

from bench.chaos.runs import chaos, durable


def main() -> int:
    """A table and, with `--json FILE`, JSON; exit code 1 when anything was done twice, lost, or not accounted for."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with durable() as (lease, folder):
        found = uvloop.run(chaos(lease, folder, seconds=chosen.minutes * 60, seed=chosen.seed))
    for name, value in found.items():
        for part, count in value.items() if isinstance(value, dict) else ((name, value),):
            print(f"{f'{name}: {part}' if isinstance(value, dict) else part:70} {count!s:>12}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    bad = ("duplicates", "losses", "claims unaccounted for", "claims whose record is not what the tool's table says")
    return int(any(found[name] for name in bad) or found["ledger"] != "intact")


if __name__ == "__main__":
    sys.exit(main())
