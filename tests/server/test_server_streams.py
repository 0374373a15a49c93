"""Streams without an end belong to a session: when it is over, or may no longer use something, nothing more is told of it."""

import asyncio
import json

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interlock.core.changes import Changed, Listing
from interlock.gateway.messages import Returned
from interlock.server import mcp_stateful
from interlock.server.limits import MAX_LISTENERS_PER_SESSION
from tests.server.standin import INITIALIZE
from tests.support.patience import PATIENCE_S, patient_http, until
from tests.support.served import served
from tests.support.shop import OPERATOR, counter

STATELESS = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
HEADERS = {
    "mcp-protocol-version": STATELESS,
    "mcp-method": "subscriptions/listen",
    "accept": "application/json, text/event-stream",
}
TOOLS = Changed(listing=Listing.TOOLS)


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made, served(made, tmp_path) as door:
        made.url = f"{door.url}/mcp"
        yield made


def listening(http, shop, token, number=1, **notifications):
    params = {"notifications": {"toolsListChanged": True, **notifications}, "_meta": META}
    message = {"jsonrpc": "2.0", "id": number, "method": "subscriptions/listen", "params": params}
    headers = {**HEADERS, "authorization": f"Bearer {token}"}
    return http.stream("POST", shop.url, json=message, headers=headers)


def tells(stream):
    """The messages of a stream, one by one, and None at its end."""
    lines = stream.aiter_lines()

    async def next_one():
        async with asyncio.timeout(PATIENCE_S):
            async for line in lines:
                if line.startswith("data: "):
                    return json.loads(line[6:])
        return None

    return next_one


async def ended(shop, session):
    await shop.system.database.rows("revoke_session", session.session_id)


async def test_a_stream_ends_with_its_session_and_says_nothing_of_what_came_after(shop):
    session = await shop.session()
    token = shop.system.plane._tokens.issue(session)
    async with patient_http() as http, listening(http, shop, token) as stream:
        said = tells(stream)
        assert (await said())["method"] == "notifications/subscriptions/acknowledged"
        shop.gate.changes.tell(TOOLS)
        assert (await said())["method"] == "notifications/tools/list_changed"
        await ended(shop, session)
        shop.gate.changes.tell(TOOLS)
        assert (await said())["result"] == {"resultType": "complete"}
        assert await said() is None


async def call(shop, session):
    assert isinstance(await shop.call(session, "stock", item="tea"), Returned)


async def expired(shop, session):
    await shop.system.database.pool().execute(
        "UPDATE session SET expires_at = clock_timestamp() - interval '1 second' WHERE session_id = $1", session.session_id
    )


async def killed(shop, session):
    await shop.system.plane.kill(OPERATOR, "tenant:acme", "enough")


async def halted(shop, session):
    await shop.system.database.pool().execute(
        "UPDATE lineage SET posture = 'halted', facts_version = facts_version + 1 WHERE lineage_id = $1", session.lineage.id
    )


@pytest.mark.parametrize("over", [ended, expired, killed, halted])
async def test_a_stream_on_which_nothing_happens_ends_with_its_session_whatever_its_lineage_goes_on_doing(shop, over):
    session, other = await shop.session(), await shop.session()
    token = shop.system.plane._tokens.issue(session)
    async with patient_http() as http, listening(http, shop, token) as stream:
        said = tells(stream)
        assert (await said())["method"] == "notifications/subscriptions/acknowledged"
        await call(shop, other)  # what this process believes of the lineage is fresh
        await over(shop, session)
        assert (await said())["result"] == {"resultType": "complete"}
        assert await said() is None
    assert shop.gate.streams._open == {}


async def test_where_everything_is_stopped_no_stream_is_opened(shop):
    session = await shop.session()
    token = shop.system.plane._tokens.issue(session)
    await killed(shop, session)
    async with patient_http() as http, listening(http, shop, token) as stream:
        refused = json.loads(await stream.aread())
    assert "listen again later" in refused["error"]["message"]
    await shop.system.plane.resume(OPERATOR, "tenant:acme", "on")
    async with patient_http() as http, listening(http, shop, token) as stream:
        assert (await tells(stream)())["method"] == "notifications/subscriptions/acknowledged"


async def test_a_stream_of_an_ended_session_is_told_nothing_though_others_of_its_lineage_are_at_work(shop):
    session, other = await shop.session(), await shop.session()
    token = shop.system.plane._tokens.issue(session)
    shop.gate.streams.tend = nothing
    async with patient_http() as http, listening(http, shop, token) as stream:
        said = tells(stream)
        await said()
        await ended(shop, session)
        await call(shop, other)
        shop.gate.changes.tell(TOOLS)
        assert (await said())["result"] == {"resultType": "complete"}


async def nothing():
    """Not now."""


async def test_whoever_opens_many_at_the_same_time_gets_no_more_than_one_by_one(shop, monkeypatch):
    token = shop.system.plane._tokens.issue(await shop.session())
    together = asyncio.Event()
    find = shop.gate.find

    async def slowly(*arguments):
        await together.wait()
        return await find(*arguments)

    monkeypatch.setattr(shop.gate, "find", slowly)
    refused = 0

    async def open_one(http, number):
        nonlocal refused
        async with listening(http, shop, token, number, resourceSubscriptions=["file:///x"]) as stream:
            found = await tells(stream)()
            refused += found is None

    async with patient_http() as http:
        tasks = [asyncio.create_task(open_one(http, number)) for number in range(MAX_LISTENERS_PER_SESSION + 3)]
        done, waiting = set(), set(tasks)
        while len(done) < 3:
            finished, waiting = await asyncio.wait(waiting, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            assert finished, "more streams than there may be are let in"
            done |= finished
        together.set()
        await asyncio.gather(*tasks)
    assert refused == 3


async def test_a_client_of_an_older_revision_is_told_nothing_when_its_session_has_ended(shop):
    session = await shop.session()
    token = shop.system.plane._tokens.issue(session)
    told, asked = [], asyncio.Queue()
    stands = shop.gate.streams.stands

    async def watched(who):
        found = await stands(who)
        asked.put_nowait(found)
        return found

    async def hear(message):
        told.append(message)

    async with (
        patient_http(headers={"authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(shop.url, http_client=http), mode="legacy", message_handler=hear) as client,
    ):
        await client.list_tools()
        shop.gate.streams.stands = watched
        await ended(shop, session)
        shop.gate.changes.tell(TOOLS)
        async with asyncio.timeout(PATIENCE_S):
            assert await asked.get() is False
        shop.gate.streams.stands = stands
    assert told == []


async def test_the_stream_of_a_client_of_an_older_revision_ends_with_its_session(shop):
    session = await shop.session()
    headers = {
        "authorization": f"Bearer {shop.system.plane._tokens.issue(session)}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    async with patient_http(headers=headers) as http:
        opened = (await http.post(shop.url, json=INITIALIZE)).headers["mcp-session-id"]
        async with http.stream("GET", shop.url, headers={"mcp-session-id": opened}) as stream:
            assert stream.status_code == 200
            assert len(shop.gate.streams._open) == 1
            await ended(shop, session)
            assert await stream.aread() == b""
    assert shop.gate.streams._open == {}


async def test_of_a_client_of_an_older_revision_that_was_just_gone_nothing_is_kept(shop, monkeypatch):
    monkeypatch.setattr(mcp_stateful, "STATEFUL_IDLE_S", 0.05)
    token = shop.system.plane._tokens.issue(await shop.session())
    async with served(shop, shop.system.settings.state) as door:
        async with patient_http(headers={"authorization": f"Bearer {token}"}) as http:
            url = f"{door.url}/mcp"
            transport = streamable_http_client(url, http_client=http, terminate_on_close=False)
            async with Client(transport, mode="legacy") as client:
                await client.list_tools()
        stateful = door.router._stateful
        await until(lambda: not stateful._kept and not stateful._owners)
