"""`interlock mcp`: ordinary local MCP clients on both revisions, restarts, renewals, cancels, and what goes wrong told clearly."""

import asyncio
import contextlib
import json
import os
import sys

import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from interlock.cli import stdio
from interlock.cli.bridge import VERSION_KEY, ExchangedToken, Message, _as_header
from interlock.cli.output import NO, UNREACHABLE, Failure
from interlock.core.canonical import digest
from interlock.identity import exchange
from interlock.server import envelope
from tests.support.patience import PATIENCE_S
from tests.support.served import served
from tests.support.shop import FILES, counter

MODES = ["legacy", "2026-07-28", "auto"]


@pytest.fixture
async def office(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as shop, served(shop, tmp_path) as made:
        yield made


def command(office, *more, user="ana", agent="bot", task="selling"):
    who = ("--agent", agent, "--user", user, "--task", task, "--environment", "test", "--server", office.url)
    return ["-m", "interlock", "mcp", *who, "--state", str(office.state), "--directory", str(office.directory), *more]


def client(office, mode):
    parameters = StdioServerParameters(command=sys.executable, args=command(office), env=dict(os.environ))
    return Client(parameters, mode=mode, read_timeout_seconds=30)


class Raw:
    """The command as a client that speaks lines itself."""

    def __init__(self, process):
        self.process = process

    async def say(self, *messages):
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def hear(self):
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.process.stdout.readline())

    async def ask(self, *messages):
        await self.say(*messages)
        return await self.hear()

    async def end(self):
        """What is still said once the input has ended, what went to people, and the exit code."""
        self.process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            rest, log = await asyncio.gather(self.process.stdout.read(), self.process.stderr.read())
            return rest.splitlines(), log.decode(), await self.process.wait()


@contextlib.asynccontextmanager
async def raw(office, *more, **who):
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command(office, *more, **who),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Raw(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def newer(method, request_id=1, **params):
    meta = {VERSION_KEY: envelope.STATELESS, envelope.CAPABILITIES_KEY: {}}
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, "_meta": meta}}


def older(method, request_id=1, **params):
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


HELLO = older("initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t", "version": "1"})
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@pytest.mark.parametrize("mode", MODES)
async def test_the_sdks_client_lists_calls_and_is_refused(office, mode):
    async with client(office, mode) as connected:
        names = {tool.name for tool in (await connected.list_tools()).tools}
        assert "shop.stock" in names
        assert "shop.lookup" not in names
        stock = await connected.call_tool("shop.stock", {"item": "nut"})
        assert stock.structured_content == {"item": "nut", "left": 3}
        order = {"order_id": "A1", "amount": "80.00"}
        refund = await connected.call_tool("shop.refund", order)
        assert refund.is_error
        waiting = refund.meta["interlock/decision"]
        assert waiting["outcome"] == "needs_approval"
        denied = await connected.call_tool("shop.refund", {"order_id": "A1", "amount": "999.00"})
        assert denied.meta["interlock/decision"]["outcome"] == "denied"
        approval = waiting["approvals"][0]["id"]
        await asyncio.to_thread(office.as_("lea").ask, f"/v1/approvals/{approval}/approve", body={"note": "fine"})
        assert not (await connected.call_tool("shop.refund", order)).is_error
    assert office.shop.shop.count("refund") == 1


@pytest.mark.parametrize("mode", MODES)
async def test_after_a_restart_of_the_server_the_next_call_works(office, mode):
    async with client(office, mode) as connected:
        assert not (await connected.call_tool("shop.stock", {"item": "nut"})).is_error
        await office.down()
        with pytest.raises(MCPError, match="nothing was done"):
            await connected.call_tool("shop.stock", {"item": "bolt"})
        await office.up()
        assert not (await connected.call_tool("shop.stock", {"item": "bolt"})).is_error
    assert office.shop.shop.count("stock") == 2


async def test_arguments_are_carried_as_the_bytes_that_they_were(office):
    text = '{"order_id" :  "\\u0041/1" , "amount":"5.0" }'
    line = json.dumps(newer("tools/call", name="shop.pay", arguments="HERE")).replace('"HERE"', text)
    async with raw(office) as spoken:
        answer = await spoken.ask(line.encode())
    assert answer["result"]["isError"] is False
    assert office.shop.shop.calls == [("pay", {"order_id": "A/1", "amount": "5.0"})]
    rows = await office.shop.system.database.pool().fetch("SELECT body FROM event_body")
    digests = [json.loads(row["body"])["arguments_digest"] for row in rows if "arguments_digest" in row["body"]]
    assert digests == [digest(text.encode())]


@pytest.mark.parametrize("revision", ["older", "newer"])
async def test_a_cancelled_call_is_answered_with_nothing_and_what_was_claimed_still_settles(office, revision):
    async with raw(office) as spoken:
        if revision == "older":
            await spoken.ask(HELLO)
            await spoken.say(READY)
        ask = older if revision == "older" else newer
        await spoken.say(ask("tools/call", 7, name="shop.slow", arguments={"order_id": "A1"}))
        await office.shop.shop.entered.wait()
        await spoken.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
        assert (await spoken.ask(ask("tools/list", 8)))["id"] == 8
        office.shop.shop.go_on.set()
        rest, _, code = await spoken.end()
    assert (rest, code) == ([], 0)
    await office.shop.gate.calls.drain()
    kinds = [row["kind"] for row in await office.shop.system.database.pool().fetch("SELECT kind FROM event")]
    assert kinds.count("call.settled") == 1


async def test_calls_run_side_by_side(office):
    async with raw(office) as spoken:
        await spoken.say(newer("tools/call", 1, name="shop.slow", arguments={"order_id": "A1"}))
        await office.shop.shop.entered.wait()
        assert (await spoken.ask(newer("tools/call", 2, name="shop.stock", arguments={"item": "nut"})))["id"] == 2
        office.shop.shop.go_on.set()
        assert (await spoken.hear())["id"] == 1


async def test_what_was_asked_before_the_input_ended_is_answered(office):
    async with raw(office) as spoken:
        await spoken.say(*(newer("tools/call", n, name="shop.stock", arguments={"item": f"{n}"}) for n in range(5)))
        rest, log, code = await spoken.end()
    assert (sorted(json.loads(line)["id"] for line in rest), log, code) == ([0, 1, 2, 3, 4], "", 0)


async def test_lines_that_are_no_message_are_answered_and_end_nothing(office):
    long = b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 1_100_000 + b'"}'
    async with raw(office) as spoken:
        for line, code in ((b"hello", -32700), (b"[]", -32700), (b"\xff", -32700), (long, -32600)):
            assert (await spoken.ask(line))["error"]["code"] == code
        assert (await spoken.ask(newer("tools/list")))["result"]["tools"]
        assert (await spoken.ask(newer("no/such", 9)))["error"]["code"] == envelope.METHOD_NOT_FOUND
        assert "error" in await spoken.ask(older("tools/list", 4))


async def test_who_may_not_open_the_task_is_told_at_once_on_standard_error(office):
    async with raw(office, user="lea") as spoken:
        rest, log, code = await spoken.end()
    assert (rest, code) == ([], NO)
    assert "this agent may not open this task for this user" in log


async def test_without_a_server_the_exit_code_says_unreachable(office):
    await office.down()
    try:
        async with raw(office) as spoken:
            rest, log, code = await spoken.end()
        assert (rest, code) == ([], UNREACHABLE)
        assert "interlock up" in log
    finally:
        await office.up()


async def test_a_session_that_was_revoked_calls_nothing_more(office):
    async with raw(office) as spoken:
        await spoken.ask(newer("tools/call", 1, name="shop.stock", arguments={"item": "nut"}))
        (session,) = [
            row["session_id"] for row in await office.shop.system.database.pool().fetch("SELECT session_id FROM session")
        ]
        await office.shop.system.database.rows("revoke_session", session)
        answer = await spoken.ask(newer("tools/call", 2, name="shop.stock", arguments={"item": "nut"}))
        assert answer["result"]["_meta"]["interlock/decision"]["code"] == "session_ended"


async def test_the_agents_own_token_may_come_from_a_file(office, tmp_path):
    proof = tmp_path / "agent.jwt"
    proof.write_text(office.as_("ana").of_agent("bot") + "\n")
    async with raw(office, "--agent-token-file", str(proof), agent="whatever-it-is-called-here") as spoken:
        assert (await spoken.ask(newer("tools/list")))["result"]["tools"]
    async with raw(office, "--agent-token-file", str(tmp_path / "none")) as spoken:
        _, log, code = await spoken.end()
    assert "cannot be read" in log
    assert code == 2


def test_the_token_is_renewed_in_the_same_session_before_it_runs_out(monkeypatch):
    now, asked = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def exchanged(session):
        asked.append(session)
        return {"session_id": "ses_1", "access_token": f"t{len(asked)}", "expires_in": 300}

    token = ExchangedToken(exchanged, refusal=NO)
    assert [token.text(), token.text()] == ["t1", "t1"]
    now[0] += 199
    assert token.text() == "t1"
    now[0] += 2
    assert token.text() == "t2"
    assert token.refused("t1") == "t2"
    assert token.refused("t2") == "t3"
    assert asked == ["", "ses_1", "ses_1"]


def test_a_session_that_ended_is_followed_by_a_new_one_and_a_lost_server_is_not():
    answers = [{"session_id": "ses_1", "access_token": "t1", "expires_in": 0}, Failure("ended", code=NO)]
    answers += [{"session_id": "ses_2", "access_token": "t2", "expires_in": 0}, Failure("gone", code=UNREACHABLE)]
    asked = []

    def exchanged(session):
        asked.append(session)
        answer = answers.pop(0)
        if isinstance(answer, Failure):
            raise answer
        return answer

    token = ExchangedToken(exchanged, refusal=NO)
    assert [token.text(), token.text()] == ["t1", "t2"]
    with pytest.raises(Failure, match="gone"):
        token.text()
    assert asked == ["", "ses_1", "", "ses_2"]


@pytest.mark.parametrize("name", ["shop.pay", " pay", "pagó", "=?base64?cGF5?=", "a\nb", ""])
def test_a_tools_name_reaches_the_server_as_it_is(name):
    assert envelope.decoded_header(_as_header(name)) == name


def test_what_is_said_twice_in_the_house_is_the_same():
    assert (stdio.GRANT_TYPE, stdio.JWT_TYPE) == (exchange.GRANT_TYPE, exchange.JWT_TYPE)
    assert VERSION_KEY == envelope.VERSION_KEY
    assert Message(b'{"method":"x","params":{"_meta":[1],"name":5}}').name == ""
