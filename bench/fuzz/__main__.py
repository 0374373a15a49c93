"""`make fuzz`: the API by its own document, the gate by what may happen to it, every parser by any bytes.

`--minutes` are shared among the parts, `--parts api,gate,parsers` chooses some, `--seed` makes it the same run again, as far
as the machine's timing allows; `--json FILE` keeps the report. Ends with 1 when something was found.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench.fuzz.findings import Part, Report
from interlock import __version__

SHARES: Final = {"api": 0.4, "gate": 0.35, "parsers": 0.25}


def run(name: str, seconds: float, seed: int) -> Part:
    """One part, for so long."""
    if name == "api":
        from bench.fuzz.api import fuzz_api  # noqa: PLC0415  # parts need different libraries, and only their own

        return asyncio.run(fuzz_api(seconds, seed))
    if name == "gate":
        from bench.fuzz.gate import fuzz_gate  # noqa: PLC0415

        return fuzz_gate(seconds, seed)
    from bench.fuzz.parsers import fuzz_parsers  # noqa: PLC0415

    return fuzz_parsers(seconds, seed)


def main() -> None:
    """Run the parts one after the other, and tell what was found."""
    words = argparse.ArgumentParser(prog="make fuzz")
    words.add_argument("--minutes", type=float, default=10.0)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--parts", default=",".join(SHARES))
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    log = Path(tempfile.mkdtemp(prefix="il-fuzz-log-")) / "fuzz.log"
    logging.basicConfig(level=logging.WARNING, filename=log)
    names = [name for name in SHARES if name in given.parts.split(",")]
    whole = sum(SHARES[name] for name in names)
    parts: list[Part] = []
    for name in names:
        parts.append(run(name, given.minutes * 60 * SHARES[name] / whole, given.seed))
        print(f"{parts[-1].name}: {len(parts[-1].findings)} found in {parts[-1].seconds:.0f} s", flush=True)
    report = Report(seed=given.seed, minutes=given.minutes, version=__version__, parts=tuple(parts))
    print(report.text())
    print(f"what the servers logged: {log}")
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
