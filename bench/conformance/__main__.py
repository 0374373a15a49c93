"""The official MCP conformance suite, on a server of ours directly and on Interlock in front of it: `make conformance`.

Needs npm; `bench/conformance/package.json` pins the suite and Node. Prints the table of docs/reference/mcp.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.conformance import release
from bench.conformance.passing import HOST, PassThrough

HERE: Final = Path(__file__).parent
NODE: Final = HERE / "node_modules" / ".bin" / "node"
SUITE_TIMEOUT_S: Final = 400.0
STARTED_S: Final = 90.0
NOT_PASSED: Final = ("FAILURE", "WARNING")


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite, and the revision that Interlock speaks with the server meanwhile."""

    name: str
    package: str
    arguments: tuple[str, ...]
    protocol: str


SUITES: Final = (
    Suite(name="0.1.16 all", package="conformance-0.1", arguments=("--suite", "all"), protocol="2025-11-25"),
    Suite(
        name="0.2 requirements 2025-11-25",
        package="conformance-0.2",
        arguments=("--requirements", "2025-11-25"),
        protocol="2025-11-25",
    ),
    Suite(
        name="0.2 requirements 2026-07-28",
        package="conformance-0.2",
        arguments=("--requirements", "2026-07-28"),
        protocol="2026-07-28",
    ),
)
_KEPT: Final = "a result would be kept for whoever shows an id; a call that is repeated is answered from the record instead"
REASONS: Final[Mapping[str, str]] = {"server-sse-priming-event": _KEPT, "server-sse-retry-field": _KEPT}
"""Why something is lost that a server offers: by check, what the docs say of it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one scenario: checks that passed, and those that did not, with what they said."""

    passed: int
    missed: Mapping[str, str]


@contextlib.asynccontextmanager
async def _process(*command: str) -> AsyncIterator[str]:
    """A process as long as it is needed; gives the first line that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None  # asked for above
        async with asyncio.timeout(STARTED_S):
            line = (await process.stdout.readline()).decode()
        yield line
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _run(suite: Suite, url: str, folder: Path) -> dict[str, Outcome]:
    """Run a suite; gives outcomes by scenario."""
    command = (str(NODE), str(HERE / "node_modules" / suite.package / "dist" / "index.js"), "server", "--url", url)
    process = await asyncio.create_subprocess_exec(
        *command, *suite.arguments, "-o", str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(SUITE_TIMEOUT_S):
        output, _ = await process.communicate()
    (folder.parent / f"{folder.name}.log").write_bytes(output)
    return _outcomes(folder)


def _outcomes(folder: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for path in sorted(folder.glob("server-*/checks.json")):
        name = re.sub(r"-20\d\d-\d\d-\d\dT.*", "", path.parent.name.removeprefix("server-"))
        checks = [check for check in json.loads(path.read_text()) if check["status"] in {"SUCCESS", *NOT_PASSED}]
        missed = {
            check["id"]: f"{check['status']}: {check.get('errorMessage', '')}"
            for check in checks
            if check["status"] in NOT_PASSED
        }
        found[name] = Outcome(passed=sum(check["status"] == "SUCCESS" for check in checks), missed=missed)
    return found


async def _both(suite: Suite, folder: Path, protocol: str) -> dict[str, dict[str, Outcome]]:
    """The suite on the server, and on Interlock in front of it, each with a server of its own."""
    python, found = sys.executable, {}
    async with _process(python, "-m", "bench.conformance.everything", "0") as line:
        found["direct"] = await _run(suite, f"http://{HOST}:{int(line)}/mcp", folder / "direct")
    async with _process(python, "-m", "bench.conformance.everything", "0") as line:
        release.write(folder, url=f"http://{HOST}:{int(line)}/mcp", protocol=protocol)
        words = ["--release", "release", "--directory", "directory.yaml", "--state", "state"]
        words = [str(folder / word) if not word.startswith("--") else word for word in words]
        async with _process(python, "-m", "interlock", "up", *words, "--port", "0", "--json") as told:
            port = int(json.loads(told)["url"].rpartition(":")[2])
            token = await _token(folder, port)
            async with PassThrough(port=port, path=f"/mcp/{release.TOOL}", token=token) as through:
                found["governed"] = await _run(suite, f"http://{HOST}:{through}/mcp", folder / "governed")
    return found


async def _token(folder: Path, port: int) -> str:
    words = ("--agent", release.AGENT, "--user", release.USER, "--task", release.TASK, "--server", f"http://{HOST}:{port}")
    where = ("--directory", str(folder / "directory.yaml"), "--state", str(folder / "state"))
    command = (sys.executable, "-m", "interlock", "token", *words, *where)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode().strip()


def _table(suite: str, outcomes: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    direct, governed = outcomes["direct"], outcomes["governed"]
    lines = [f"**{suite}**: directly {_sum(direct)}, behind Interlock {_sum(governed)}.", ""]
    rows = []
    for name in direct:
        behind = governed.get(name, Outcome(passed=0, missed={"scenario": "did not run"}))
        lost = {check: said for check, said in behind.missed.items() if check not in direct[name].missed}
        if lost or behind.passed < direct[name].passed:
            said = "; ".join(f"`{check}`: {REASONS.get(check, said)}" for check, said in lost.items()) or "fewer checks ran"
            rows.append(f"| {name} | {direct[name].passed} | {behind.passed} | {said.replace('|', '/')[:400]} |")
    if rows:
        return [*lines, "| scenario | directly | behind | lost |", "|---|---|---|---|", *rows, ""]
    return [*lines, "Nothing lost.", ""]


def _sum(outcomes: Mapping[str, Outcome]) -> str:
    passed = sum(outcome.passed for outcome in outcomes.values())
    return f"{passed} of {passed + sum(len(outcome.missed) for outcome in outcomes.values())} checks"


async def _main(chosen: str, keep: Path | None, crossed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        root = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interlock-conformance-")))
        for suite in SUITES:
            if chosen not in suite.name:
                continue
            other = {"2025-11-25": "2026-07-28", "2026-07-28": "2025-11-25"}[suite.protocol]
            protocol = other if crossed else suite.protocol
            folder = root / suite.name.replace(" ", "-")
            folder.mkdir(parents=True)
            name = f"{suite.name}, server on {protocol}" if crossed else suite.name
            found[name] = await _both(suite, folder, protocol)
            print("\n".join(_table(name, found[name])), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run suites whose name holds this")
    parser.add_argument("--keep", type=Path, help="keep what the suite wrote in this folder")
    parser.add_argument("--crossed", action="store_true", help="let Interlock speak the other revision with the server")
    parser.add_argument("--json", type=Path, help="write the outcomes here")
    options = parser.parse_args()
    outcomes = asyncio.run(_main(options.only, options.keep, options.crossed))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=1) + b"\n")
