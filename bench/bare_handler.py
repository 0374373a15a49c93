"""Our MCP handler with nothing behind it: what a governed call is compared with.

The same router, headers, checks and answers as in `interlock up`; in place of token verification and gate, constants.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
import uvicorn
import uvloop

from bench.load import Result, load, tools_call
from interlock.app.plane import Plane
from interlock.core.changes import Changes
from interlock.core.who import Lineage, Session
from interlock.gateway.messages import NOBODY, Caller, CallResult, Proposal, Returned, VisibleOperation
from interlock.gateway.ports import Standings
from interlock.gateway.streams import OpenStreams
from interlock.server.http import BoundedHttp
from interlock.server.router import Router

HOST: Final = "127.0.0.1"
CLIENTS: Final = (1, 32)
SECONDS: Final = 4.0
ARGUMENTS: Final = b'{"order_id":"A1001","amount":"25.00"}'


class Ungoverned:
    """Answers every call with the same result, at once."""

    def __init__(self) -> None:
        labels = {"source": "shop.pay", "classification": "internal", "integrity": "untrusted", "redacted": []}
        self._answer = Returned(
            call_id="call_0",
            content=({"type": "text", "text": '{"ok":true}'},),
            structured={"ok": True},
            is_error=False,
            meta={"interlock/labels": labels},
        )
        self.changes = Changes()
        self.streams = OpenStreams(cast("Standings", object()))  # nobody opens one

    async def call(self, _: Session, __: Proposal, ___: Caller = NOBODY) -> CallResult:
        return self._answer

    async def visible(self, _: Session) -> tuple[VisibleOperation, ...]:
        return ()


def bare_app() -> Router:
    """The router as `interlock up` makes it, ungoverned."""
    lineage = Lineage(tenant="acme", environment="bench", agent="bot", user="ana")
    session = Session(session_id="ses_0", lineage=lineage, task="bench", roles=(), expires_at_us=2**60)
    # Only /mcp is asked, so there is no plane.
    return Router(gate=Ungoverned(), session_of=lambda _: session, plane=cast("Plane", object()))


def serve() -> None:
    """Serve until killed; the port is printed."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind((HOST, 0))
    listening.listen(1_024)  # from now on clients may connect, whenever they are served
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(bare_app(), http=BoundedHttp, access_log=False, proxy_headers=False, log_config=None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


@contextmanager
def served() -> Iterator[int]:
    """A process that serves the bare handler; gives its port."""
    command = [sys.executable, "-m", "bench.bare_handler", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(10)


def measure(clients: int, seconds: float = SECONDS) -> Result:
    """The bare handler under `clients` connections."""
    with served() as port:
        request = tools_call(HOST, port, "t", "shop.pay", ARGUMENTS)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(
                load(
                    HOST,
                    port,
                    lambda _, __: request,
                    clients=clients,
                    seconds=seconds,
                    is_right=lambda body: b'"ok":true' in body,
                )
            )


def main() -> None:
    found: list[Any] = []
    for clients in CLIENTS:
        result = measure(clients)
        found.append(msgspec.to_builtins(result))
        times = f"p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms"
        print(f"bare handler, {clients:3} clients: {result.rps:8,.0f} calls/s, {times}")
    print(msgspec.json.encode({"bare_handler": found}).decode())


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
