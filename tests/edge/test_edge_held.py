"""A server of 2025-11-25 asks while it runs; a client of 2026-07-28 is asked by an answer: the call is held open in between."""

import asyncio

import msgspec
import pytest

from bench.conformance.release import contracts
from tests.edge.conftest import STATEFUL, STATELESS
from tests.support.patience import patient_http, until

# What the newest revision has deprecated is still to be had.
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
ASKS = {"name": "test_elicitation", "arguments": {"message": "Who?"}}
YES = {"action": "accept", "content": {"username": "ana", "email": "ana@acme.example"}}


def operations(**more):
    found = {name: contracts()[name] for name in ("test_elicitation", "test_sampling", "test_streaming_elicitation")}
    found["test_elicitation"] = {**found["test_elicitation"], "effects": ["write"], **more}
    return found


class Raw:
    """A client that keeps what it is asked, in place of answering at once."""

    def __init__(self, it, token):
        self.it, self.token = it, token

    async def call(self, params, *, port=None, **more):
        capabilities = {"elicitation": {}, "sampling": {}, "roots": {}}
        versions = {
            "io.modelcontextprotocol/protocolVersion": STATELESS,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, **more, "_meta": versions}}
        headers = {
            "authorization": f"Bearer {self.token}",
            "mcp-protocol-version": STATELESS,
            "mcp-method": "tools/call",
            "mcp-name": params["name"],
        }
        async with patient_http(headers=headers) as http:
            answer = (await http.post(f"http://127.0.0.1:{port or self.it.port}/mcp/everything", json=body)).json()
        return answer.get("result", answer)

    async def asked(self, params=ASKS):
        told = await self.call(params)
        assert told["resultType"] == "input_required", told
        return told


def answering(told, answer=YES):
    return {"inputResponses": dict.fromkeys(told["inputRequests"], answer), "requestState": told["requestState"]}


def decision(told):
    return told["_meta"]["interlock/decision"]


@pytest.fixture
def held(edge):
    def made(**more):
        return edge(STATEFUL, operations(**more))

    return made


async def test_the_answers_reach_the_call_that_waits_for_them_and_it_is_one_call(held):
    async with held() as it:
        token, session = await it.token()
        client = Raw(it, token)
        told = await client.asked()
        (request,) = told["inputRequests"].values()
        assert request["params"]["message"] == "[asked by the tool everything.test_elicitation] Who?"
        assert decision(told)["effect"] == "unknown"
        done = await client.call(ASKS, **answering(told))
        assert "action=accept" in done["content"][0]["text"]
        kinds = await it.events(session)
        assert kinds.count("call.claimed") == kinds.count("call.settled") == 1
        assert kinds[-3:] == ["call.asked", "call.answered", "call.settled"]
        assert it.system.gate._holding._held == {}
        # The same answers once more reach nobody; the call itself, repeated, gets its first outcome.
        assert decision(await client.call(ASKS, **answering(told)))["code"] == "answers_elsewhere"
        assert "interlock/replayed" in (await client.call(ASKS))["_meta"]


async def test_another_process_refuses_the_answers_on_record_and_the_call_still_waits_for_them(held):
    async with held() as it, it.another() as port:
        token, session = await it.token()
        client = Raw(it, token)
        told = await client.asked()
        refused = await client.call(ASKS, port=port, **answering(told))
        assert (decision(refused)["code"], decision(refused)["effect"]) == ("answers_elsewhere", "unknown")
        bodies = [msgspec.json.decode(event.body) for event in await it.system.traces.events(session.session_id)]
        assert [body["code"] for body in bodies if "outcome" in body] == ["answers_elsewhere"]
        done = await client.call(ASKS, **answering(told))
        assert "action=accept" in done["content"][0]["text"]


async def test_when_the_time_is_over_the_call_is_settled_honestly_and_answers_are_refused(held):
    async with held(timeout_ms=400) as it:
        token, session = await it.token()
        client = Raw(it, token)
        told = await client.asked()

        async def settled():
            return "call.settled" in await it.events(session)

        await until(settled)
        late = await client.call(ASKS, **answering(told))
        assert (decision(late)["code"], decision(late)["effect"]) == ("answers_elsewhere", "unknown")
        # The tool was called and has not answered: what it did nobody knows.
        assert decision(await client.call(ASKS))["code"] == "in_doubt"
        assert it.system.gate._holding._held == {}


async def test_answers_of_another_user_or_for_another_call_reach_nobody(held):
    async with held() as it:
        (ana, _), (ben, _) = await it.token(), await it.token("ben")
        told = await Raw(it, ana).asked()
        assert (await Raw(it, ben).call(ASKS, **answering(told)))["error"]["code"] == -32602
        other = {**ASKS, "arguments": {"message": "What?"}}
        assert (await Raw(it, ana).call(other, **answering(told)))["error"]["code"] == -32602
        assert "action=accept" in (await Raw(it, ana).call(ASKS, **answering(told)))["content"][0]["text"]


async def test_a_question_that_is_left_out_is_told_the_tool_as_not_answered(held):
    async with held() as it:
        token, _ = await it.token()
        client = Raw(it, token)
        told = await client.asked()
        done = await client.call(ASKS, requestState=told["requestState"])
        assert done["isError"]


async def test_one_session_holds_so_many_calls_and_no_more(held, monkeypatch):
    monkeypatch.setattr("interlock.gateway.holding.MAX_HELD_CALLS_PER_SESSION", 2)
    async with held(repeat="allow") as it:
        token, _ = await it.token()
        client = Raw(it, token)
        told = [await client.asked() for _ in range(2)]
        assert (await client.call(ASKS))["isError"]
        for one in told:
            assert "action=accept" in (await client.call(ASKS, **answering(one)))["content"][0]["text"]


async def test_a_call_is_held_no_longer_than_its_session_and_its_tool_is_told_that_nobody_answers(held):
    async with held() as it:
        token, session = await it.token()
        client = Raw(it, token)
        told = await client.asked()
        await it.system.database.rows("revoke_session", session.session_id)

        async def settled():
            return "call.settled" in await it.events(session)

        await until(settled)
        assert it.system.gate._holding._held == it.system.gate.streams._open == {}
        assert decision(await client.call(ASKS, **answering(told)))["code"] == "session_ended"


async def test_a_process_that_leaves_tells_the_tool_that_nobody_answers(held):
    async with held() as it:
        token, session = await it.token()
        await Raw(it, token).asked()
        it.system.gate.calls.answer_now()
        await asyncio.wait_for(it.system.gate.calls.drain(), 30)
        assert (await it.events(session))[-1] == "call.settled"
