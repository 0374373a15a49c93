"""The gate attacked: what is decided, executed once, recorded, and told to the caller."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from interlock.core.terms import Posture
from interlock.gateway.messages import Refusal, Returned
from interlock.store.errors import StoreUnavailableError
from tests.support.patience import PATIENCE_S
from tests.support.shop import FILES, OPERATOR, counter


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


async def test_an_allowed_read_is_answered_and_every_step_is_on_record(shop):
    session = await shop.session()
    answer = await shop.call(session, "stock", item="tea")
    assert isinstance(answer, Returned)
    assert answer.structured == {"item": "tea", "left": 3}
    assert await shop.kinds(session.session_id) == [
        "session.opened",
        "call.proposed",
        "call.decided",
        "call.claimed",
        "call.settled",
    ]


async def test_a_decision_names_release_policies_and_the_facts_it_was_made_on(shop):
    session = await shop.session()
    answer = await shop.call(session, "stock", item="tea")
    (decided,) = [body for kind, body in await shop.events(answer.call_id) if kind == "call.decided"]
    _, digest = await shop.system.controls.epochs()
    assert decided["decision"]["release_digest"] == digest
    assert {policy["layer"] for policy in decided["decision"]["policies"]} >= {"identity", "delegation", "capability", "data"}
    assert decided["facts"]["arguments"] == '{"item":"tea"}'
    assert decided["decision"]["engine"].startswith("cedarpy")


async def test_an_agent_without_a_grant_is_denied_and_no_tool_is_reached_not_even_to_look(shop):
    session = await shop.session(agent="idle")
    answer = await shop.call(session, "order", order_id="A1")
    assert code(answer) == "agent_not_permitted"
    assert "Nothing was changed" in answer.text
    assert shop.shop.calls == []
    assert await shop.kinds(answer.call_id) == ["call.proposed", "call.decided", "call.refused"]


async def test_the_users_own_rights_over_this_very_object_bind_the_agent(shop):
    session = await shop.session(teams=("north",))
    assert isinstance(await shop.call(session, "order", order_id="A1"), Returned)
    assert code(await shop.call(session, "order", order_id="B1")) == "user_not_permitted"
    assert shop.shop.count("order") == 1


async def test_an_object_nobody_knows_is_refused(shop):
    session = await shop.session()
    assert isinstance(await shop.call(session, "order", order_id="Z9"), Refusal)
    assert shop.shop.count("order") == 0


async def test_a_role_the_user_does_not_have_is_not_lent_by_the_agent(shop):
    session = await shop.session(roles=("Guest",))
    assert code(await shop.call(session, "stock", item="tea")) == "user_not_permitted"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"item":"tea","item":"gold"}', "item"),
        (b'{"item":{"__entity":{"type":"User","id":"root"}}}', "item.__entity"),
        (b'{"item":"tea","extra":1}', ""),
        (b'{"item":1}', "item"),
        (b'{"item":"\\u0000"}', "item"),
        (b"[1]", ""),
        (b"{", ""),
        (b"\xff", ""),
    ],
)
async def test_arguments_that_could_mean_two_things_or_do_not_fit_are_refused_and_recorded(shop, raw, field):
    session = await shop.session()
    answer = await shop.call(session, "stock", raw=raw)
    assert code(answer) == "invalid_arguments"
    assert answer.field == field
    assert shop.shop.calls == []
    assert await shop.kinds(answer.call_id) == ["call.proposed", "call.refused"]


async def test_an_unknown_and_an_internal_operation_look_the_same(shop):
    session = await shop.session()
    assert code(await shop.call(session, "nothing")) == "unknown_operation"
    assert code(await shop.call(session, "lookup", order_id="A1")) == "unknown_operation"
    assert shop.shop.calls == []


async def test_a_limit_on_an_argument_is_a_ceiling(shop):
    session = await shop.session()
    told = await shop.call(session, "refund", order_id="A1", amount="100.01")
    assert (code(told), told.field) == ("arguments_not_permitted", "amount")
    assert "not with these arguments: `amount` has to be at most 100.00. Nothing was changed." in told.text
    assert shop.shop.count("refund") == 0
    # Whoever is not entitled to the object learns no limit.
    told = await shop.call(session, "refund", order_id="B1", amount="100.01")
    assert (code(told), told.field) == ("user_not_permitted", "")


async def test_what_needs_a_person_comes_back_as_such_and_is_not_done(shop):
    session = await shop.session()
    answer = await shop.call(session, "refund", order_id="A1", amount="80.00")
    assert code(answer) == "needs_approval"
    assert answer.meta()["approvals"][0]["role"] == "Lead"
    assert answer.retry == "same_args_after_approval"
    assert shop.shop.count("refund") == 0


async def test_a_repeated_write_is_answered_with_the_first_outcome_and_says_so(shop):
    session = await shop.session()
    first = await shop.call(session, "pay", order_id="A1", amount="5.00")
    again = await shop.call(session, "pay", order_id="A1", amount="5.00")
    assert first.structured == again.structured
    assert again.meta["interlock/replayed"]["of"] == first.call_id
    assert shop.shop.count("pay") == 1
    assert (await shop.kinds(again.call_id))[-1] == "call.replayed"


async def test_a_replay_is_decided_again_on_todays_facts(shop, database_urls):
    session = await shop.session()
    await shop.call(session, "pay", order_id="A1", amount="5.00")
    await set_posture(shop, session, Posture.GUARDED)
    assert code(await shop.call(session, "pay", order_id="A1", amount="5.00")) == "forbidden"
    assert shop.shop.count("pay") == 1


async def set_posture(shop, session, posture):
    await shop.system.database.pool().execute(
        "UPDATE lineage SET posture = $1, facts_version = facts_version + 1 WHERE lineage_id = $2",
        posture.value,
        session.lineage.id,
    )


async def test_a_fact_that_changed_since_it_was_read_is_decided_on_again(shop):
    session = await shop.session()
    await shop.call(session, "stock", item="tea")
    await set_posture(shop, session, Posture.GUARDED)
    assert code(await shop.call(session, "note", text="hi")) == "forbidden"
    assert shop.shop.count("note") == 0


async def test_another_session_of_the_same_lineage_inherits_its_past(shop):
    first = await shop.session()
    await set_posture(shop, first, Posture.GUARDED)
    second = await shop.session()
    assert code(await shop.call(second, "note", text="hi")) == "forbidden"


async def test_doing_it_again_on_purpose_is_a_new_call_that_is_done_once(shop):
    session = await shop.session()
    first = await shop.call(session, "pay", order_id="A1", amount="5.00")
    for _ in range(2):
        await shop.call(session, "pay", order_id="A1", amount="5.00", repeat_of=first.call_id)
    assert shop.shop.count("pay") == 2


async def test_a_key_used_for_another_call_is_refused(shop):
    session = await shop.session()
    await shop.call(session, "pay", key="k", order_id="A1", amount="5.00")
    assert code(await shop.call(session, "pay", key="k", order_id="A1", amount="6.00")) == "idempotency_key_reused"
    assert shop.shop.count("pay") == 1


async def test_once_per_arguments_make_two_calls_the_same_whatever_else_they_say(shop):
    session = await shop.session()
    await shop.call(session, "refund", order_id="A1", amount="5.00", note="one")
    again = await shop.call(session, "refund", order_id="A1", amount="5.00", note="two")
    assert "interlock/replayed" in again.meta
    assert shop.shop.count("refund") == 1


async def test_another_users_key_is_never_met(shop):
    for user in ("ana", "ben"):
        answer = await shop.call(await shop.session(user=user), "pay", key="k", order_id="A1", amount="5.00")
        assert "interlock/replayed" not in answer.meta
    assert shop.shop.count("pay") == 2


async def test_concurrent_identical_writes_are_done_once_and_everyone_learns_the_outcome(shop):
    session = await shop.session()
    answers = await asyncio.gather(*[shop.call(session, "pay", key="k", order_id="A1", amount="5.00") for _ in range(50)])
    assert shop.shop.count("pay") == 1
    assert {answer.structured["n"] for answer in answers} == {1}
    assert sum("interlock/replayed" not in answer.meta for answer in answers) == 1


async def test_a_write_that_may_have_arrived_is_in_doubt_and_never_sent_again(shop):
    session = await shop.session()
    first = await shop.call(session, "boom", order_id="A1")
    again = await shop.call(session, "boom", order_id="A1")
    for answer in (first, again):
        assert code(answer) == "in_doubt"
        assert answer.meta()["effect"] == "unknown"
        assert "Nothing was changed" not in answer.text
    assert shop.shop.count("boom") == 1


async def test_personal_data_is_taken_out_of_structure_and_text(shop):
    session = await shop.session()
    answer = await shop.call(session, "person", person_id=1)
    assert answer.structured == {"name": "Jane"}
    assert "jane@" not in str(answer.content)
    assert answer.meta["interlock/labels"]["redacted"] == ["email"]
    assert "jane@" not in str(await shop.events(answer.call_id))


async def test_the_text_of_an_error_is_withheld_when_anything_must_be_filtered(shop):
    answer = await shop.call(await shop.session(), "person", person_id=13)
    assert answer.is_error
    assert "jane@" not in str(answer.content)


async def test_a_result_that_does_not_fit_its_schema_is_withheld_and_said_to_be_done(shop):
    answer = await shop.call(await shop.session(), "wild", item="tea")
    assert code(answer) == "result_withheld"
    assert answer.meta()["effect"] == "done"


async def test_a_rate_holds_for_the_lineage_whatever_session_it_uses(shop):
    for _ in range(2):
        assert isinstance(await shop.call(await shop.session(), "hurried", text="x"), Returned)
    answer = await shop.call(await shop.session(), "hurried", text="x")
    assert code(answer) == "rate_limited"
    assert answer.meta()["after_ms"] > 0
    assert shop.shop.count("hurried") == 2


async def test_after_a_kill_nothing_starts_not_even_a_look_at_an_object(shop):
    session = await shop.session()
    await shop.system.plane.kill(OPERATOR, "tool:shop", "test")
    before = len(shop.shop.calls)
    assert code(await shop.call(session, "stock", item="tea")) == "halted"
    assert code(await shop.call(session, "order", order_id="A1")) == "halted"
    assert len(shop.shop.calls) == before


@pytest.mark.parametrize("scope", ["fleet", "tenant:acme", "environment:test", "agent:bot", "tool:shop", "operation:shop.note"])
async def test_each_scope_stops_its_calls_and_lets_them_go_on_after_resume(shop, scope):
    session = await shop.session()
    await shop.system.plane.kill(OPERATOR, scope, "test")
    assert code(await shop.call(session, "note", text="x")) == "halted"
    await shop.system.plane.resume(OPERATOR, scope, "test")
    assert isinstance(await shop.call(session, "note", text="x"), Returned)


async def test_a_kill_lists_what_may_still_take_effect(shop):
    session = await shop.session()
    call = asyncio.create_task(shop.call(session, "slow", order_id="A1"))
    await shop.shop.entered.wait()
    answer = await shop.system.plane.kill(OPERATOR, "fleet", "test")
    assert [(flight.operation, flight.became) for flight in answer.in_flight] == [("shop.slow", "may_still_take_effect")]
    shop.shop.go_on.set()
    assert isinstance(await call, Returned)


async def test_a_caller_that_leaves_does_not_stop_a_claimed_write_from_settling(shop):
    session = await shop.session()
    call = asyncio.create_task(shop.call(session, "slow", order_id="A1"))
    await shop.shop.entered.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    shop.shop.go_on.set()
    await shop.gate.calls.drain()
    assert (await shop.kinds(session.session_id))[-1] == "call.settled"
    again = await shop.call(session, "slow", order_id="A1")
    assert "interlock/replayed" in again.meta
    assert shop.shop.count("slow") == 1


async def test_nothing_of_an_outcome_is_released_that_could_not_be_recorded(shop):
    session = await shop.session()

    async def database_goes_away():
        await shop.system.database.pool().execute("UPDATE claim SET attempt = 99")

    shop.shop.after_effect = database_goes_away
    answer = await shop.call(session, "pay", order_id="A1", amount="5.00")
    assert code(answer) == "not_recorded"
    assert answer.meta()["effect"] == "unknown"


async def test_an_activated_release_decides_the_next_call_and_drops_none(shop, monkeypatch):
    # What is asked here is what an activation does; that a process which gets no time starts nothing is asked elsewhere.
    monkeypatch.setattr("interlock.gateway.lease.LEASE_S", PATIENCE_S)
    await shop.system.keeper.renew()
    session = await shop.session()
    await shop.call(session, "note", text="x")
    stricter = {**FILES, "policies/guard/more.cedar": STRICTER}
    calls = [asyncio.create_task(shop.call(session, "note", text=str(n))) for n in range(20)]
    activated = await shop.system.plane.releases.put_in_force(stricter, by="test")
    answers = await asyncio.gather(*calls)
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} <= {"forbidden"}
    after = await shop.call(session, "note", text="after")
    assert code(after) == "forbidden"
    (decided,) = [body for kind, body in await shop.events(after.call_id) if kind == "call.decided"]
    assert decided["decision"]["release_digest"] == activated.digest


async def test_a_caller_is_answered_though_nothing_can_be_told_of_how_the_call_ended(shop, monkeypatch):
    session = await shop.session()

    def broken(path, call):
        raise ValueError("a defect of telemetry")

    monkeypatch.setattr(shop.system.telemetry, "ended", broken)
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await shop.call(session, "note", text="x"), Returned)
    assert shop.shop.count("note") == 1


async def test_of_a_write_that_was_made_before_nobody_is_told_that_nothing_was_changed(shop, monkeypatch):
    session = await shop.session()
    assert isinstance(await shop.call(session, "pay", order_id="A1", amount="3.00"), Returned)

    async def away(*_, **__):
        raise StoreUnavailableError("the database is away")

    monkeypatch.setattr(shop.system.contexts, "labelled", away)
    answer = await shop.call(session, "pay", order_id="A1", amount="3.00")
    assert answer.meta()["effect"] == "unknown"
    assert "Nothing was changed" not in answer.text
    assert shop.shop.count("pay") == 1


async def gone(*_):
    """Waits for something that was cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


async def test_a_call_is_not_dropped_with_something_that_it_waited_for(shop, monkeypatch):
    session = await shop.session()
    monkeypatch.setattr(shop.system.contexts, "returned", gone)
    assert code(await shop.call(session, "stock", item="tea")) == "control_plane_unavailable"
    assert code(await shop.call(session, "note", text="x")) == "not_recorded"


async def test_a_write_whose_connector_was_ended_from_elsewhere_is_settled_as_in_doubt(shop, monkeypatch):
    session = await shop.session()
    monkeypatch.setattr(shop.system.connectors, "get", lambda tool: SimpleNamespace(invoke=gone))
    answer = await shop.call(session, "note", text="x")
    assert code(answer) == "in_doubt"
    assert (await shop.kinds(answer.call_id))[-1] == "call.settled"


STRICTER = """
@id("no-notes")
@owner("security")
forbid (principal, action == Action::"shop.note", resource);
"""


async def test_a_process_that_cannot_load_the_release_in_force_refuses_its_calls(shop):
    session = await shop.session()
    await shop.call(session, "stock", item="tea")
    pool = shop.system.database.pool()
    await pool.execute("UPDATE epoch SET release = release + 1, release_digest = 'sha256:gone'")
    assert code(await shop.call(session, "stock", item="tea")) == "control_plane_unavailable"
    assert shop.shop.count("stock") == 1


async def test_extra_logging_keeps_the_whole_released_output_on_record(shop):
    session = await shop.session()
    item = "x" * 20_000

    async def kept():
        answer = await shop.call(session, "stock", item=item)
        (settled,) = [body for kind, body in await shop.events(answer.call_id) if kind == "call.settled"]
        assert settled["released_digest"]
        return settled["released"]

    assert await kept() is None
    await shop.system.plane.releases.put_in_force({**FILES, "policies/data/log.cedar": LOGGED}, by="test")
    assert (await kept())["structured"]["item"] == item


LOGGED = """
@id("watch-stock")
@owner("security")
@obligation("log")
forbid (principal, action == Action::"shop.stock", resource);
"""


async def test_a_process_that_cannot_load_the_release_still_says_that_it_is_alive(shop):
    pool = shop.system.database.pool()
    await pool.execute("UPDATE epoch SET release = release + 1, release_digest = 'sha256:gone'")
    await pool.execute("UPDATE process SET seen_at = seen_at - interval '1 minute'")
    await shop.system.heartbeat()
    assert [process.process_id for process in await shop.system.processes.live()] == [shop.system.process_id]


async def test_a_process_in_which_loading_the_release_breaks_says_so_too_and_puts_orphans_in_doubt(shop, monkeypatch, caplog):
    pool = shop.system.database.pool()
    await pool.execute("UPDATE process SET seen_at = seen_at - interval '1 minute'")
    looked = []

    async def broken(digest, epoch):
        raise RecursionError("a defect of whoever loads it")

    async def orphan(event):
        looked.append(event.kind)
        return ()

    monkeypatch.setattr(shop.system.governing, "in_force", broken)
    monkeypatch.setattr(shop.system.processes, "orphan", orphan)
    await shop.system.heartbeat()
    assert [process.process_id for process in await shop.system.processes.live()] == [shop.system.process_id]
    assert "claim.orphaned" in looked
    assert "the release in force cannot be loaded" in caplog.text


async def test_a_session_that_was_revoked_can_do_nothing_more(shop):
    session = await shop.session()
    await shop.call(session, "stock", item="tea")
    await shop.system.gate._beliefs._standings._sessions.revoke(session.session_id)
    assert code(await shop.call(session, "stock", item="tea")) == "session_ended"
    assert shop.shop.count("stock") == 1


async def test_with_the_database_gone_nothing_is_executed(shop, postgres, database_urls):
    session = await shop.session()
    await shop.call(session, "stock", item="tea")
    await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
    await postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'")
    answer = await shop.call(session, "stock", item="tea")
    assert code(answer) == "control_plane_unavailable"
    assert shop.shop.count("stock") == 1
    await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")


async def test_a_read_object_is_remembered_for_reads_and_read_again_for_writes(shop):
    session = await shop.session()
    for _ in range(3):
        await shop.call(session, "order", order_id="A1")
    assert shop.shop.count("lookup") == 1
    await shop.call(session, "refund", order_id="A1", amount="1.00")
    assert shop.shop.count("lookup") == 2


async def test_the_listing_shows_what_may_be_used_and_the_schema_as_it_will_be(shop):
    listed = {operation.operation: operation for operation in await shop.gate.visible(await shop.session())}
    assert "shop.lookup" not in listed
    schema = msgspec.json.decode(listed["shop.person"].output_schema)
    assert schema["required"] == ["name"]
    assert await shop.gate.visible(await shop.session(agent="idle")) == ()


async def test_what_is_always_forbidden_is_not_listed_and_what_a_person_may_lift_is(database_urls, tmp_path):
    final = '@id("no-notes")\n@owner("security")\nforbid (principal, action == Action::"shop.note", resource);\n'
    liftable = (
        '@id("ask")\n@owner("security")\n@approval("refunds")\nforbid (principal, action == Action::"shop.pay", resource);\n'
    )
    files = {**FILES, "policies/guard/more.cedar": final + liftable}
    async with counter(database_urls.app, tmp_path, files=files) as shop:
        listed = {operation.operation for operation in await shop.gate.visible(await shop.session())}
    assert "shop.note" not in listed
    assert {"shop.pay", "shop.stock"} <= listed


async def test_two_processes_do_one_write_once(shop, database_urls, tmp_path_factory):
    async with counter(database_urls.app, tmp_path_factory.mktemp("second"), shop.shop) as other:
        session = await shop.session()
        sides = [shop, other] * 10
        answers = await asyncio.gather(*[side.call(session, "pay", key="k", order_id="A1", amount="5.00") for side in sides])
    assert shop.shop.count("pay") == 1
    assert {answer.structured["n"] for answer in answers} == {1}
