"""Answers too long to keep: nothing of them is, and yet it is told whether the call was done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from interlock.tools.port import ToolAnswer, ToolFailure, ToolResult
from tests.tools.conftest import Connect
from tests.tools.test_tools_stdio import fake, text
from tests.tools.worlds import RawServer, Request, Wire, invocation, shop

KEPT_BYTES = 100_000
READ_ON_BYTES = 1_000_000
LONG = "x" * 300_000
RECORDS = {"rows": [{"id": n, "name": 'a "quoted" \\ name', "tags": ["{", "]", []]} for n in range(3_000)]}
Script = Callable[[Wire, Request], Awaitable[None]]


def said(result: ToolResult) -> str:
    """In a word: done, failed, or the code of what is in doubt."""
    if isinstance(result, ToolFailure):
        assert result.sent
        return result.code
    assert result.not_kept_bytes > KEPT_BYTES
    assert result == ToolAnswer(is_error=result.is_error, not_kept_bytes=result.not_kept_bytes)
    return "failed" if result.is_error else "done"


def message(request: Request, **members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.message["id"], **members}).encode()


def good(**more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": LONG}], **more}


async def as_json(wire: Wire, body: bytes) -> None:
    await wire.reply(body)


async def as_chunks(wire: Wire, body: bytes) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), 7_001):
        part = body[at : at + 7_001]
        await wire.send(b"%x\r\n%b\r\n" % (len(part), part))
    await wire.send(b"0\r\n\r\n")


async def as_event(wire: Wire, body: bytes) -> None:
    await wire.stream(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}, json.loads(body)
    )


async def after_many_events(wire: Wire, body: bytes) -> None:
    beside = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "y" * 9_000}}
    await wire.stream(*[beside] * 20, json.loads(body))


async def as_event_of_many_lines(wire: Wire, body: bytes) -> None:
    lines = json.dumps(json.loads(body), indent=1).encode().split(b"\n")
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 1\rdata:\r\rdata\r\revent: message\r")
    await wire.send(b"".join(b"data:" + line + b"\r" for line in lines) + b"\r\n")


WAYS = (as_json, as_chunks, as_event, after_many_events, as_event_of_many_lines)
ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "a result": ({"result": good()}, "done"),
    "a result that says it is whole": ({"result": good(isError=False, resultType="complete")}, "done"),
    "a result of many records": ({"result": {"content": [], "structuredContent": RECORDS}}, "done"),
    "an error of the tool": ({"result": good(isError=True)}, "failed"),
    "an error of the tool said first": ({"result": {"isError": True, **good()}}, "failed"),
    "an error": ({"error": {"code": -32602, "message": LONG}}, "failed"),
    "a refusal of the message": ({"error": {"code": -32600, "message": LONG}}, "too_large"),
    "an error without a code": ({"error": {"message": LONG}}, "too_large"),
    "a result and an error": ({"result": good(), "error": {"code": 1, "message": "x"}}, "too_large"),
    "a result that is none": ({"result": [LONG]}, "too_large"),
    "a result without content": ({"result": {"structuredContent": {"a": LONG}}}, "too_large"),
    "a word for yes": ({"result": good(isError="yes")}, "too_large"),
    "a wish to go on": ({"result": good(resultType="input_required")}, "too_large"),
    "an answer to somebody else": ({"result": good(), "id": 4_711}, "protocol"),
    "the id as a text": ({"result": good(), "id": "2"}, "protocol"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ANSWERS)
async def test_of_an_answer_too_long_to_keep_it_is_told_whether_the_call_was_done(
    name: str, way: Callable[[Wire, bytes], Awaitable[None]], connect: Connect
) -> None:
    members, expected = ANSWERS[name]

    async def script(wire: Wire, request: Request) -> None:
        await way(wire, message(request, **members))

    async with RawServer(script) as server:
        connector = connect(shop(url=server.url), response_max_bytes=KEPT_BYTES, skimmed_max_bytes=READ_ON_BYTES)
        assert said(await connector.invoke(invocation())) == expected
        assert server.methods.count("tools/call") == 1


async def cut_off(wire: Wire, request: Request) -> None:
    await as_json(wire, message(request, result=good())[:-1])


async def cut_off_with_its_connection(wire: Wire, request: Request) -> None:
    body = message(request, result=good())
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    await wire.send(body[:-1])
    wire.close()


async def cut_off_in_a_stream(wire: Wire, request: Request) -> None:
    await wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + message(request, result=good()) + b"\n"
    )
    wire.close()


async def garbage(wire: Wire, request: Request) -> None:
    await wire.reply(b"x" * 300_000)


async def brackets(wire: Wire, request: Request) -> None:
    await wire.reply(b'{"jsonrpc":"2.0","result":{"content":' + b"[" * 300_000)


async def the_wrong_bracket(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result=good())[:-2] + b"]}")


async def twice_something_else(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result=good(isError=True))[:-2] + b',"is\\u0045rror":false}}')


async def more_after_it(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result=good()) + b"{}")


async def longer_than_is_read_on(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result={"content": [], "structuredContent": {"a": "x" * READ_ON_BYTES}}))


async def for_ever(wire: Wire, request: Request) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    while True:
        await wire.send(b": " + b"x" * 50_000 + b"\n")


async def a_page_of_its_own(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result=good()), kind="text/html")


async def with_a_server_error(wire: Wire, request: Request) -> None:
    await wire.reply(message(request, result=good()), status=500)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (cut_off, "too_large"),
        (cut_off_with_its_connection, "protocol"),
        (cut_off_in_a_stream, "protocol"),
        (garbage, "too_large"),
        (brackets, "too_large"),
        (the_wrong_bracket, "too_large"),
        (twice_something_else, "too_large"),
        (more_after_it, "too_large"),
        (longer_than_is_read_on, "too_large"),
        (for_ever, "too_large"),
        (a_page_of_its_own, "too_large"),
        (with_a_server_error, "too_large"),
    ],
)
async def test_what_does_not_come_whole_or_can_be_read_in_two_ways_stays_in_doubt(
    script: Script, code: str, connect: Connect
) -> None:
    async with RawServer(script) as server:
        connector = connect(shop(url=server.url), response_max_bytes=KEPT_BYTES, skimmed_max_bytes=READ_ON_BYTES)
        assert said(await connector.invoke(invocation())) == code


async def test_fifty_megabytes_are_read_to_their_end_and_not_kept(connect: Connect) -> None:
    async def script(wire: Wire, request: Request) -> None:
        await wire.reply(message(request, result={"content": [{"type": "text", "text": "y" * 50_000_000}]}))

    async with RawServer(script) as server:
        answer = await connect(shop(url=server.url)).invoke(invocation(timeout_ms=60_000))
        assert isinstance(answer, ToolAnswer)
        assert answer.not_kept_bytes > 50_000_000
        assert not answer.content


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        ("text(message, 'x' * 300_000)", "done"),
        ("answer(message, {'content': [], 'isError': True, 'structuredContent': {'a': 'x' * 300_000}})", "failed"),
        ("answer(message, {'content': 'x' * 300_000})", "too_large"),
        ("text(message, 'x' * 2_000_000)", "too_large"),
        (
            'sys.stdout.write(\'{"jsonrpc":"2.0","id":2,"result":{"content":["\' + \'x\' * 300_000); sys.stdout.flush(); os._exit(1)',
            "unreachable",
        ),
    ],
)
async def test_a_line_of_a_process_too_long_to_keep_is_told_in_the_same_way(
    handle: str, expected: str, connect: Connect
) -> None:
    connector = connect(fake(handle), response_max_bytes=KEPT_BYTES, skimmed_max_bytes=READ_ON_BYTES)
    assert said(await connector.invoke(invocation(timeout_ms=60_000))) == expected


async def test_a_long_line_of_a_process_disturbs_no_other_call(connect: Connect) -> None:
    handle = "text(message, 'x' * (300_000 if 'long' in line else 1))"
    connector = connect(fake(handle), response_max_bytes=KEPT_BYTES, skimmed_max_bytes=READ_ON_BYTES)
    assert said(await connector.invoke(invocation(arguments=b'{"text":"long"}', timeout_ms=60_000))) == "done"
    assert text(await connector.invoke(invocation())) == "x"
