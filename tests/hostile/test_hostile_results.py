"""Results that no honest tool gives: whatever comes back, the call is settled, the record keeps, and the caller is told the truth."""

import math

import msgspec
import pytest

from interlock.gateway.messages import Effected, Refusal, Returned
from interlock.tools.port import ToolAnswer
from interlock.tools.python import PythonFunction
from tests.support.shop import FILES, Shop, counter


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
    from interlock.gateway.messages import Proposal  # noqa: PLC0415  # beside its only use

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
