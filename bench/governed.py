"""Governed calls against the same handler ungoverned, and in front of a real MCP server against calling that server directly.

`python -m bench.governed serve UPSTREAM_URL [STATE]` serves one gateway on a durable Postgres of its own, or on that of a state
folder that it shares with others, and prints port and tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import uvicorn
import uvloop

from bench.bare_handler import served as bare_served
from bench.load import Result, load, tools_call
from bench.sessions import opened
from interlock.app.memory import give_back_what_is_free, keep_what_is_loaded
from interlock.app.system import Settings, running
from interlock.server.http import BoundedHttp
from interlock.server.router import Router
from interlock.store.embedded import server as embedded
from interlock.store.embedded.server import Running
from interlock.store.migrate import migrate
from interlock.tools.python import PythonFunction, PythonTools

HOST: Final = "127.0.0.1"
SECONDS: Final = 3.0
REPEATS: Final = 3
PROCESSES: Final = 4
_RUNS: Final = itertools.count(1)
FILES: Final = {
    "release.yaml": "name: bench\n",
    "agents.yaml": """
bot:
  bench: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [local.ping, remote.ping], for: {roles: [Staff], task: bench}, where: {n: {max: 1000000000}}}
""",
    "tasks.yaml": "bench: {purpose: measure, open_to: [Staff], agents: [bot]}\n",
    "tools/local.yaml": """
python: "local:"
operations: {ping: {effects: [read], input: {n: integer}, output: {n: integer}, reviewed: {by: bench}}}
""",
    "tools/remote.yaml": """
url: ${UPSTREAM}
operations: {ping: {effects: [read], input: {n: integer}, output: {n: integer}, reviewed: {by: bench}}}
""",
}


async def _ping(n: int) -> dict[str, int]:
    return {"n": n}


async def _serve(database: Running, state: Path, upstream: str) -> None:
    give_back_what_is_free()  # as `interlock up` does
    settings = Settings(
        state=state, database_url=database.app_url, environment="bench", release_files=FILES, variables={"UPSTREAM": upstream}
    )
    python = PythonTools({"local:ping": PythonFunction(function=_ping)})
    async with running(settings, python=python) as system:
        tokens = []
        for number in range(32):
            session = await opened(system, f"user{number} of {os.getpid()}")
            tokens.append(system.plane._tokens.issue(session))  # noqa: SLF001  # the exchange is not what is measured
        keep_what_is_loaded()  # so does it
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.bind((HOST, 0))
        listening.listen(1024)
        told = {
            "port": listening.getsockname()[1],
            "tokens": tokens,
            "pid": os.getpid(),
            "postmaster": database.pid,
            "superuser_url": database.superuser_url,
        }
        print(json.dumps(told), flush=True)
        router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
        config = uvicorn.Config(router, http=BoundedHttp, access_log=False, proxy_headers=False, log_config=None)
        await uvicorn.Server(config).serve(sockets=[listening])


def serve(upstream: str, shared: str = "") -> None:
    """Serve until terminated."""
    state = Path(shared or tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    asyncio.run(migrate(lease.running.owner_url))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(lease.running, state, upstream))


@contextmanager
def served(upstream: str, state: Path | None = None) -> Iterator[dict[str, Any]]:
    """A gateway process; gives its port, tokens and pid. With `state` it shares a database with others."""
    command = [sys.executable, "-m", "bench.governed", "serve", upstream, *([] if state is None else [str(state)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def real_server() -> Iterator[int]:
    """A real MCP server made with the SDK; gives its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "bench.real_server", str(port)]) as process:
        try:
            deadline = time.monotonic() + 30
            while socket.socket().connect_ex((HOST, port)) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def measure(ports: Sequence[int], name: str, tokens: Sequence[Sequence[str]], clients: int) -> Result:
    """Calls with ever new arguments, each client in a session of its own. Clients take turns at the ports and their tokens.

    Each time is a run of its own, for there is a ceiling to the calls of one.
    """
    numbers, run = itertools.count(1), f"run-{next(_RUNS)}"

    def request(client: int, _: int) -> bytes:
        at, own = client % len(ports), tokens[client % len(tokens)]
        token = own[client // len(ports) % len(own)]
        return tools_call(HOST, ports[at], token, name, b'{"n":%d}' % next(numbers), run=run)

    def right(body: bytes) -> bool:
        return b'"isError":true' not in body and b'"error"' not in body

    result = uvloop.run(load(HOST, ports, request, clients=clients, seconds=SECONDS, is_right=right))
    if result.wrong or set(result.statuses) != {"200"}:
        raise RuntimeError(f"{name}: {result.wrong} wrong answers, statuses {result.statuses}")
    return result


def _medians(found: Mapping[str, Sequence[Result]]) -> dict[str, float]:
    return {
        **{f"{name} calls/s": statistics.median(result.rps for result in results) for name, results in found.items()},
        **{f"{name} p50 ms": statistics.median(result.p50_ms for result in results) for name, results in found.items()},
    }


def one_process() -> dict[str, float]:
    """One gateway. Medians over repeats, all in one run."""
    found: dict[str, list[Result]] = {}
    with real_server() as port, bare_served() as bare, served(f"http://{HOST}:{port}/mcp") as gateway:
        tokens, own = [gateway["tokens"]], [gateway["port"]]
        for _ in range(REPEATS):
            for clients in (1, 32):
                for what, ports, name in (
                    ("bare", [bare], "local.ping"),
                    ("governed", own, "local.ping"),
                    ("direct", [port], "ping"),
                    ("in front", own, "remote.ping"),
                ):
                    found.setdefault(f"{what} {clients}", []).append(measure(ports, name, tokens, clients))
        memory = psutil.Process(gateway["pid"]).memory_info().rss / 2**20
    medians = _medians(found)
    return {
        **medians,
        "governed / bare throughput, 32 clients": medians["governed 32 calls/s"] / medians["bare 32 calls/s"],
        "governed added p50 ms, 1 client": medians["governed 1 p50 ms"] - medians["bare 1 p50 ms"],
        "in front / direct p50, 1 client": medians["in front 1 p50 ms"] / medians["direct 1 p50 ms"],
        "in front / direct p50, 32 clients": medians["in front 32 p50 ms"] / medians["direct 32 p50 ms"],
        "in front / direct throughput, 32 clients": medians["in front 32 calls/s"] / medians["direct 32 calls/s"],
        "gateway memory MB": memory,
    }


def several_processes() -> dict[str, float]:
    """Several gateways on one database against as many bare handlers, and in front of one server against calling it itself."""
    found: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interlock-bench-", ignore_cleanup_errors=True)))
        state.chmod(0o755)  # Postgres may run as another user
        port = stack.enter_context(real_server())
        bare = [stack.enter_context(bare_served()) for _ in range(PROCESSES)]
        gateways = [stack.enter_context(served(f"http://{HOST}:{port}/mcp", state)) for _ in range(PROCESSES)]
        own, tokens = [gateway["port"] for gateway in gateways], [gateway["tokens"] for gateway in gateways]
        for _ in range(REPEATS):
            found.setdefault("bare", []).append(measure(bare, "local.ping", tokens, 32))
            found.setdefault("governed", []).append(measure(own, "local.ping", tokens, 32))
            found.setdefault("direct", []).append(measure([port], "ping", tokens, 32))
            found.setdefault("in front", []).append(measure(own, "remote.ping", tokens, 32))
    medians = _medians({f"{name} 32, {PROCESSES} processes": results for name, results in found.items()})

    def ratio(what: str, against: str) -> float:
        return medians[f"{what} 32, {PROCESSES} processes calls/s"] / medians[f"{against} 32, {PROCESSES} processes calls/s"]

    return {
        **medians,
        f"governed / bare throughput, 32 clients, {PROCESSES} processes": ratio("governed", "bare"),
        f"in front / direct throughput, 32 clients, {PROCESSES} processes": ratio("in front", "direct"),
    }


def run() -> dict[str, float]:
    """One process, then several."""
    return one_process() | several_processes()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", url]:
            serve(url)
        case ["serve", url, state]:
            serve(url, state)
        case _:
            print(json.dumps(run(), indent=2))
