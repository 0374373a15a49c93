"""A lean load generator: kept-alive connections, one request at a time on each, raw bytes out, httptools for what comes back.

No HTTP client library, whose own cost would be most of what is measured. Run it in a process of its own: on the server's
event loop it would measure itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

import httptools
import msgspec

ANSWER_S: Final = 30.0

MakeRequest = Callable[[int, int], bytes]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Times in milliseconds; `statuses` counts every answer, so that refusals are not taken for speed.

    `wrong` counts answers of status 200 that `is_right` did not accept. The warm-up is in none of the figures.
    """

    clients: int
    seconds: float
    calls: int
    rps: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    statuses: Mapping[str, int]
    wrong: int


class _Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        body, self._body = self._body, b""
        if answer is not None and not answer.done():
            answer.set_result((self._parser.get_status_code(), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.close()


async def load(
    host: str,
    port: int | Sequence[int],
    make_request: MakeRequest,
    *,
    clients: int,
    seconds: float,
    warm_up_s: float = 0.5,
    is_right: Callable[[bytes], bool] = lambda _: True,
) -> Result:
    """Ask as fast as `clients` connections can, each waiting for its answer before it asks again. Ports take turns.

    `make_request(client, n)` gives the whole request as bytes: `post` makes them. Raises what breaks a connection, and
    `TimeoutError` when no answer comes in 30 s.
    """
    loop = asyncio.get_running_loop()
    ports = [port] if isinstance(port, int) else list(port)
    measure_from = time.perf_counter() + warm_up_s
    until = measure_from + seconds
    times: list[float] = []
    statuses: Counter[str] = Counter()
    wrong = 0

    async def client(number: int) -> None:
        nonlocal wrong
        _, connection = await loop.create_connection(_Connection, host, ports[number % len(ports)])
        n = 0
        try:
            while (begun := time.perf_counter()) < until:
                status, body = await connection.ask(make_request(number, n))
                n += 1
                if begun < measure_from:
                    continue
                times.append(time.perf_counter() - begun)
                statuses[str(status)] += 1
                wrong += status == 200 and not is_right(body)
        finally:
            connection.close()

    async with asyncio.timeout(warm_up_s + seconds + ANSWER_S):
        await asyncio.gather(*(client(number) for number in range(clients)))
    times.sort()
    if not times:
        raise RuntimeError("no call was answered within the time; measure for longer")
    return Result(
        clients=clients,
        seconds=seconds,
        calls=len(times),
        rps=len(times) / seconds,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[int(len(times) * 0.99)] * 1000,
        max_ms=times[-1] * 1000,
        statuses=dict(statuses),
        wrong=wrong,
    )


def post(host: str, port: int, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}:{port}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def tools_call(host: str, port: int, token: str, name: str, arguments: bytes, *, key: str = "", run: str = "") -> bytes:
    """A `tools/call` of MCP 2026-07-28 as bytes. `key` is the idempotency key, `run` the request that it is for, if any."""
    meta: dict[str, object] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    if key:
        meta["interlock/idempotency-key"] = key
    if run:
        meta["interlock/run"] = run
    params = {"name": name, "arguments": msgspec.Raw(arguments), "_meta": meta}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": name,
    }
    return post(host, port, "/mcp", body, headers)
