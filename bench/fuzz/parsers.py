"""Every parser that meets bytes from outside, by atheris: bytes that lead to new branches of our code are kept and changed on.

`python -m bench.fuzz.parsers NAME SECONDS SEED FOLDER` is one target in a process of its own: libFuzzer ends its
process when it finds something, and writes the bytes into the folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.fuzz.findings import Finding, Part

_ROOMS: Final = ("core", "gateway", "identity", "ledger", "policy", "provenance", "release", "risk", "server", "tools")
INSTRUMENTED: Final = tuple(f"interlock.{room}" for room in _ROOMS)
MOST_BYTES: Final = 8 * 1024
SLOWEST_S: Final = 10
START_WITHIN_S: Final = 900
_RUNS: Final = re.compile(r"^#(\d+)\s", re.MULTILINE)


def fuzz_parsers(seconds: float, seed: int) -> Part:
    """Each target for its share of the time."""
    from tests.fuzz.targets import SEEDS, TARGETS  # noqa: PLC0415  # the one process that instruments nothing

    started, share_s = time.monotonic(), max(3, int(seconds / len(TARGETS)))
    figures: dict[str, int] = {}
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as made:
        for name in TARGETS:
            folder = Path(made) / name
            (folder / "corpus").mkdir(parents=True)
            for number, data in enumerate(SEEDS[name]):
                (folder / "corpus" / f"seed-{number}").write_bytes(data)
            words = [sys.executable, "-m", "bench.fuzz.parsers", name, str(share_s), str(seed), str(folder)]
            try:
                # libFuzzer itself ends an input that takes too long; starting takes what a busy machine takes.
                done = subprocess.run(words, capture_output=True, check=False, timeout=share_s * 10 + START_WITHIN_S)
            except subprocess.TimeoutExpired as error:
                shown = (error.stderr or b"").decode(errors="replace")[-2_000:]
                findings.append(Finding(what="it did not come to an end", where=name, how=shown))
                continue
            told = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
            figures[f"inputs to {name}"] = max((int(number) for number in _RUNS.findall(told)), default=0)
            if done.returncode:
                findings.append(_finding(name, folder, told))
    return Part(name="parsers (atheris)", seconds=time.monotonic() - started, figures=figures, findings=tuple(findings))


def _finding(name: str, folder: Path, told: str) -> Finding:
    kept = sorted(path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-")))
    data = kept[0].read_bytes() if kept else b""
    at = told.find("=== Uncaught Python exception")
    lines = [line for line in told[max(at, 0) :].splitlines() if line.strip()]
    what = next((line for line in reversed(lines[:60]) if re.match(r"^[\w.]*(?:Error|Exception)\b", line)), "it ended badly")
    return Finding(what=what[:300], where=name, how=f"data = {data!r}\n" + "\n".join(lines[:40]))


def main() -> None:
    """One target, in this process."""
    import atheris  # noqa: PLC0415  # only where it is fuzzed

    name, seconds, seed, folder = sys.argv[1:]
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    options = [
        *(sys.argv[0], str(Path(folder) / "corpus"), f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={MOST_BYTES}"),
        *(f"-timeout={SLOWEST_S}", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/", "-print_final_stats=1"),
    ]
    atheris.Setup(options, TARGETS[name], enable_python_coverage=True)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
