"""Against a server that misbehaves: whatever it does, the outcome is told truthfully."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from interlock.tools.port import Connector, ToolAnswer, ToolFailure, ToolResult
from tests.support.patience import PATIENCE_S
from tests.tools.conftest import Connect
from tests.tools.worlds import RawServer, Request, Wire, invocation, shop


async def answers(wire: Wire, request: Request) -> None:
    await wire.answer(request)


def failed(result: ToolResult) -> tuple[str, bool]:
    assert isinstance(result, ToolFailure), result
    return result.code, result.sent


def reply(request: Request, **fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.message["id"], **fields}).encode()


# -- what goes out -----------------------------------------------------------------------------------------------------


async def test_the_bytes_that_were_hashed_are_the_bytes_that_are_sent(connect: Connect) -> None:
    odd = '{"a":1.10,"b":"\\u00e9 é","c":{ "z":1,"a":2 },"text":"}}"}'.encode()
    async with RawServer(answers) as server:
        await connect(shop(url=server.url)).invoke(invocation(arguments=odd))
        assert b'"arguments":' + odd in server.requests[-1].body
        assert server.requests[-1].body.count(odd) == 1


async def test_a_call_carries_the_headers_and_the_envelope_of_the_stateless_revision(connect: Connect) -> None:
    async with RawServer(answers) as server:
        call = invocation("größe", idempotency_key="k-1", trace_meta={"traceparent": "00-1"})
        await connect(shop(url=server.url)).invoke(call)
        request = server.requests[-1]
    meta = request.message["params"]["_meta"]
    assert request.headers["mcp-protocol-version"] == meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert request.headers["mcp-method"] == "tools/call"
    assert request.headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert (meta["idempotency-key"], meta["traceparent"]) == ("k-1", "00-1")
    assert "authorization" not in request.headers


async def test_trace_fields_cannot_change_the_envelope(connect: Connect) -> None:
    async with RawServer(answers) as server:
        call = invocation(trace_meta={"io.modelcontextprotocol/protocolVersion": "1999-01-01"})
        await connect(shop(url=server.url)).invoke(call)
        meta = server.requests[-1].message["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


async def test_the_older_revision_shakes_hands_once_keeps_its_session_and_ends_it(connect: Connect) -> None:
    async with RawServer(answers, stateful=True) as server:
        connector = connect(shop(url=server.url))
        for _ in range(2):
            assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        await connector.aclose()
        await server.until(lambda: "DELETE" in server.methods)
        told = [request.method for request in server.requests]
        assert told == [
            "server/discover",
            "initialize",
            "notifications/initialized",
            "tools/call",
            "tools/call",
            "DELETE",
        ]
        for request in server.requests[2:]:
            assert request.headers["mcp-session-id"] == "s-1"
            assert request.headers["mcp-protocol-version"] == "2025-11-25"


async def test_many_first_calls_negotiate_once(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url))
        await asyncio.gather(*(connector.invoke(invocation()) for _ in range(10)))
        assert server.methods.count("server/discover") == 1


async def test_a_pin_to_the_stateless_revision_never_shakes_hands(connect: Connect) -> None:
    async with RawServer(answers, stateful=True) as server:
        assert failed(await connect(shop("2026-07-28", url=server.url)).invoke(invocation())) == ("protocol", False)
        assert "initialize" not in server.methods


# -- the first byte ----------------------------------------------------------------------------------------------------


def stop() -> None:
    raise PermissionError("the lease has run out")


async def test_a_call_refused_at_the_first_byte_leaves_nothing_on_a_new_connection(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url))
        assert failed(await connector.invoke(invocation(before_first_byte=stop))) == ("refused", False)
        assert "tools/call" not in server.methods


async def test_a_call_refused_at_the_first_byte_leaves_nothing_on_a_kept_connection(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url))
        await connector.invoke(invocation())
        assert failed(await connector.invoke(invocation(before_first_byte=stop))) == ("refused", False)
        assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        assert server.methods.count("tools/call") == 2


async def test_the_permit_is_asked_only_once_connected(connect: Connect) -> None:
    asked: list[bool] = []
    call = invocation(before_first_byte=lambda: asked.append(True))
    result = await connect(shop(url="http://127.0.0.1:1/mcp")).invoke(call)
    assert failed(result) == ("unreachable", False)
    assert not asked


async def negotiated(connector: Connector) -> Connector:
    """Ready to call, so that the time of the next call is spent on that call alone."""
    assert failed(await connector.invoke(invocation(before_first_byte=stop))) == ("refused", False)
    return connector


# -- what was sent and what was not ------------------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve_was_not_sent(connect: Connect) -> None:
    result = await connect(shop(url="http://no-such-host.invalid/mcp")).invoke(invocation())
    assert failed(result) == ("unreachable", False)


async def test_a_server_without_tls_where_tls_is_asked_was_not_sent(connect: Connect) -> None:
    async with RawServer(answers) as server:
        result = await connect(shop(url=server.url.replace("http:", "https:")), connect_timeout_ms=200).invoke(invocation())
    assert failed(result) == ("unreachable", False)


async def hangs(wire: Wire, request: Request) -> None:
    await wire.closed_by_peer()


async def dies_at_once(wire: Wire, request: Request) -> None:
    wire.close()


async def dies_in_the_head(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-")
    wire.close()


async def dies_in_the_body(wire: Wire, request: Request) -> None:
    await wire.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"jsonrpc"')
    wire.close()


async def dies_in_the_stream(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n")
    wire.close()


async def stream_without_result(wire: Wire, request: Request) -> None:
    await wire.stream({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})


async def not_http(wire: Wire, request: Request) -> None:
    await wire.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


async def switches_protocols(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\x00\x00\x00\x04\x00")
    await wire.closed_by_peer()


async def continues_for_ever(wire: Wire, request: Request) -> None:
    while True:
        await wire.send(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100)


async def trailers_for_ever(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n")
    while True:
        await wire.send(b"X-A: " + b"y" * 1_000 + b"\r\n")


async def one_trailer_for_ever(wire: Wire, request: Request) -> None:
    await wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-A: "
    )
    while True:
        await wire.send(b"y" * 10_000)


async def a_chunk_extended_for_ever(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1;a=")
    while True:
        await wire.send(b"y" * 10_000)


async def two_lengths(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")


async def not_json(wire: Wire, request: Request) -> None:
    await wire.reply(b"<html>hello</html>")


async def html(wire: Wire, request: Request) -> None:
    await wire.reply(b"<html>hello</html>", kind="text/html")


async def deep(wire: Wire, request: Request) -> None:
    await wire.reply(b'{"jsonrpc":"2.0","id":2,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


async def compressed(wire: Wire, request: Request) -> None:
    await wire.reply(b"\x1f\x8b", extra="Content-Encoding: gzip\r\n")


async def wrong_id(wire: Wire, request: Request) -> None:
    await wire.reply(reply(request, id=request.message["id"] + 1, result={"content": []}))


async def id_as_text(wire: Wire, request: Request) -> None:
    await wire.reply(reply(request, id=str(request.message["id"]), result={"content": []}))


async def wrong_id_in_stream(wire: Wire, request: Request) -> None:
    await wire.stream({"jsonrpc": "2.0", "id": 999, "result": {"content": []}})


async def result_and_error(wire: Wire, request: Request) -> None:
    await wire.reply(reply(request, result={"content": []}, error={"code": 1, "message": "x"}))


async def no_content(wire: Wire, request: Request) -> None:
    await wire.result(request, {"structuredContent": {}})


async def content_without_type(wire: Wire, request: Request) -> None:
    await wire.result(request, {"content": [{"text": "hello"}]})


async def structured_list(wire: Wire, request: Request) -> None:
    await wire.result(request, {"content": [], "structuredContent": [1]})


async def is_error_as_text(wire: Wire, request: Request) -> None:
    await wire.result(request, {"content": [], "isError": "no"})


async def wants_input(wire: Wire, request: Request) -> None:
    await wire.result(request, {"resultType": "input_required", "inputRequests": {}, "content": []})


async def redirects(wire: Wire, request: Request) -> None:
    await wire.reply(b"", status=307, extra="Location: http://127.0.0.1:1/\r\n")


async def accepts_only(wire: Wire, request: Request) -> None:
    await wire.reply(b"", status=202)


async def overloaded(wire: Wire, request: Request) -> None:
    await wire.reply(b"busy", status=503, kind="text/plain")


async def forbids(wire: Wire, request: Request) -> None:
    await wire.reply(b"no", status=401, kind="text/plain")


async def mismatch(wire: Wire, request: Request) -> None:
    await wire.reply(reply(request, error={"code": -32020, "message": "header mismatch"}), status=400)


async def huge_length(wire: Wire, request: Request) -> None:
    await wire.reply(b"x" * 200_000)


async def huge_event(wire: Wire, request: Request) -> None:
    await wire.stream({"jsonrpc": "2.0", "method": "notifications/message", "params": "x" * 200_000})


async def many_events(wire: Wire, request: Request) -> None:
    await wire.stream(*({"jsonrpc": "2.0", "method": "notifications/message"} for _ in range(60)))


async def endless_head(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await wire.send(b"x" * 10_000)


async def many_headers(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"Content-Length: 0\r\n\r\n")


async def asks_without_end(wire: Wire, request: Request) -> None:
    await wire.stream(*({"jsonrpc": "2.0", "id": n, "method": "sampling/createMessage"} for n in range(40)))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (dies_at_once, "unreachable"),
        (dies_in_the_head, "unreachable"),
        (dies_in_the_body, "protocol"),
        (dies_in_the_stream, "protocol"),
        (stream_without_result, "protocol"),
        (not_http, "protocol"),
        (two_lengths, "protocol"),
        (switches_protocols, "protocol"),
        (continues_for_ever, "too_large"),
        (trailers_for_ever, "too_large"),
        (one_trailer_for_ever, "too_large"),
        (a_chunk_extended_for_ever, "too_large"),
        (not_json, "protocol"),
        (html, "protocol"),
        (deep, "protocol"),
        (compressed, "protocol"),
        (wrong_id, "protocol"),
        (id_as_text, "protocol"),
        (wrong_id_in_stream, "protocol"),
        (result_and_error, "protocol"),
        (no_content, "protocol"),
        (content_without_type, "protocol"),
        (structured_list, "protocol"),
        (is_error_as_text, "protocol"),
        (wants_input, "protocol"),
        (redirects, "protocol"),
        (accepts_only, "protocol"),
        (overloaded, "unreachable"),
        (forbids, "refused"),
        (mismatch, "protocol"),
        (huge_length, "too_large"),
        (huge_event, "too_large"),
        (many_events, "too_large"),
        (endless_head, "too_large"),
        (many_headers, "too_large"),
        (asks_without_end, "too_large"),
    ],
)
async def test_after_the_first_byte_every_failure_says_that_the_call_may_have_arrived(
    script: Callable[[Wire, Request], Awaitable[None]], code: str, connect: Connect
) -> None:
    async with RawServer(script) as server:
        connector = connect(
            shop(url=server.url), response_max_bytes=100_000 if code == "too_large" else 400_000, stream_max_events=50
        )
        assert failed(await connector.invoke(invocation())) == (code, True)
        assert server.methods.count("tools/call") == 1, "nothing is sent twice"


async def says_late(wire: Wire, request: Request, late: object) -> None:
    error = {"code": -32000, "message": "too late", "data": {"interlock/late": late}}
    await wire.reply(json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "error": error}).encode())


async def comes_late(wire: Wire, request: Request) -> None:
    await says_late(wire, request, True)


async def claims_to_be_late(wire: Wire, request: Request) -> None:
    await says_late(wire, request, "yes")


async def test_a_tool_that_keeps_to_the_fence_says_that_nothing_was_done(connect: Connect) -> None:
    async with RawServer(comes_late) as server:
        connector = connect(shop(url=server.url))
        assert failed(await connector.invoke(invocation())) == ("late", False)


async def test_anything_less_than_that_is_an_answer_of_the_tool(connect: Connect) -> None:
    async with RawServer(claims_to_be_late) as server:
        answer = await connect(shop(url=server.url)).invoke(invocation())
        assert isinstance(answer, ToolAnswer)
        assert answer.is_error


async def test_a_server_that_hangs_runs_into_the_time_of_the_call(connect: Connect) -> None:
    async with RawServer(hangs) as server:
        connector = await negotiated(connect(shop(url=server.url)))
        assert failed(await connector.invoke(invocation(timeout_ms=100))) == ("timeout", True)


async def test_a_server_that_hangs_before_the_call_is_a_failure_that_was_not_sent(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        connector = connect(shop(url=f"http://127.0.0.1:{deaf.getsockname()[1]}/mcp"))
        assert failed(await connector.invoke(invocation(timeout_ms=150))) == ("timeout", False)


async def test_a_slow_drip_does_not_stretch_the_time_of_the_call(connect: Connect) -> None:
    async def drips(wire: Wire, request: Request) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n")
        while True:
            await wire.send(b" ")
            await asyncio.sleep(0)

    async with RawServer(drips) as server:
        connector = await negotiated(connect(shop(url=server.url)))
        assert failed(await connector.invoke(invocation(timeout_ms=100))) == ("timeout", True)


async def test_waiting_for_a_free_connection_that_never_comes_was_not_sent(connect: Connect) -> None:
    async with RawServer(hangs) as server:
        connector = connect(shop(url=server.url), connections_max=1)
        first = asyncio.ensure_future(connector.invoke(invocation()))
        await server.until(lambda: "tools/call" in server.methods)
        assert failed(await connector.invoke(invocation(timeout_ms=100))) == ("timeout", False)
        await connector.aclose()
        assert failed(await first) == ("cancelled", True)


async def test_closing_ends_calls_in_flight_truthfully_and_takes_no_more(connect: Connect) -> None:
    async with RawServer(hangs) as server:
        connector = connect(shop(url=server.url))
        call = asyncio.ensure_future(connector.invoke(invocation()))
        await server.until(lambda: "tools/call" in server.methods)
        await connector.aclose()
        assert failed(await call) == ("cancelled", True)
        assert failed(await connector.invoke(invocation())) == ("cancelled", False)


async def test_a_caller_that_stops_waiting_hangs_up_and_frees_the_connection(connect: Connect) -> None:
    seen = asyncio.Event()
    hung_up = asyncio.Event()

    async def waits(wire: Wire, request: Request) -> None:
        if seen.is_set():
            await wire.answer(request)
            return
        seen.set()
        await wire.closed_by_peer()
        hung_up.set()

    async with RawServer(waits) as server:
        connector = connect(shop(url=server.url), connections_max=1)
        call = asyncio.ensure_future(connector.invoke(invocation()))
        await asyncio.wait_for(seen.wait(), PATIENCE_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(hung_up.wait(), PATIENCE_S)
        assert isinstance(await connector.invoke(invocation()), ToolAnswer)


async def test_an_older_server_is_told_that_a_call_was_given_up(connect: Connect) -> None:
    async with RawServer(hangs, stateful=True) as server:
        connector = await negotiated(connect(shop(url=server.url)))
        assert failed(await connector.invoke(invocation(timeout_ms=100))) == ("timeout", True)
        await server.until(lambda: "notifications/cancelled" in server.methods)
        call = next(request for request in server.requests if request.method == "notifications/cancelled")
        assert isinstance(call.message["params"]["requestId"], int)
