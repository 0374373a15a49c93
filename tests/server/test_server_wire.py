"""What an answer is on the wire, and how a request learns that its client has gone."""

import asyncio
import json
import logging

import pytest
import uvicorn
from uvicorn.server import ServerState

from interlock.server.http import BoundedHttp
from interlock.server.router import Router
from tests.server.standin import META, STATELESS, Door, StandIn, door
from tests.support.patience import PATIENCE_S

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shop.pay", "arguments": {}, "_meta": META}}
BEGIN = "http.response.start"
PART = "http.response.body"


class Wire(asyncio.Transport):
    """A connection that keeps what is written, each write for itself."""

    def __init__(self):
        super().__init__()
        self.writes, self.is_closed, self.is_read = [], False, True

    def write(self, data):
        self.writes.append(bytes(data))

    def writelines(self, parts):
        self.writes.append(b"".join(parts))

    def close(self):
        self.is_closed = True

    abort = close

    def is_closing(self):
        return self.is_closed

    def pause_reading(self):
        self.is_read = False

    def resume_reading(self):
        self.is_read = True


def connected(app, wire):
    config = uvicorn.Config(app, log_config=None, access_log=False, http=BoundedHttp, lifespan="off")
    config.load()
    state = ServerState()
    connection = BoundedHttp(config=config, server_state=state, app_state={})
    connection.connection_made(wire)
    return connection, state


async def served(request, app, wire=None):
    """The connection of these requests when the application has answered them."""
    wire = wire or Wire()
    connection, state = connected(app, wire)
    connection.data_received(request)
    while state.tasks:
        await asyncio.gather(*state.tasks)
    connection.connection_lost(None)
    return wire


def answering(*messages, fails=False):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        if fails:
            raise ValueError

    return app


def begin(*headers):
    return {"type": BEGIN, "status": 200, "headers": list(headers)}


GET, HEAD = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n"
TWO = (b"content-length", b"2")


async def test_an_answer_of_known_length_is_one_write():
    wire = await served(GET, answering(begin(TWO), {"type": PART, "body": b"ok"}))
    (whole,) = wire.writes
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\nok")


async def test_the_rest_of_an_answer_in_parts_follows_as_it_comes():
    wire = await served(
        GET, answering(begin(TWO), {"type": PART, "body": b"o", "more_body": True}, {"type": PART, "body": b"k"})
    )
    first, second = wire.writes
    assert (first[-5:], second) == (b"\r\n\r\no", b"k")


@pytest.mark.parametrize("request_", [GET, HEAD], ids=["stream", "head alone"])
async def test_a_head_that_no_body_is_sure_to_follow_leaves_at_once(request_):
    wire, seen = Wire(), []

    async def app(scope, receive, send):
        await send(begin(*([TWO] if scope["method"] == "HEAD" else [])))
        seen.extend(wire.writes)
        await send({"type": PART})

    await served(request_, app, wire)
    (head,) = seen
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")


async def test_an_answer_that_breaks_after_its_head_shows_that_it_broke(caplog):
    with caplog.at_level(logging.CRITICAL):
        wire = await served(GET, answering(begin(TWO), fails=True))
    assert b"".join(wire.writes).endswith(b"content-length: 2\r\n\r\n")
    assert wire.is_closed


async def test_two_requests_at_once_are_answered_each_in_a_write_of_its_own():
    wire = await served(GET + GET, answering(begin(TWO), {"type": PART, "body": b"ok"}))
    assert [answer[-6:] for answer in wire.writes] == [b"\r\n\r\nok"] * 2


# -- a client that goes ------------------------------------------------------------------------------------------------------


def call(*lines, more=""):
    body = json.dumps(CALL | {"more": more}).encode()
    usual = (
        "POST /mcp HTTP/1.1",
        "host: localhost",
        "authorization: Bearer token-ana",
        "content-type: application/json",
        f"mcp-protocol-version: {STATELESS}",
        "mcp-method: tools/call",
        "mcp-name: shop.pay",
        f"content-length: {len(body)}",
    )
    return "\r\n".join((*usual, *lines, "", "")).encode() + body


@pytest.fixture
async def at():
    async with door() as opened:
        opened.gate.go_on.clear()
        yield opened


@pytest.mark.parametrize("sent", [call(), call() + call()], ids=["alone", "with another behind it"])
async def test_a_call_is_told_that_its_client_has_gone(at: Door, sent, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE_S):
        await at.gate.entered.wait()
        writer.close()
        await at.gate.cancelled.wait()
    assert await reader.read() == b""
    assert len(at.gate.proposals) == 1
    assert caplog.records == []


async def test_the_connection_of_a_call_is_read_however_much_came_at_once():
    gate, wire, waits = StandIn(), Wire(), asyncio.Event()
    gate.go_on.clear()
    router = Router(gate=gate, session_of=gate.session, plane=gate)

    async def app(scope, receive, send):
        async def hear():
            waits.set()
            return await receive()

        await router(scope, hear, send)

    connection, state = connected(app, wire)
    head, _, body = call(more="x" * 200_000).partition(b"\r\n\r\n")
    connection.data_received(head + b"\r\n\r\n")
    await waits.wait()
    connection.data_received(body)
    assert not wire.is_read
    await gate.entered.wait()
    assert wire.is_read  # else nobody would hear that the client leaves
    connection.connection_lost(None)
    await asyncio.gather(*state.tasks)
    assert gate.cancelled.is_set()


async def test_a_request_that_the_server_ends_is_not_taken_for_a_client_that_left(at: Door, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(call())
    async with asyncio.timeout(PATIENCE_S):
        await at.gate.entered.wait()
        (request,) = [task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())]
        request.cancel()
        answer = await reader.readuntil(b"\r\n")
    assert answer == b"HTTP/1.1 500 Internal Server Error\r\n"
    writer.close()
