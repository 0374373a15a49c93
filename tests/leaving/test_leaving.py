"""Told to leave, a process finishes, settles and goes, in a time that was said before; whoever still waits is told the truth."""

import asyncio
import contextlib
import signal
import subprocess
import sys

import asyncpg
import pytest

from interlock.app import chores
from interlock.app.leaving import LEAVE_NOTICE_S, WATCHED_S, LeaveRules, Leaving, drained
from interlock.store.errors import StoreUnavailableError
from tests.leaving.conftest import ManualClock
from tests.support.patience import PATIENCE_S, patient_http, until
from tests.support.shop import counter

STAGES = ("before the claim", "between claim and first byte", "in the tool", "before it is settled")
# A call that no tool will answer: this is how long a process that is told twice waits for it.
SHORT = LeaveRules(within_s=PATIENCE_S, notice_s=0, last_words_s=0.2)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


class Held:
    """A call that stands still at one stage until it is let go."""

    def __init__(self, made, stage):
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        writer, tools, shop = made.system.writer, made.system.gate._executor, made.shop
        match stage:
            case "before the claim":
                self._hold(writer, "claim")
            case "between claim and first byte":
                self._hold(tools, "_invoke")
            case "in the tool":
                self.entered, self.go_on = shop.entered, shop.go_on
            case _:
                self._hold(writer, "settle")
        if stage != "in the tool":
            shop.go_on.set()

    def _hold(self, owner, name):
        real = getattr(owner, name)

        async def held(*words):
            self.entered.set()
            await self.go_on.wait()
            return await real(*words)

        setattr(owner, name, held)


def code(answer):
    result = answer.json()["result"]
    return result["_meta"]["interlock/decision"]["code"] if result["isError"] else "done"


@pytest.mark.parametrize("stage", STAGES)
async def test_a_call_under_way_is_finished_settled_and_answered(house, claims, stage):
    async with house() as made:
        held = Held(made, stage)
        call = asyncio.create_task(made.call(await made.token(), "slow", order_id="A1"))
        await held.entered.wait()
        made.leave()
        held.go_on.set()
        assert code(await call) == "done"
    assert made.system.unsettled == ()
    assert made.shop.count("slow") == 1
    assert await claims() == ["succeeded"]


@pytest.mark.parametrize("stage", ["before the claim", "in the tool"])
async def test_told_twice_it_answers_whoever_waits_and_what_was_claimed_settles_still(
    house, claims, database_urls, tmp_path, stage
):
    async with house() as made:
        held = Held(made, stage)
        call = asyncio.create_task(made.call(await made.token(), "slow", order_id="A1"))
        await held.entered.wait()
        made.leave()
        made.leave()
        assert code(await call) == "still_running"
        held.go_on.set()
    assert made.system.unsettled == ()
    # Asked again elsewhere, it is done once: then, or before.
    async with counter(database_urls.app, tmp_path, shop=made.shop) as other:
        again = await other.call(await other.session(), "slow", order_id="A1")
        assert not again.is_error
    assert made.shop.count("slow") == 1
    assert await claims() == ["succeeded"]


async def test_what_no_tool_answers_in_time_is_named_and_becomes_in_doubt(house, claims, database_urls, tmp_path):
    async with house(SHORT) as made:
        call = asyncio.create_task(made.call(await made.token(), "slow", order_id="A1"))
        await made.shop.entered.wait()
        made.leave()
        made.leave()
        assert code(await call) == "still_running"
    (left,) = made.system.unsettled
    assert left.startswith("call_")
    assert await claims() == ["claimed"]
    async with counter(database_urls.app, tmp_path, shop=made.shop) as other:
        await other.system.heartbeat()
        again = await other.call(await other.session(), "slow", order_id="A1")
        assert again.code == "in_doubt"
    assert made.shop.count("slow") == 1


async def test_with_the_database_gone_it_ends_all_the_same_and_says_what_is_open(house, claims, database_urls):
    postgres = await asyncpg.connect(database_urls.superuser, database="postgres")
    try:
        async with house(LeaveRules(within_s=1.5, notice_s=0, last_words_s=0.5)) as made:
            call = asyncio.create_task(made.call(await made.token(), "slow", order_id="A1"))
            await made.shop.entered.wait()
            await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
            await postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'"
            )
            made.leave()
            made.shop.go_on.set()
            assert code(await call) in {"still_running", "not_recorded"}
        assert made.gone.done()
        assert len(made.system.unsettled) == 1
    finally:
        await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")
        await postgres.close()
    assert await claims() == ["claimed"]


async def test_during_the_notice_it_is_not_ready_and_serves_on_and_asks_clients_to_connect_anew(house):
    async with house(LeaveRules(within_s=PATIENCE_S, notice_s=PATIENCE_S)) as made:
        token = await made.token()
        assert "connection" not in (await made.get("/readyz")).headers
        made.leave()
        assert (await made.get("/readyz")).status_code == 503
        assert (await made.get("/livez")).json() == {"status": "alive"}
        answer = await made.call(token, "stock", item="tea")
        assert code(answer) == "done"
        assert answer.headers["connection"] == "close"
        made.leave()


async def test_a_request_that_is_arriving_when_the_notice_ends_is_served(house):
    async with house(LeaveRules(within_s=PATIENCE_S, notice_s=PATIENCE_S)) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1")
        await until(lambda: any(connection._has_begun for connection in made.server.server_state.connections))
        made.leave()
        made.leave()
        assert await idle_reader.read() == b""
        writer.write(b"\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        writer.close()
        idle.close()


async def test_a_stream_without_an_end_ends_when_the_process_leaves(house):
    async with house(LeaveRules(within_s=4 * PATIENCE_S, notice_s=0)) as made:
        headers = {"authorization": f"Bearer {await made.token()}", "mcp-protocol-version": "2025-11-25"}
        accepts = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        async with patient_http(headers={**headers, **accepts}) as http:
            opened = await http.post(made.url + "/mcp", json=INITIALIZE)
            of_session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            async with http.stream("GET", made.url + "/mcp", headers=of_session) as stream:
                assert stream.status_code == 200
                made.leave()
                assert [part async for part in stream.aiter_bytes()] == []


async def test_until_the_last_call_has_settled_the_chores_go_on(house, claims):
    async with house() as made:
        chore = asyncio.create_task(asyncio.Event().wait())
        call = asyncio.create_task(made.call(await made.token(), "slow", order_id="A1"))
        await made.shop.entered.wait()
        draining = asyncio.create_task(drained(made.system.gate.calls, made.system.leaving))
        await asyncio.wait({draining, chore}, timeout=0)
        assert not chore.done()
        made.shop.go_on.set()
        await call
        await draining
        chore.cancel()
    assert await claims() == ["succeeded"]


async def test_that_chores_wait_for_the_database_is_said_once_until_it_is_back(caplog):
    found = [
        StoreUnavailableError("gone"),
        StoreUnavailableError("gone"),
        None,
        StoreUnavailableError("gone"),
        ValueError("a defect"),
    ]
    over = asyncio.Event()

    async def chore():
        error = found.pop(0) if found else over.set()
        if error is not None:
            raise error

    task = asyncio.create_task(chores._every(0, chore))
    await over.wait()
    task.cancel()
    assert [record.event for record in caplog.records] == ["chore.waits", "chore.waits", "chore.failed"]


async def test_a_chore_does_not_end_with_something_that_it_waited_for(caplog):
    rounds, over = [], asyncio.Event()

    async def chore():
        rounds.append(1)
        if len(rounds) > 1:
            over.set()
        else:
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

    task = asyncio.create_task(chores._every(0, chore))
    async with asyncio.timeout(PATIENCE_S):
        await over.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert [record.event for record in caplog.records] == ["chore.failed"]


async def test_a_notice_is_given_where_somebody_asks_whether_we_are_ready():
    clock = ManualClock()

    async def noticed_at_once(rules, *, asked_before_s=None, number=signal.SIGTERM):
        leaving = Leaving(rules, clock)
        if asked_before_s is not None:
            leaving.watched()
            clock.advance(asked_before_s)
        leaving.begin(at_once=number == signal.SIGINT)
        noticed = asyncio.create_task(leaving.noticed())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(noticed), 0.02)
        over, left_s = noticed.done(), leaving.left_s()
        leaving.hurry()
        await noticed
        assert left_s == rules.within_s
        return over

    assert await noticed_at_once(LeaveRules())
    assert not await noticed_at_once(LeaveRules(), asked_before_s=1)
    assert await noticed_at_once(LeaveRules(), asked_before_s=WATCHED_S + 1)
    assert await noticed_at_once(LeaveRules(), asked_before_s=1, number=signal.SIGINT)
    assert await noticed_at_once(LeaveRules(notice_s=0), asked_before_s=1)
    assert not await noticed_at_once(LeaveRules(notice_s=LEAVE_NOTICE_S))


def test_whatever_hangs_the_process_ends_and_says_so():
    hangs = (
        "import threading; from interlock.cli.up import _end_at_the_latest; _end_at_the_latest(0.05); threading.Event().wait()"
    )
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "in doubt" in ended.stderr
