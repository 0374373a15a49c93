"""What telemetry costs: processor time of counting one call, and memory of a gateway after load, without and with it.

`python -m bench.telemetry` drives `interlock up` three times: as it is, with `--metrics` under a scrape a second, and with a
collector beside that. Processor time is counted, not waited for, so that a busy machine says the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from bench.governed import HOST, real_server
from bench.load import load, tools_call
from bench.soak.fleet import START_S
from interlock.app.sources import Entropy, SystemClock
from interlock.cli.common import ask, dev_token
from interlock.core.contract import Kind
from interlock.gateway.messages import Proposal
from interlock.gateway.telemetry import EndedCall, TimedDesk, follow, passed
from interlock.identity.exchange import GRANT_TYPE
from interlock.telemetry.calls import CallTelemetry

TURNS: Final = 50_000
ROUNDS: Final = 5
SECONDS: Final = 20.0
CLIENTS: Final = 32
SESSIONS: Final = 8
MODES: Final = ("off", "metrics", "metrics and collector")
RELEASE: Final = {
    "release.yaml": "name: telemetry\n",
    "agents.yaml": """
bot:
  prod: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: remote.ping, for: {roles: [Staff], task: bench}, where: {n: {max: 1000000000}}}
""",
    "tasks.yaml": "bench: {purpose: measure, open_to: [Staff], agents: [bot]}\n",
    "tools/remote.yaml": """
url: URL
operations: {ping: {effects: [read], input: {n: integer}, output: {n: integer}, reviewed: {by: bench}}}
""",
}
USERS: Final = [f"user{number}" for number in range(SESSIONS)]


class _Desk:
    async def claim(self, request: Any) -> Any:
        return request

    async def settle(self, request: Any) -> Any:
        return request


async def _counting() -> dict[str, float]:
    """Microseconds of processor for all that a call with five stages has counted, against the same without."""
    clock = SystemClock()
    kept = CallTelemetry(clock, Entropy())
    bare: Any = _Desk()
    timed = TimedDesk(bare, clock)
    proposal = Proposal(operation="remote.ping", arguments=b"{}", way="mcp 2026-07-28", waited_s=0.001)
    named = {"session_id": "ses", "agent": "bot", "task": "bench", "way": proposal.way, "operation": "remote.ping"}

    async def counted() -> None:
        path = kept.began("call", proposal)
        follow(path)
        began_s = clock.monotonic_s()
        passed("decide", began_s, clock.monotonic_s())
        await timed.claim(None)
        began_s = clock.monotonic_s()
        passed("invoke", began_s, clock.monotonic_s(), operation="remote.ping")
        await timed.settle(None)
        kept.ended(path, EndedCall(call_id="call", kind=Kind.TOOL, outcome="returned", code="", **named))

    async def plain() -> None:
        await bare.claim(None)
        await bare.settle(None)

    spent = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(TURNS):
            await counted()
        with_s = time.process_time() - began_s
        began_s = time.process_time()
        for _ in range(TURNS):
            await plain()
        spent.append((with_s - (time.process_time() - began_s)) / TURNS * 1e6)
    return {"counting us a call": min(spent)}


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """Takes all and keeps nothing."""

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _gateway(folder: Path, mode: str, tool: str, collector: str) -> Iterator[dict[str, Any]]:
    """An `interlock up` on an embedded database of its own; gives its url, process and tokens."""
    state, directory = folder / "state", folder / "directory.yaml"
    for name, text in RELEASE.items():
        (folder / "release" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "release" / name).write_text(text.replace("URL", tool))
    people = {name: {"tenant": "acme", "roles": ["Staff"]} for name in USERS}
    directory.write_text(json.dumps({"users": people, "agents": {"bot": {"subjects": {"prod": "bot"}}}}))
    more = [] if mode == "off" else ["--metrics", "0"]
    environment = {**os.environ, **({"OTEL_EXPORTER_OTLP_ENDPOINT": collector} if mode == MODES[-1] else {})}
    words = ["up", "--release", str(folder / "release"), "--directory", str(directory), "--state", str(state)]
    command = [sys.executable, "-m", "interlock", *words, "--port", "0", "--json", "--log-format", "json", *more]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            said = json.loads(process.stdout.readline() if process.stdout else "")
            tokens = [_token(said["url"], state, directory, user) for user in USERS]
            yield {**said, "pid": process.pid, "tokens": tokens, "metrics": _metrics_url(folder / "log") if more else ""}
        finally:
            process.terminate()


def _token(url: str, state: Path, directory: Path, user: str) -> str:
    proofs = {
        "subject_token": dev_token(state, directory, "prod", user=user),
        "actor_token": dev_token(state, directory, "prod", agent="bot"),
    }
    form = {"grant_type": GRANT_TYPE, "task": "bench", **proofs}
    return str(ask(url, "/oauth/token", form=form)["access_token"])


def _metrics_url(log: Path) -> str:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (found := json.loads(line)).get("event") == "metrics.served":
                return str(found["url"])
        time.sleep(0.05)
    raise RuntimeError(f"no metrics are served: {log.read_text()}")


@contextlib.contextmanager
def _scraped(url: str) -> Iterator[None]:
    """Asked once a second until the end of the block."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(1.0):
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    if url:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if url:
            thread.join()


def _of_mode(mode: str, tool: str, collector: str, seconds: float) -> dict[str, float]:
    numbers = iter(range(10**9))
    with (
        tempfile.TemporaryDirectory(prefix="interlock-telemetry-") as folder,
        _gateway(Path(folder), mode, tool, collector) as made,
    ):
        port, process = int(made["url"].rpartition(":")[2]), psutil.Process(made["pid"])

        def request(client: int, _: int) -> bytes:
            return tools_call(HOST, port, made["tokens"][client % SESSIONS], "remote.ping", b'{"n":%d}' % next(numbers))

        def right(body: bytes) -> bool:
            return b'"isError":true' not in body and b'"error"' not in body

        before_mb = process.memory_info().rss / 2**20
        with _scraped(made["metrics"]):
            result = uvloop.run(load(HOST, port, request, clients=CLIENTS, seconds=seconds, is_right=right))
        if result.wrong or set(result.statuses) != {"200"}:
            raise RuntimeError(f"{mode}: {result.wrong} wrong answers, statuses {result.statuses}")
        return {"MB before": before_mb, "MB after": process.memory_info().rss / 2**20, "calls": result.calls}


def run(seconds: float = SECONDS) -> dict[str, float]:
    """Everything."""
    found = asyncio.run(_counting())
    with real_server() as port, _collector() as collector:
        for mode in MODES:
            made = _of_mode(mode, f"http://{HOST}:{port}/mcp", collector, seconds)
            found |= {f"{mode}: {name}": value for name, value in made.items()}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {name: round(value, 2) for name, value in run(options.seconds).items()}
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
