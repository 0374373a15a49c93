"""A weak tool before the gate: writes fail closed, reads degrade as their contract says, and it is tried with care."""

import asyncio

import pytest

from interlock.core.terms import Posture
from interlock.gateway.breaking import Counts
from interlock.gateway.messages import Returned
from tests.breakers.world import WEAK, code, files, gather, process
from tests.support.shop import OPERATOR


async def test_a_storm_of_failing_calls_trips_the_breaker_and_reaches_the_tool_no_more(weak):
    session = await weak.session()
    weak.tool.weak = True
    answers = [await weak.ask(session, "crowd", item=str(number)) for number in range(60)]
    assert weak.tool.count("crowd") == 4
    assert [code(answer) for answer in answers] == ["tool_failed"] * 4 + ["tool_unavailable"] * 56
    last = answers[-1]
    assert last.retry == "after_ms"
    assert 40_000 < last.retry_after_ms <= 76_000
    assert last.effect.value == "none"
    assert "unstable" in last.text
    assert "call.claimed" not in await weak.kinds(last.call_id)


async def test_a_write_to_an_unstable_tool_is_refused_before_it_is_claimed(weak):
    session = await weak.session()
    await weak.break_down(session, "send")
    assert weak.tool.count("send") == 4
    answer = await weak.ask(session, "send", item="fresh")
    assert code(answer) == "tool_unavailable"
    assert "Nothing was changed." in answer.text
    assert await weak.kinds(answer.call_id) == ["call.proposed", "call.decided", "call.refused"]
    assert weak.tool.count("send") == 4


async def test_a_write_that_is_in_doubt_stays_so_while_its_tool_is_unstable(weak):
    session = await weak.session()
    weak.tool.weak = True
    assert code(await weak.ask(session, "send", item="first")) == "in_doubt"
    await weak.break_down(session, "send")
    again = await weak.ask(session, "send", item="first")
    assert code(again) == "in_doubt"
    assert again.effect.value == "unknown"
    assert weak.tool.count("send") == 4


async def test_a_write_that_was_done_is_answered_with_its_outcome_while_its_tool_is_unstable(weak):
    session = await weak.session()
    first = await weak.ask(session, "send", item="first")
    await weak.break_down(session, "send", times=5)
    again = await weak.ask(session, "send", item="first")
    assert isinstance(again, Returned)
    assert again.structured == first.structured
    assert "interlock/replayed" in again.meta


async def test_an_unstable_tool_is_tried_by_a_few_reads_and_closed_again_by_their_success(weak):
    session = await weak.session()
    await weak.break_down(session, "crowd")
    weak.later(80)
    assert code(await weak.ask(session, "crowd", item="a")) == "tool_failed"
    assert code(await weak.ask(session, "crowd", item="b")) == "tool_unavailable"
    weak.later(80)
    weak.tool.weak, weak.tool.go_on = False, asyncio.Event()
    trials = [asyncio.create_task(weak.ask(session, "crowd", item=f"trial-{number}")) for number in range(2)]
    while weak.tool.count("crowd") < 7:
        await asyncio.sleep(0)
    assert code(await weak.ask(session, "crowd", item="third")) == "tool_unavailable"
    weak.tool.go_on.set()
    assert all(isinstance(answer, Returned) for answer in await gather(trials))
    assert isinstance(await weak.ask(session, "crowd", item="after"), Returned)


async def test_a_write_is_not_tried_before_a_read_of_its_tool_has_succeeded(weak):
    session = await weak.session()
    await weak.break_down(session, "send")
    weak.tool.weak = False
    weak.later(80)
    assert code(await weak.ask(session, "send", item="early")) == "tool_unavailable"
    assert isinstance(await weak.ask(session, "peek"), Returned)
    weak.tool.go_on = asyncio.Event()
    trial = asyncio.create_task(weak.ask(session, "send", item="trial"))
    while weak.tool.count("send") < 5:
        await asyncio.sleep(0)
    assert code(await weak.ask(session, "send", item="second at once")) == "tool_unavailable"
    weak.tool.go_on.set()
    assert isinstance(await trial, Returned)
    assert isinstance(await weak.ask(session, "send", item="next trial"), Returned)
    assert weak.system.stability.told()[-1].phase.value == "closed"


async def test_a_read_answers_with_what_it_answered_before_and_says_how_old_that_is(weak):
    session = await weak.session()
    first = await weak.ask(session, "look")
    await weak.break_down(session)
    weak.later(7)
    reached = weak.tool.count("look")
    answer = await weak.ask(session, "look")
    assert isinstance(answer, Returned)
    assert answer.structured == first.structured
    stale = answer.meta["interlock/stale"]
    assert stale["of"] == first.call_id
    assert 7_000 <= stale["age_ms"] < 60_000
    assert "may be different by now" in answer.content[-1]["text"]
    assert weak.tool.count("look") == reached
    events = await weak.events(answer.call_id)
    assert [kind for kind, _ in events] == ["call.proposed", "call.decided", "call.claimed", "call.settled"]
    assert events[-1][1]["of_call"] == first.call_id
    assert "answered with what" in (await weak.story(answer.call_id))[-1]


async def test_a_read_that_fails_answers_with_what_it_answered_before_at_once(weak):
    session = await weak.session()
    first = await weak.ask(session, "look")
    weak.tool.weak = True
    answer = await weak.ask(session, "look")
    assert isinstance(answer, Returned)
    assert answer.meta["interlock/stale"]["of"] == first.call_id
    assert [kind for kind in await weak.kinds(answer.call_id) if kind == "call.settled"] == ["call.settled"] * 2


async def test_an_earlier_answer_is_nobody_elses_and_gets_no_older_than_it_may(weak):
    session = await weak.session()
    await weak.ask(session, "look")
    await weak.break_down(session)
    other = await weak.session(user="eve")
    assert code(await weak.ask(other, "look")) == "tool_unavailable"
    assert code(await weak.ask(session, "look", item="coffee")) == "tool_unavailable"
    weak.later(301)
    weak.tool.weak = True
    assert isinstance(await weak.ask(session, "peek", item="x"), object)
    assert code(await weak.ask(session, "look")) in {"tool_unavailable", "tool_failed"}


async def test_an_earlier_answer_has_what_was_taken_out_of_it(weak):
    session = await weak.session()
    await weak.ask(session, "glance")
    await weak.break_down(session, "glance")
    answer = await weak.ask(session, "glance")
    assert "interlock/stale" in answer.meta
    assert answer.meta["interlock/labels"]["classification"] == "pii"
    assert "private.example" not in str(answer)


@pytest.mark.parametrize("stop", ["kill", "revoke", "lease", "release", "posture"])
async def test_no_earlier_answer_is_given_where_the_call_itself_could_not_be_made(weak, stop):
    session = await weak.session()
    await weak.ask(session, "look")
    await weak.break_down(session)
    match stop:
        case "kill":
            await weak.system.plane.kill(OPERATOR, "tool:weak", "looking")
        case "revoke":
            await weak.system.gate._beliefs._standings._sessions.revoke(session.session_id)
        case "lease":
            weak.system.lease.surrender()
        case "release":
            changed = {**files(), "tools/weak.yaml": WEAK.replace("cache_s: 300", "cache_s: 299") % BREAKER_OF}
            await weak.system.plane.releases.put_in_force(changed, by="test")
        case "posture":
            await weak.system.plane.scope_postures.set(OPERATOR, "tool:weak", Posture.HALTED, "looking")
    answer = await weak.ask(session, "look")
    expected = {"kill": "halted", "revoke": "session_ended", "lease": "control_plane_unavailable", "posture": "halted"}
    assert code(answer) == expected.get(stop, "tool_unavailable")


BREAKER_OF = "breaker: {failing_percent: 50, min_calls: 4, window_s: 60, open_s: 60, trials: 2}"


async def test_a_failing_read_is_made_again_within_its_attempts_each_on_record(weak):
    session = await weak.session()
    weak.tool.weak = True
    answer = await weak.ask(session, "peek")
    assert code(answer) == "tool_failed"
    assert weak.tool.count("peek") == 3
    proposed = [body["retry"] for kind, body in await weak.events(answer.call_id) if kind == "call.proposed"]
    assert proposed == [0, 1, 2]
    assert sum("asked again" in line for line in await weak.story(answer.call_id)) == 2


async def test_retries_cannot_feed_a_storm(weak):
    session = await weak.session()
    calm = files("breaker: {failing_percent: 100, min_calls: 10000}")
    await weak.system.plane.releases.put_in_force(calm, by="test")
    weak.tool.weak = True
    for number in range(60):
        await weak.ask(session, "peek", item=str(number))
    assert weak.tool.count("peek") <= 60 + 7


async def test_a_write_is_never_made_again_by_the_gate(weak):
    session = await weak.session()
    weak.tool.weak = True
    assert code(await weak.ask(session, "send")) == "in_doubt"
    assert weak.tool.count("send") == 1


async def test_one_slow_operation_takes_only_the_places_it_has(weak):
    session = await weak.session()
    weak.tool.go_on = asyncio.Event()
    held = [asyncio.create_task(weak.ask(session, "crowd", item=str(number))) for number in range(2)]
    while weak.tool.count("crowd") < 2:
        await asyncio.sleep(0)
    third = await weak.ask(session, "crowd", item="third")
    assert code(third) == "tool_busy"
    assert "Nothing was changed." in third.text
    assert isinstance(await weak.call(session, "stock", item="tea"), Returned)
    weak.tool.go_on.set()
    assert all(isinstance(answer, Returned) for answer in await gather(held))
    assert isinstance(await weak.ask(session, "crowd", item="fourth"), Returned)


async def test_what_is_unstable_is_learnt_from_the_others_and_put_on_record_once(database_urls, tmp_path, weak):
    async with process(database_urls.app, tmp_path / "b", tool=weak.tool) as other:
        session, theirs = await weak.session(), await other.session(user="otto")
        weak.tool.weak = True
        for made, asks in ((weak, session), (other, theirs)):
            for number in range(2):
                assert code(await made.ask(asks, "crowd", item=str(number))) == "tool_failed"
        await weak.system.breakers.tend()
        await other.system.breakers.tend()
        await weak.system.breakers.tend()
        for made, asks in ((weak, session), (other, theirs)):
            assert code(await made.ask(asks, "crowd", item="one more")) == "tool_unavailable"
        assert weak.tool.count("crowd") == 4
        await weak.system.breakers.tend()
        await other.system.breakers.tend()
        opened = [body for kind, body in await weak.events("control") if kind == "breaker.changed"]
        assert {body["process_id"] for body in opened} == {weak.system.process_id, other.system.process_id}
        assert all(body["open"] and body["calls"] + body["others_calls"] >= 4 for body in opened)
        status = await weak.system.plane.status(OPERATOR)
        assert {row.operation for row in status.unstable} == {"weak.crowd"}
        view = await weak.system.plane.breakers.view(OPERATOR)
        assert {row.process_id for row in view.breakers if row.phase == "open"} == {row["process_id"] for row in opened}


async def test_what_others_counted_is_not_believed_for_longer_than_it_is_new(weak):
    session = await weak.session()
    await weak.ask(session, "look")
    weak.system.stability.learn({"weak.look": Counts(100, 100)})
    assert code(await weak.ask(session, "look", item="new")) == "tool_unavailable"
    weak.later(200)
    assert isinstance(await weak.ask(session, "look", item="b"), Returned)
    assert isinstance(await weak.ask(session, "look", item="c"), Returned)
    assert all(item.phase.value == "closed" for item in weak.system.stability.told())


async def test_answers_that_have_got_too_old_are_forgotten_as_others_come(weak):
    session = await weak.session()
    for number in range(10):
        await weak.ask(session, "look", item=f"old{number}")
    earlier = weak.system.gate._ways._earlier
    assert len(earlier._kept) == 10
    weak.later(301)
    for number in range(10):
        await weak.ask(session, "look", item=f"new{number}")
    assert len(earlier._kept) == 10
    assert earlier._bytes == sum(kept.size for kept in earlier._kept.values())
