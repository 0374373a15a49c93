"""Servers to talk to: real ones made with the MCP SDK, and one that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from interlock.core.contract import Contract, RecordShape
from interlock.core.terms import Effect
from interlock.release.model import Administration, Release, Tool, ToolSource
from interlock.tools.port import ConnectionKey, Invocation
from tests.support.listening import listening_aside
from tests.support.patience import PATIENCE_S

KEY = ConnectionKey(tool="shop")


class StillClock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def wall_us(self) -> int:
        return int(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s


def invocation(name: str = "echo", arguments: bytes = b'{"text":"hello"}', **changes: Any) -> Invocation:
    told: dict[str, Any] = {
        "key": KEY,
        "upstream_name": name,
        "arguments": arguments,
        "timeout_ms": 10_000,
        "before_first_byte": lambda: None,
    }
    return Invocation(**(told | changes))


def release(*tools: Tool, schemas: dict[str, str] | None = None) -> Release:
    contracts = {
        f"shop.{name}": Contract(
            operation=f"shop.{name}",
            tool="shop",
            upstream_name=name,
            effects=frozenset({Effect.READ}),
            input_schema=schema,
            arguments=RecordShape(fields={}),
        )
        for name, schema in (schemas or {}).items()
    }
    return Release(
        name="test",
        digest="sha256:0",
        files={},
        owners={},
        user_attributes={},
        administration=Administration(),
        identities=(),
        tasks={},
        tools={tool.name: tool for tool in tools},
        contracts=contracts,
        approvals={},
        policies=(),
        cedar_schema="",
    )


def shop(protocol: str = "", *, stateless: bool = True, name: str = "shop", **source: Any) -> Tool:
    return Tool(name=name, sources={"test": ToolSource(**source)}, stateless=stateless, protocol=protocol)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run an ASGI app in a thread; yields its base URL."""
    with listening_aside(app, http="auto", ws="none") as port:
        yield f"http://127.0.0.1:{port}"


class Request:
    """One HTTP request as it came over the wire."""

    def __init__(self, raw: bytes, body: bytes) -> None:
        self.raw = raw
        self.body = body
        head = raw.decode("latin-1").split("\r\n")
        self.line = head[0]
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}

    @property
    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def method(self) -> str:
        return str(self.message.get("method", "a reply")) if self.body else self.line.split()[0]


Script = Callable[["Wire", Request], Awaitable[None]]


class Wire:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> Request | None:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        length = next((int(line[16:]) for line in raw.split(b"\r\n") if line.lower().startswith(b"content-length: ")), 0)
        return Request(raw, await self.reader.readexactly(length))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes, *, status: int = 200, kind: str = "application/json", extra: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        await self.send(head.encode() + body)

    async def result(self, request: Request, result: Any, **how: Any) -> None:
        await self.reply(json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "result": result}).encode(), **how)

    async def answer(self, request: Request, text: str = "done") -> None:
        await self.result(request, {"content": [{"type": "text", "text": text}], "resultType": "complete"})

    async def stream(self, *events: Any) -> None:
        """A whole event stream, chunked."""
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            data = f"event: message\r\ndata: {json.dumps(event)}\r\n\r\n".encode()
            await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        self.writer.close()

    async def closed_by_peer(self) -> None:
        """Return once the client has hung up."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            return


class RawServer:
    """Speaks just enough of 2026-07-28 (or, `stateful`, of 2025-11-25) and hands every call to `script`."""

    def __init__(self, script: Script, *, stateful: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.stateful = stateful
        self.tls = tls
        self.requests: list[Request] = []
        self.arrived = asyncio.Condition()
        self.connections = 0
        self.wires: list[Wire] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self.arrived:
            await self.arrived.wait_for(condition)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for wire in self.wires:
            wire.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        wire = Wire(reader, writer)
        self.wires.append(wire)
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._tasks.add(task)

    async def _serve(self, wire: Wire) -> None:
        try:
            while (request := await wire.read()) is not None:
                self.requests.append(request)
                async with self.arrived:
                    self.arrived.notify_all()
                await self._respond(wire, request)
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    async def _respond(self, wire: Wire, request: Request) -> None:
        if request.method == "server/discover" and not self.stateful:
            await wire.result(request, {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"})
        elif request.method == "server/discover":
            await wire.reply(b"Bad Request: unknown protocol version", status=400, kind="text/plain")
        elif request.method == "initialize":
            hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "raw", "version": "1"}}
            await wire.result(request, hello, extra="Mcp-Session-Id: s-1\r\n")
        elif request.method == "tools/call":
            await self.script(wire, request)
        elif request.method == "DELETE":
            await wire.reply(b"")
        else:
            await wire.reply(b"", status=202)
