"""What tools and callers write into the record never keeps people from reading it, nor a kill from being answered."""

import json

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.app.live import CallFilter
from interlock.core.who import Person
from interlock.store.traces import CallQuery
from interlock.tools.port import ToolAnswer
from tests.support.shop import FILES, OPERATOR, counter

ANA = Person(user="ana", tenant="acme", roles=("Staff",), told_at_us=1)
NUL = "a\x00b\\u0000"


async def test_a_zero_in_a_tools_error_or_in_a_name_that_a_model_made_up_hides_no_call(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as shop:
        shop.shop.done = lambda *_, **__: ToolAnswer(content=({"type": "text", "text": f"no {NUL}"},), is_error=True)
        session = await shop.session()
        failed = await shop.call(session, "note", text="x")
        made_up = await shop.call(session, f"x{NUL}", text="x")
        calls, _ = await shop.system.plane.live.newest(ANA, CallFilter())
        assert {call.call_id for call in calls} == {failed.call_id, made_up.call_id}
        traces = shop.system.plane.desk.traces
        found = {call.call_id: call for call in await traces.search(ANA, CallQuery(), after=None, limit=10)}
        assert found[failed.call_id].operation == "shop.note"
        assert found[made_up.call_id].outcome == "invalid"
        assert any("\\u0000" in (row.body or "") for row in await shop.system.traces.events(failed.call_id))
        only = await traces.search(ANA, CallQuery(operation="shop.note"), after=None, limit=10)
        assert [call.call_id for call in only] == [failed.call_id]
        assert (await traces.show(ANA, failed.call_id)).lines


async def test_a_zero_in_a_tools_error_does_not_keep_a_kill_from_saying_what_became_of_the_call(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as shop:
        shop.shop.done = lambda *_, **__: ToolAnswer(content=({"type": "text", "text": NUL},), is_error=True)
        await shop.call(await shop.session(), "note", text="x")
        claims = [row["claim_id"] for row in await shop.system.database.pool().fetch("SELECT claim_id FROM claim")]
        assert [row["state"] for row in await shop.system.database.rows("claims_ended", claims)] == ["failed"]
        await shop.system.plane.kill(OPERATOR, "tool:shop", "test")


texts = st.text(st.sampled_from(["\x00", "\\", "u", "0", "d", "8", "a", "\U0001f600", "\ud83d", '"', "\n"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.booleans())
async def test_every_text_can_be_read_and_is_what_it_was_but_for_what_no_text_can_hold(database_urls, text, ascii_only):
    if not ascii_only:
        text = text.encode("utf-8", "replace").decode()
    body = json.dumps({"text": text, "kind": "x"}, ensure_ascii=ascii_only)
    connection = await asyncpg.connect(database_urls.app)
    try:
        row = await connection.fetchrow("SELECT j ->> 'text' AS text, j ->> 'kind' AS kind FROM readable_json($1) j", body)
    finally:
        await connection.close()
    if ascii_only:
        # Written as escapes, a character beyond the first plane is two halves.
        halves = text.encode("utf-16-le", "surrogatepass")
        units = [int.from_bytes(halves[at : at + 2], "little") for at in range(0, len(halves), 2)]
        expected = "".join("\ufffd" if unit == 0 or 0xD800 <= unit < 0xE000 else chr(unit) for unit in units)
    else:
        expected = text.replace("\x00", "\ufffd")
    assert (row["text"], row["kind"]) == (expected, "x")
