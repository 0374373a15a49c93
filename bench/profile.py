"""Where each microsecond of a governed call goes: `python -m bench.profile`, in about a minute.

Drives one gateway with 32 callers while a sampling profiler (py-spy, pinned in `requirements/profile.txt`) looks at it from
outside, and counts processor time, log records and flushes (`bench.cost`) without it. The shares of the samples times the
processor time of a call make the table in `docs/performance.md`; the flame graph goes to `docs/images/`.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import uvloop

from bench import cost
from bench.governed import HOST, real_server, served
from bench.load import load, tools_call

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
GRAPH: Final = ROOT / "docs" / "images" / "governed-call.svg"
BEGIN: Final = "<!-- bench.profile: begin -->"
END: Final = "<!-- bench.profile: end -->"
CLIENTS: Final = 32
SAMPLE_S: Final = 8
SAMPLES_PER_S: Final = 200
SHOWN_FROM: Final = 0.005

# The first stage of which one of the names stands anywhere in a sample's stack; deeper things come first.
STAGES: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("other threads: the lease, telemetry", ("_bootstrap (threading",)),
    ("decision: Cedar itself", ("evaluate (interlock/policy/evaluate.py",)),
    ("decision: all else", ("Engine.decide",)),
    ("facts: session, history, plan, origins of the arguments", ("Deciding.on", "Deciding._on")),
    ("arguments read, checked, made canonical", ("read_proposal",)),
    ("what enters the context, cut into tokens", ("_taken_up",)),
    ("obligations on the output, labels", ("release_output", "to_caller")),
    ("events: written as JSON and committed to", ("draft (", "Call.event", "Call.proposed")),
    ("the tool: permit, fence, first byte, function", ("Executor._invoke", "PythonConnector")),
    ("marks of keyed writes", ("marking.py",)),
    ("telemetry", ("telemetry/", "telemetry.py")),
    ("batches to and from Postgres", ("Writer._run", "Writer._submit", "batch.py", "Writer.claim", "Writer.settle")),
    ("claim put together: permit, scopes, budgets", ("Gate._claim_now", "Gate._claim (")),
    ("settlement put together", ("Executor.run", "Gate._execute")),
    ("the gate around it", ("Gate.",)),
    (
        "HTTP and MCP, in and out; token",
        ("Router.", "StatelessMcp", "HttpToolsProtocol", "BoundedHttp", "RequestResponseCycle"),
    ),
    ("chores: heartbeat, watches, heads", ("_every", "_watch")),
    ("event loop, sockets, all else", ("",)),
)


def shares(stacks: Mapping[str, int]) -> dict[str, float]:
    """How much of the samples belongs to each stage, of 1. `stacks` are collapsed stacks with their counts."""
    counted: Counter[str] = Counter()
    for stack, count in stacks.items():
        counted[next(stage for stage, names in STAGES if any(name in stack for name in names))] += count
    return {stage: counted[stage] / max(1, counted.total()) for stage, _ in STAGES}


def read_stacks(text: str) -> dict[str, int]:
    """Collapsed stacks (`a;b;c 12`, one a line)."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        found[stack] = found.get(stack, 0) + int(count)
    return found


def _sampled(pid: int, kind: str, out: Path, port: int, tokens: Sequence[str]) -> None:
    """Record `SAMPLE_S` seconds of a process under load: who holds the interpreter, so that no thread counts while it waits."""
    numbers = iter(range(1, 10**9))

    def request(client: int, _: int) -> bytes:
        return tools_call(HOST, port, tokens[client], "local.ping", b'{"n":%d}' % next(numbers))

    words = ["record", "--pid", str(pid), "--duration", str(SAMPLE_S), "--rate", str(SAMPLES_PER_S), "--gil"]
    spy = Path(sys.executable).with_name("py-spy")
    with subprocess.Popen([spy, *words, "--format", kind, "--output", out], stderr=subprocess.DEVNULL) as recording:
        uvloop.run(load(HOST, port, request, clients=CLIENTS, seconds=SAMPLE_S + 1.0))
        if recording.wait(30):
            raise RuntimeError("py-spy did not record; install requirements/profile.txt, and see that it may look at processes")


def run() -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """The shares of the stages, and what is counted per call for 32 callers and for one."""
    with real_server() as upstream, served(f"http://{HOST}:{upstream}/mcp") as gateway:
        many = asyncio.run(cost.counted(gateway, "local.ping", CLIENTS, cost.SECONDS))
        one = asyncio.run(cost.counted(gateway, "local.ping", 1, cost.SECONDS))
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "stacks"
            _sampled(gateway["pid"], "raw", raw, gateway["port"], gateway["tokens"])
            found = shares(read_stacks(raw.read_text()))
        GRAPH.parent.mkdir(exist_ok=True)
        _sampled(gateway["pid"], "flamegraph", GRAPH, gateway["port"], gateway["tokens"])
    # No path of this machine.
    GRAPH.write_text(re.sub(r"(?<=[ >(])/[^ <>:]*/(?:site-packages|lib)/", "", GRAPH.read_text()).replace(f"{ROOT}/", ""))
    return found, many, one


def rendered(found: Mapping[str, float], many: Mapping[str, float], one: Mapping[str, float]) -> str:
    """The table and the counts as Markdown."""
    spent = many["gateway us"]
    lines = [
        f"One governed call of 32 at a time costs the gateway {spent:,.0f} µs of a processor:",
        "",
        "| stage | share | µs |",
        "|---|---|---|",
        *(
            f"| {stage} | {100 * share:.0f} % | {share * spent:,.0f} |" for stage, share in found.items() if share >= 0.005
        ),  # less is shown as nothing
        "",
        "| counted per call | 32 callers | one caller |",
        "|---|---|---|",
        *(
            f"| {told} | {many[name]:,.{digits}f} | {one[name]:,.{digits}f} |"
            for name, told, digits in (
                ("gateway us", "gateway, µs of a processor", 0),
                ("postgres us", "Postgres, µs of a processor", 0),
                ("commits", "commits", 2),
                ("log flushes", "flushes to the disk", 2),
                ("log records", "log records", 0),
                ("log bytes", "bytes of log", 0),
                ("buffers", "buffers looked at", 0),
            )
        ),
        "",
        "![A flame graph of the gateway under load](images/governed-call.svg)",
    ]
    return "\n".join(lines)


def main() -> None:
    text = rendered(*run())
    print(text)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
