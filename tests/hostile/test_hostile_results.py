"""Results that no honest tool gives: whatever comes back, the call is settled, the record keeps, and the caller is told the truth."""

import json
import math
from contextlib import asynccontextmanager

import msgspec
import pytest

from interlock.gateway.messages import Effected, Proposal, Refusal, Returned
from interlock.tools.port import ToolAnswer
from interlock.tools.python import PythonFunction
from tests.support.shop import FILES, Shop, counter
from tests.tools.worlds import RawServer


def deep(levels, leaf="x"):
    value = leaf
    for _ in range(levels):
        value = {"a": value}
    return value


def listed(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


class Whole(dict):
    """A dictionary that is not what it says it is."""

    def items(self):
        raise ZeroDivisionError


GARBAGE = {
    "nothing": None,
    "a text": "hello",
    "deep": {"n": 1, "more": deep(300)},
    "deeper": {"n": 1, "more": deep(900)},
    "deepest": {"n": 1, "more": listed(5_000)},
    "a huge number": {"n": 2**70},
    "a very long number": {"n": 10**5_000},
    "not a number": {"n": math.nan},
    "infinite": {"n": math.inf},
    "half a character": {"n": 1, "more": "\ud800"},
    "a NUL": {"n": 1, "more": "a\x00b"},
    "bytes": {"n": 1, "more": b"\xff"},
    "keys that are no texts": {1: 2, None: 3},
    "a set": {"n": {1, 2}},
    "an object": {"n": object()},
    "a dictionary that breaks": Whole(n=1),
    "content without a type": ToolAnswer(content=({"text": "x"},)),
    "content that is no block": ToolAnswer(content=("x",)),
    "half a character in a text": ToolAnswer(content=({"type": "text", "text": "\ud800"},)),
    "a text that is none": ToolAnswer(content=({"type": "text", "text": 7},)),
    "an error with half a character": ToolAnswer(content=({"type": "text", "text": "\udfff"},), is_error=True),
    "an error that is deep": ToolAnswer(content=({"type": "text", "text": "x", "more": listed(5_000)},), is_error=True),
}
TOOL = """
python: "odd:"
operations:
  get: {effects: [read], input: {item: string}, reviewed: {by: a}}
  put: {effects: [write], input: {item: string}, output: {n: integer}, reviewed: {by: a}}
  add: {effects: [write], input: {item: string}, reviewed: {by: a}}
"""
RELEASE = {
    **FILES,
    "tools/odd.yaml": TOOL,
    "agents.yaml": FILES["agents.yaml"].replace("shop.stock,", "shop.stock, odd.get, odd.put, odd.add,"),
}


class Odd(Shop):
    def __init__(self):
        super().__init__()
        self.gives = None
        self.made = []

    def functions(self):
        async def odd(item):
            self.made.append(item)
            return self.gives

        return super().functions() | {f"odd:{name}": PythonFunction(function=odd) for name in ("get", "put", "add")}


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, Odd(), RELEASE) as made:
        yield made


async def ended(shop):
    rows = await shop.system.database.pool().fetch("SELECT state FROM claim")
    return [row["state"] for row in rows]


async def test_whatever_a_tool_returns_the_call_is_settled_and_told_truthfully(shop):
    session = await shop.session()
    for number, (name, value) in enumerate(GARBAGE.items()):
        for operation in ("get", "put", "add"):
            shop.shop.gives = value
            sent = msgspec.json.encode({"item": f"{number}"})
            answer = await shop.gate.call(session, Proposal(operation=f"odd.{operation}", arguments=sent))
            assert "claimed" not in await ended(shop), (name, operation)
            told = msgspec.json.encode(answer)
            assert b"Traceback" not in told
            if isinstance(answer, Returned):
                continue
            assert isinstance(answer, Refusal)
            assert operation == "get" or answer.effect is not Effected.NONE, (name, operation, answer)
    assert len(shop.shop.made) >= len(GARBAGE)


NOT_JSON = ("an object", "not a number", "infinite", "deepest", "half a character")


@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_write_that_answers_with_what_is_not_json_is_done_and_its_result_not_kept(shop, name):
    session, shop.shop.gives = await shop.session(), GARBAGE[name]
    told = await asked(shop, session, "put")
    assert (told.code, told.effect) == ("result_not_kept", Effected.DONE)
    again = await asked(shop, session, "put")
    assert (again.code, again.effect, again.details["of"]) == ("result_not_kept", Effected.DONE, told.call_id)
    assert len(shop.shop.made) == 1
    assert await ended(shop) == ["succeeded"]
    (settled,) = [body for kind, body in await shop.events(told.call_id) if kind == "call.settled"]
    assert "what the function returned is not JSON" in settled["detail"]


@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_reading_that_is_not_json_says_so(shop, name):
    shop.shop.gives = GARBAGE[name]
    told = await asked(shop, await shop.session(), "get")
    assert (told.code, told.effect, told.retry) == ("result_unreadable", Effected.NONE, "never")
    assert "not JSON" in told.text
    assert await ended(shop) == ["failed"]


LONG = "x" * 50_000_000


@asynccontextmanager
async def a_tool_that_says(result, database_url, state, timeout_ms=30_000):
    """The counter, with the odd tool a server that gives this very result, and what it was asked."""

    async def script(wire, request):
        await wire.reply(json.dumps({"jsonrpc": "2.0", "id": request.message["id"], **result}).encode())

    async with RawServer(script) as server:
        tool = TOOL.replace('python: "odd:"', f"url: {server.url}").replace("reviewed", f"timeout_ms: {timeout_ms}, reviewed")
        async with counter(database_url, state, Odd(), {**RELEASE, "tools/odd.yaml": tool}) as made:
            yield made, server


async def asked(made, session, operation):
    return await made.gate.call(session, Proposal(operation=f"odd.{operation}", arguments=b'{"item":"x"}'))


async def test_a_write_that_answers_with_fifty_megabytes_is_done_and_its_result_not_kept(database_urls, tmp_path):
    result = {"result": {"content": [{"type": "text", "text": LONG}], "structuredContent": {"n": 1}}}
    async with a_tool_that_says(result, database_urls.app, tmp_path) as (made, server):
        session = await made.session()
        told = await asked(made, session, "put")
        assert (told.code, told.effect) == ("result_not_kept", Effected.DONE)
        again = await asked(made, session, "put")
        assert (again.code, again.effect, again.details["of"]) == ("result_not_kept", Effected.DONE, told.call_id)
        assert server.methods.count("tools/call") == 1
        assert await ended(made) == ["succeeded"]
        (settled,) = [body for kind, body in await made.events(told.call_id) if kind == "call.settled"]
        assert "which is more than is kept" in settled["detail"]
        assert len(msgspec.json.encode(settled)) < 2_000


async def test_a_write_that_fails_in_fifty_megabytes_is_told_to_have_failed(database_urls, tmp_path):
    result = {"result": {"content": [{"type": "text", "text": LONG}], "isError": True}}
    async with a_tool_that_says(result, database_urls.app, tmp_path) as (made, _):
        told = await asked(made, await made.session(), "put")
        assert told.is_error
        assert "too long" in told.content[0]["text"]
        assert await ended(made) == ["failed"]


async def test_a_write_whose_long_answer_does_not_say_what_it_is_stays_in_doubt(database_urls, tmp_path):
    result = {"result": {"content": [{"type": "text", "text": LONG}], "isError": "maybe"}}
    async with a_tool_that_says(result, database_urls.app, tmp_path) as (made, server):
        told = await asked(made, await made.session(), "put")
        assert (told.code, told.effect) == ("in_doubt", Effected.UNKNOWN)
        assert server.methods.count("tools/call") == 1


async def test_a_reading_that_is_too_long_says_so(database_urls, tmp_path):
    result = {"result": {"content": [{"type": "text", "text": LONG}]}}
    async with a_tool_that_says(result, database_urls.app, tmp_path) as (made, _):
        told = await asked(made, await made.session(), "get")
        assert (told.code, told.effect) == ("result_too_large", Effected.NONE)
        assert await ended(made) == ["failed"]
