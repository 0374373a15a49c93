"""What it costs to call an MCP server: through our connector, through the SDK's client, and as a bare POST.

All three speak to the same server, in a process of its own: once a real one made with the SDK, which costs more than any
client, and once the cheapest that answers correctly, so that the client is what is measured.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from statistics import quantiles
from typing import Any, Final

import httpx2
import uvicorn
import uvloop
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer

from interlock.release.model import Tool, ToolSource
from interlock.tools import messages
from interlock.tools.connector import McpConnector
from interlock.tools.credential import Credential
from interlock.tools.http.endpoint import Endpoint
from interlock.tools.http.upstream import HttpUpstream
from interlock.tools.limits import DEFAULT_LIMITS
from interlock.tools.messages import STATELESS
from interlock.tools.port import ConnectionKey, Invocation, ToolAnswer

SERVERS: Final = ("cheapest", "sdk")
CALLS_ALONE: Final = 500
CALLS_TOGETHER: Final = 2_000
CALLERS: Final = 32
WARM_UP_CALLS: Final = 50
START_S: Final = 20.0

Call = Callable[[], Awaitable[None]]


class SystemClock:
    """The real time."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


def invocation() -> Invocation:
    return Invocation(
        key=ConnectionKey(tool="shop"),
        upstream_name="echo",
        arguments=b'{"text":"hello"}',
        timeout_ms=30_000,
        before_first_byte=lambda: None,
    )


# -- the servers, each in a process of its own ---------------------------------------------------------------------------


async def cheapest(_: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers `server/discover`, `tools/list` and `tools/call` and checks nothing."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(body)
    result: dict[str, Any] = {"resultType": "complete", "content": [{"type": "text", "text": "hello"}]}
    if asked["method"] == "server/discover":
        result = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
        result |= {"serverInfo": {"name": "cheapest", "version": "1"}, "resultType": "complete"}
    elif asked["method"] == "tools/list":
        result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "ttlMs": 0, "cacheScope": "private"}
        result["resultType"] = "complete"
    out = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(out)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": out})


def serve(kind: str, port: int) -> None:
    app: Any = cheapest
    if kind == "sdk":
        server = MCPServer("shop", log_level="ERROR")

        @server.tool()
        def echo(text: str) -> str:
            return text

        app = server.streamable_http_app(json_response=True)
    lifespan = "on" if kind == "sdk" else "off"
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, ws="none", lifespan=lifespan)


@contextmanager
def serving(kind: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream", kind, str(port)])
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


# -- the clients ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connector(url: str) -> AsyncIterator[Call]:
    clock, limits = SystemClock(), DEFAULT_LIMITS
    tool = Tool(name="shop", sources={"bench": ToolSource(url=url)})
    ours = McpConnector(
        tool=tool.name,
        stateless=True,
        make=lambda _: HttpUpstream(
            endpoint=Endpoint.parse(url),
            tls=None,
            credential=Credential("", clock=clock, limits=limits),
            pin="",
            mirrored={},
            limits=limits,
        ),
        keys_max=1,
        limits=limits,
        clock=clock,
    )

    async def call() -> None:
        answer = await ours.invoke(invocation())
        assert isinstance(answer, ToolAnswer), answer
        assert answer.content[0]["text"] == "hello"

    yield call
    await ours.aclose()


@asynccontextmanager
async def sdk_client(url: str) -> AsyncIterator[Call]:
    async with Client(url, mode=STATELESS) as client:

        async def call() -> None:
            answer = await client.call_tool("echo", {"text": "hello"})
            assert answer.content[0].text == "hello"  # type: ignore[union-attr]  # the server above sends text

        yield call


@asynccontextmanager
async def bare_post(url: str) -> AsyncIterator[Call]:
    """The same request as ours, written once, its answer not even looked at."""
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": STATELESS,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "echo",
    }
    body = messages.call(1, invocation(), version=STATELESS)
    limits = httpx2.Limits(max_connections=CALLERS * 2, max_keepalive_connections=CALLERS * 2)
    async with httpx2.AsyncClient(trust_env=False, limits=limits) as client:

        async def call() -> None:
            response = await client.post(url, content=body, headers=headers)
            assert response.status_code == httpx2.codes.OK

        yield call


CLIENTS: Final[dict[str, Any]] = {"connector": connector, "sdk_client": sdk_client, "bare_post_httpx": bare_post}


# -- the measurement -----------------------------------------------------------------------------------------------------


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(call: Call) -> dict[str, float]:
    """Alone: how long a caller waits and what it costs this process. Together: how many calls a second."""
    for _ in range(WARM_UP_CALLS):
        await call()
    waits: list[float] = []
    before = cpu_s()
    for _ in range(CALLS_ALONE):
        started = time.perf_counter()
        await call()
        waits.append(time.perf_counter() - started)
    alone_cpu = (cpu_s() - before) / CALLS_ALONE
    left = iter(range(CALLS_TOGETHER))

    async def caller() -> None:
        for _ in left:
            await call()

    before, started = cpu_s(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took = time.perf_counter() - started
    return {
        "p50_ms": round(quantiles(waits, n=100)[49] * 1e3, 3),
        "p99_ms": round(quantiles(waits, n=100)[98] * 1e3, 3),
        "client_cpu_ms": round(alone_cpu * 1e3, 3),
        "calls_per_s": round(CALLS_TOGETHER / took),
        "client_cpu_together_ms": round((cpu_s() - before) / CALLS_TOGETHER * 1e3, 3),
    }


async def _measured(client: Any, url: str) -> dict[str, float]:
    async with client(url) as call:
        return await measure(call)


def run() -> list[dict[str, Any]]:
    """One row for each server and client. Budget: `client_cpu_ms` of the connector at most 0.4."""
    rows: list[dict[str, Any]] = []
    for server in SERVERS:
        with serving(server) as url:
            for name, client in CLIENTS.items():
                rows.append({"server": server, "client": name, **uvloop.run(_measured(client, url))})
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        for row in run():
            sys.stdout.write(json.dumps(row) + "\n")
