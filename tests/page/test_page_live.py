"""The live stream as bytes: what is told, to whom, from where a browser goes on, and what becomes of those who do not read."""

import asyncio
import contextlib
import socket

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.app import live
from interlock.server.page import stream
from interlock.server.page.stream import frame
from interlock.server.page.words import visible
from tests.page.house import FILES, served
from tests.support.patience import PATIENCE_S, until
from tests.support.shop import counter


class Reader:
    """The messages of a stream, as they come."""

    def __init__(self, answer):
        self.answer = answer
        self.lines = answer.aiter_lines()
        self.cursor = ""

    async def message(self):
        event, data = "", []
        async for line in self.lines:
            if line.startswith("id: "):
                self.cursor = line[4:]
            elif line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
            elif not line and (event or data):
                return event, "\n".join(data)
        return "end", ""

    async def until(self, text):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event, data = await self.message()
                if event == "end":
                    raise EOFError
                if text in (event, "") or text in data:
                    return data


@contextlib.asynccontextmanager
async def reading(house, token, query="", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with house.http(token) as http, http.stream("GET", f"/page/live?{query}", headers=named) as answer:
        assert answer.status_code == 200
        reader = Reader(answer)
        await reader.until("controls")
        yield reader


async def test_calls_of_other_processes_are_told_and_of_other_tenants_are_not(house, database_urls, tmp_path):
    async with (
        counter(database_urls.app, tmp_path / "other", files=FILES) as other,
        reading(house, house.token(user="glo", tenant="globex")) as glo,
        reading(house, house.token()) as oki,
    ):
        ours, theirs = await other.session(), await other.session(tenant="globex", user="gus")
        done = await other.call(ours, "stock", item="tea")
        seen = await other.call(theirs, "order", order_id="B1")
        assert done.call_id in await oki.until(done.call_id)
        await oki.until(seen.call_id)  # acme operates the installation
        told = await glo.until("<li")
        assert seen.call_id in told
        assert "acme" not in told


async def test_without_the_role_for_traces_only_ones_own_calls_are_told_and_that_people_are_asked(house):
    session, other = await house.made.session(user="lee"), await house.made.session()
    async with reading(house, house.token(user="lee", roles=("Lead",))) as lee:
        theirs = await house.made.call(other, "stock", item="tea")
        await house.made.call(other, "refund", order_id="A1", amount="80.00")
        async with asyncio.timeout(PATIENCE_S):
            assert await lee.message() == ("approvals", "changed")
        mine = await house.made.call(session, "stock", item="rum")
        told = await lee.until(mine.call_id)
        assert theirs.call_id not in told


async def test_people_read_their_own_calls_without_a_role_and_nobody_elses(house):
    mine = await house.made.call(await house.made.session(user="lee"), "stock", item="rum")
    theirs = await house.made.call(await house.made.session(), "refund", order_id="A1", amount="80.00")
    namesake = await house.made.call(await house.made.session(user="lee", tenant="globex"), "stock", item="gin")
    async with house.http(house.token(user="lee", roles=("Lead",))) as http:
        board = (await http.get("/")).text
        assert mine.call_id in board
        assert theirs.call_id not in board  # what waits for this approver is shown, and has no story for them
        assert namesake.call_id not in board
        story = await http.get(f"/page/trace/{mine.call_id}")
        assert story.status_code == 200
        assert "asked: shop.stock" in story.text
        assert "facts_version" not in story.text  # the events themselves are for people with the role
        for other in (theirs, namesake):
            assert (await http.get(f"/page/trace/{other.call_id}")).status_code == 404
    assert await reads(house, "acme") == []


async def test_whoever_reads_the_story_of_somebody_elses_call_is_on_record(house):
    theirs = await house.made.call(await house.made.session(), "stock", item="rum")
    async with house.http(house.token()) as http:
        story = await http.get(f"/page/trace/{theirs.call_id}")
        assert "facts_version" in story.text
    assert [(body["what"], body["target"], body["by"]) for body in await reads(house, "acme")] == [
        ("show", theirs.call_id, "oki")
    ]


async def reads(house, tenant):
    return [body for _, body in await house.made.events(f"reads:{tenant}")]


async def test_a_browser_goes_on_where_it_was(house):
    session = await house.made.session()
    async with reading(house, house.token()) as first:
        await house.made.call(session, "stock", item="milk")
        await first.until("milk")
        cursor = first.cursor
    missed = await house.made.call(session, "stock", item="rum")
    going_on, told = {"last-event-id": cursor}, ""
    async with house.http(house.token()) as http, http.stream("GET", "/page/live?since=0", headers=going_on) as answer:
        reader = Reader(answer)
        async with asyncio.timeout(PATIENCE_S):
            while missed.call_id not in told:
                told += (await reader.message())[1]
    # Calls close to where it was may be told again, for they may have changed since.


async def test_what_commits_late_is_told_all_the_same(house, database_urls):
    """A transaction takes its times, others commit after it and are told, and only then does it commit itself."""
    session, other = await house.made.session(), await house.made.session(user="ben")
    await house.made.call(session, "stock", item="tea")
    connection = await asyncpg.connect(database_urls.app)
    async with reading(house, house.token()) as oki:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "SELECT append_events(ARRAY[$1], ARRAY['call.proposed', 'call.refused'], ARRAY['call_late', 'call_late'],"
            " ARRAY[$2, $3], ARRAY[$4::bytea, $4], ARRAY[$5::bytea, $5])".replace("ARRAY[$1]", "ARRAY[$1, $1]"),
            session.session_id,
            '{"kind":"call.proposed","operation":"shop.late","arguments":{}}',
            '{"kind":"call.refused","operation":"shop.late","outcome":"denied","code":"forbidden","effect":"none"}',
            b"0" * 16,
            b"0" * 32,
        )
        for item in ("a", "b", "c"):
            done = await house.made.call(other, "stock", item=item)
            await oki.until(done.call_id)
        await transaction.commit()
        assert "shop.late" in await oki.until("call_late")
    await connection.close()


async def test_the_stream_ends_with_its_token(house):
    async with reading(house, house.token(lifetime_s=2)) as oki:
        with pytest.raises(EOFError):
            await oki.until("nothing of this kind")


async def test_places_are_bounded_for_each_person_and_for_all_and_calls_go_on(house, monkeypatch):
    monkeypatch.setattr(live, "MAX_WATCHERS_PER_PERSON", 1)
    monkeypatch.setattr(live, "MAX_WATCHERS", 2)
    oki, kim, sue = house.token(), house.token(user="kim"), house.token(user="sue")
    async with reading(house, oki):
        assert (await house.get("/page/live", oki)).status_code == 503
        async with reading(house, kim):
            assert (await house.get("/page/live", sue)).headers["retry-after"] == "5"
            assert (await house.get("/", sue)).status_code == 200
            assert await house.made.call(await house.made.session(), "stock", item="tea")
    assert (await house.get("/livez")).status_code == 200


async def test_viewers_take_no_places_of_strangers_and_a_kill_waits_for_none(house):
    router_places = house.router._public_now
    before = router_places._value
    async with reading(house, house.token()), reading(house, house.token(user="kim")):
        assert router_places._value == before
        house.router._public_now = asyncio.BoundedSemaphore(1)
        async with house.router._public_now:
            assert (await house.get("/login")).status_code == 503
            token = house.token()
            from interlock.server.page.forms import form_token  # noqa: PLC0415

            fields = {"scope": "fleet", "reason": "x", "form_token": form_token(token)}
            assert (await house.post("/page/controls/kill", fields, token)).status_code == 200


async def test_who_does_not_read_is_hung_up_on_and_nobody_else_notices(house, monkeypatch):
    monkeypatch.setattr(stream, "SEND_S", 0.2)
    monkeypatch.setattr(live, "MAX_QUEUED_NEWS", 2)
    session = await house.made.session()
    deaf = socket.create_connection(("127.0.0.1", int(house.url.rpartition(":")[2])))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(f"GET /page/live HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: interlock_person={house.token()}\r\n\r\n".encode())
    await until(lambda: house.plane.live._watchers)
    (watcher,) = house.plane.live._watchers
    big = await house.made.call(session, "note", text="x" * 5_000)
    row = await house.plane.live.one(watcher.person, big.call_id)

    def is_gone():
        house.plane.live._tell(live.News(calls=(row,) * 500, horizon_us=1))
        return watcher not in house.plane.live._watchers

    await until(is_gone)
    deaf.close()
    assert await house.made.call(session, "stock", item="tea")


async def test_a_server_that_stops_does_not_wait_for_viewers(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as made:
        # Viewers stay for as long as their tokens last, which is longer than we are patient.
        async with asyncio.timeout(PATIENCE_S):
            async with served(made, politely=True) as house:
                task = asyncio.create_task(_follow(house))
                await until(lambda: house.plane.live._watchers)
            await task


async def _follow(house):
    with contextlib.suppress(EOFError):
        async with reading(house, house.token()) as oki:
            await oki.until("nothing of this kind")


async def test_nobody_is_asked_anything_of_the_database_while_nobody_watches(house):
    assert house.plane.live._task is None
    async with reading(house, house.token()):
        assert not house.plane.live._task.done()
    async with asyncio.timeout(PATIENCE_S):
        await house.plane.live._task


@given(st.text(), st.sampled_from(["", "approvals"]))
def test_no_text_ends_a_message_or_begins_a_field(text, event):
    lines = frame(text, event=event).split("\n")
    assert lines[-2:] == ["", ""]
    told = lines[1:-2] if event else lines[:-2]
    assert all(line.startswith("data: ") and "\r" not in line for line in told)
    assert "\n".join(line[6:] for line in told) == text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("100.00 EUR", "100.00 EUR"),
        ("\u202e00.001", "\\u{202e}00.001"),
        ("a\u200bb", "a\\u{200b}b"),
        ("a\x00b\x1bc", "a\\u{0000}b\\u{001b}c"),
        ("Zoë\n\tzwei", "Zoë\n\tzwei"),
        ("\U000e0041", "\\u{e0041}"),
    ],
)
def test_what_would_not_be_seen_is_written_out(text, shown):
    assert visible(text) == shown
