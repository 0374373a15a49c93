"""Connections that are kept, what a server asks meanwhile, credentials, sessions and streams: what goes on from one call to the next."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from interlock.tools.errors import CallFailedError
from interlock.tools.http.sse import EventReader
from interlock.tools.port import ConnectionKey, ToolAnswer
from tests.support.patience import PATIENCE_S
from tests.tools.conftest import Connect
from tests.tools.test_tools_http_nasty import answers, failed, reply
from tests.tools.worlds import RawServer, Request, Wire, invocation, shop

# -- kept connections --------------------------------------------------------------------------------------------------


async def test_a_kept_connection_is_used_again(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url))
        for _ in range(5):
            assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        assert server.connections == 1


async def test_an_idle_connection_that_the_peer_closed_is_noticed_before_anything_is_written(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url))
        for _ in range(3):
            assert isinstance(await connector.invoke(invocation()), ToolAnswer)
            # The FIN is in our kernel, but our event loop has not read it when the next call begins.
            descriptor = server.wires[-1].writer.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(descriptor)) as raw:
                raw.shutdown(socket.SHUT_WR)
        assert server.methods.count("tools/call") == 3
        assert server.connections == 3


async def test_a_response_that_nobody_asked_for_is_never_taken_for_an_answer(connect: Connect) -> None:
    async def twice(wire: Wire, request: Request) -> None:
        body = reply(request, result={"content": [{"type": "text", "text": "first"}]})
        planted = reply(request, id=request.message["id"] + 1, result={"content": [{"type": "text", "text": "planted"}]})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await wire.send(head % len(body) + body + head % len(planted) + planted)

    async with RawServer(twice) as server:
        connector = connect(shop(url=server.url))
        for _ in range(3):
            answer = await connector.invoke(invocation())
            assert isinstance(answer, ToolAnswer)
            assert answer.content[0]["text"] == "first"
        assert server.connections == 3


async def test_a_response_without_a_length_ends_with_the_connection(connect: Connect) -> None:
    async def old_style(wire: Wire, request: Request) -> None:
        await wire.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + reply(request, result={"content": []}))
        wire.close()

    async with RawServer(old_style) as server:
        assert isinstance(await connect(shop(url=server.url)).invoke(invocation()), ToolAnswer)


async def test_an_informational_response_is_passed_over(connect: Connect) -> None:
    async def continues(wire: Wire, request: Request) -> None:
        await wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await wire.answer(request)

    async with RawServer(continues) as server:
        assert isinstance(await connect(shop(url=server.url)).invoke(invocation()), ToolAnswer)


async def test_a_stream_that_goes_on_after_the_result_is_hung_up_on(connect: Connect) -> None:
    hung_up = asyncio.Event()

    async def lingers(wire: Wire, request: Request) -> None:
        data = b"data: " + reply(request, result={"content": []}) + b"\n\n"
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + data)
        await wire.closed_by_peer()
        hung_up.set()

    async with RawServer(lingers) as server:
        connector = connect(shop(url=server.url), close_timeout_ms=20)
        assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        await asyncio.wait_for(hung_up.wait(), PATIENCE_S)


# -- the server asks, the credential, the session ------------------------------------------------------------------------


async def test_requests_of_an_older_server_are_refused_and_its_ping_answered(connect: Connect) -> None:
    async def asks(wire: Wire, request: Request) -> None:
        await wire.stream(
            {"jsonrpc": "2.0", "id": "a", "method": "sampling/createMessage", "params": {}},
            {"jsonrpc": "2.0", "id": "b", "method": "ping"},
            {"jsonrpc": "2.0", "id": request.message["id"], "result": {"content": []}},
        )

    async with RawServer(asks, stateful=True) as server:
        connector = connect(shop(url=server.url))
        assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        await server.until(lambda: server.methods.count("a reply") == 2)
        told = {request.message["id"]: request.message for request in server.requests if request.method == "a reply"}
    assert told["a"]["error"]["code"] == -32601
    assert told["b"]["result"] == {}


async def test_the_credential_is_sent_upstream_and_shown_nowhere_else(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "tok-0123456789")

    async def repeats(wire: Wire, request: Request) -> None:
        await wire.answer(request, text=f"you sent {request.headers['authorization']}")

    caplog.set_level("DEBUG")
    async with RawServer(repeats) as server:
        connector = connect(shop(url=server.url, credential="env:SHOP_TOKEN"))
        answer = await connector.invoke(invocation())
        assert server.requests[-1].headers["authorization"] == "Bearer tok-0123456789"
    assert isinstance(answer, ToolAnswer)
    assert answer.content[0]["text"] == "you sent Bearer [credential withheld]"
    assert "tok-0123456789" not in caplog.text + repr(vars(connector))


async def test_a_credential_in_a_file_is_read_again_after_a_while(connect: Connect, tmp_path: Any, clock: Any) -> None:
    secret = tmp_path / "token"
    secret.write_text("tok-first-one\n")
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url, credential=f"file:{secret}"))
        await connector.invoke(invocation())
        secret.write_text("tok-second-one\n")
        await connector.invoke(invocation())
        clock.now_s += 60
        await connector.invoke(invocation())
        sent = [request.headers["authorization"] for request in server.requests if request.method == "tools/call"]
    assert sent == ["Bearer tok-first-one", "Bearer tok-first-one", "Bearer tok-second-one"]


@pytest.mark.parametrize("value", ["", "two lines\r\nX-Evil: 1"])
async def test_a_credential_that_is_missing_or_could_split_a_header_stops_the_call(
    value: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", value)
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url, credential="env:SHOP_TOKEN"))
        assert failed(await connector.invoke(invocation())) == ("refused", False)
        assert server.requests == []


async def test_proxy_variables_are_ignored(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with RawServer(answers) as server:
        assert isinstance(await connect(shop(url=server.url)).invoke(invocation()), ToolAnswer)


async def test_a_session_that_the_server_has_ended_is_opened_anew_by_the_next_call(connect: Connect) -> None:
    ended: list[bool] = []

    async def forgets(wire: Wire, request: Request) -> None:
        if ended:
            await wire.answer(request)
        else:
            ended.append(True)
            await wire.reply(reply(request, error={"code": -32600, "message": "Session not found"}), status=404)

    async with RawServer(forgets, stateful=True) as server:
        connector = connect(shop(url=server.url))
        assert failed(await connector.invoke(invocation())) == ("protocol", True)
        assert isinstance(await connector.invoke(invocation()), ToolAnswer)
        assert server.methods.count("initialize") == 2


async def test_connections_of_two_users_of_a_stateful_tool_are_never_shared(connect: Connect) -> None:
    async with RawServer(answers, stateful=True) as server:
        connector = connect(shop(url=server.url, stateless=False))
        for user in ("ana", "ben", "ana"):
            key = ConnectionKey(tool="shop", tenant="acme", user=user, agent="bot")
            assert isinstance(await connector.invoke(invocation(key=key)), ToolAnswer)
        assert server.methods.count("initialize") == 2
        assert server.connections == 2


async def test_a_stateful_tool_refuses_a_call_that_is_nobodys(connect: Connect) -> None:
    async with RawServer(answers) as server:
        connector = connect(shop(url=server.url, stateless=False))
        assert failed(await connector.invoke(invocation())) == ("refused", False)
        assert server.requests == []


# -- event streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_whatever_their_line_ends_and_wherever_the_network_cuts(end: bytes, size: int) -> None:
    lines = [
        b": ping",
        b"",
        b"id: 1",
        b"data:",
        b"",
        b"event: message",
        b"data: {",
        b"data: }",
        b"",
        b"event: other",
        b"data: x",
        b"",
    ]
    stream = b"".join(line + end for line in lines)
    reader = EventReader(max_events=10)
    found = [data for at in range(0, len(stream), size) for data in reader.feed(stream[at : at + size])]
    assert [data for data in found if data] == [b"{\n}"]


def test_a_stream_of_too_many_events_is_cut_off() -> None:
    with pytest.raises(CallFailedError):
        EventReader(max_events=3).feed(b"data: x\n\n" * 4)
