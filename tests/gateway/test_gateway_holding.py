"""Calls that are held for a caller who comes back: who is gone is waited for by nobody."""

import asyncio

import pytest

from interlock.core.who import Lineage, Session
from interlock.gateway.holding import Holding
from interlock.gateway.messages import Caller, Proposal, Returned
from interlock.gateway.sealing import Seals
from interlock.gateway.streams import OpenStreams

CALLER = Caller(offers=frozenset({"elicitation"}))
PROPOSAL = Proposal(operation="shop.pay", arguments=b'{"n":1}')
SESSION = Session(
    session_id="ses_1",
    lineage=Lineage(tenant="acme", environment="test", agent="bot", user="ana"),
    task="selling",
    roles=(),
    expires_at_us=2**60,
)


class Ids:
    def new(self, kind):
        return f"{kind}_1"


class Standing:
    async def over(self, sessions):
        return frozenset()


@pytest.fixture
def holding():
    return Holding(Seals(b"secret"), Ids(), OpenStreams(Standing()))


def done(text):
    return Returned(call_id="call_1", content=({"type": "text", "text": text},), structured=None, is_error=False)


async def test_a_tool_that_asks_after_its_caller_has_gone_is_told_that_nobody_answers(holding):
    entered, asked, goes_on, answers = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def behind(caller):
        # As a claimed call does: it goes on when whoever made it has gone.
        entered.set()
        await goes_on.wait()
        answers.append(await caller.ask("elicitation/create", {}))
        asked.set()

    async def make(session, proposal, caller, call_id):
        making = asyncio.ensure_future(behind(caller))
        await asyncio.shield(making)
        return done("late")

    waiting = asyncio.ensure_future(holding.call(SESSION, PROPOSAL, CALLER, make))
    await entered.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    goes_on.set()
    await asyncio.wait_for(asked.wait(), 10)
    assert answers == [None]
    assert holding._held == {}


async def test_what_is_asked_at_the_same_time_is_put_together_and_what_comes_later_is_put_later(holding):
    async def make(session, proposal, caller, call_id):
        first, second = await asyncio.gather(caller.ask("elicitation/create", {"n": 1}), caller.ask("roots/list", {}))
        third = await caller.ask("elicitation/create", {"n": 3})
        return done(f"{first} {second} {third}")

    told = await holding.call(SESSION, PROPOSAL, CALLER, make)
    assert [request["method"] for request in told.asks.requests.values()] == ["elicitation/create", "roots/list"]
    answers = b'{"ask-1":{"a":1},"ask-2":[],"ask-9":{}}'
    again = Proposal(operation="shop.pay", arguments=b'{ "n": 1 }', state=told.asks.state, answers=answers)
    told = await holding.call(SESSION, again, CALLER, make)
    assert list(told.asks.requests) == ["ask-3"]
    last = Proposal(operation="shop.pay", arguments=b'{"n":1}', state=told.asks.state, answers=b'{"ask-3":{"a":3}}')
    # What is no object is no answer.
    assert (await holding.call(SESSION, last, CALLER, make)).content[0]["text"] == "{'a': 1} None {'a': 3}"
    assert holding._held == {}
