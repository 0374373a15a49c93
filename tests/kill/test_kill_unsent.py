"""A call that is claimed and not yet sent, when something stops it: nothing of it reaches the tool, and everybody is told so."""

import asyncio
import hmac

import asyncpg
import pytest

from interlock.gateway.limits import LEASE_MARGIN_S, LEASE_S
from interlock.gateway.messages import Refusal, Returned
from tests.kill.world import far
from tests.support.patience import PATIENCE_S, until
from tests.support.shop import OPERATOR, Shop, counter


class Stuck:
    """A call of the second gateway that is claimed and waits for the tool to say which protocol it speaks."""

    def __init__(self, made, session, task):
        self.made, self.session, self.task = made, session, task


@pytest.fixture
async def stuck(two, tool):
    await tool.settled(2)
    tool.shut("server/discover")
    session = await two[1].session()
    task = asyncio.create_task(far(two[1], session, "send"))
    await asyncio.wait_for(tool.asked["server/discover"].wait(), PATIENCE_S)
    yield Stuck(two[1], session, task)
    tool.doors["server/discover"].set()
    await asyncio.gather(task, return_exceptions=True)


def scopes(session):
    return [
        "fleet", "tenant:acme", "environment:test", "agent:bot", "user:acme/ana", "tool:far", "operation:far.send",
        f"session:{session.session_id}",
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(8))
async def test_a_kill_of_each_scope_cancels_what_is_claimed_and_unsent_in_another_process(two, tool, stuck, number):
    scope = scopes(stuck.session)[number]
    answer = await two[0].system.plane.kill(OPERATOR, scope, "test")
    assert {held.lease for held in answer.processes} == {"acknowledged"}
    assert [(call.operation, call.became) for call in answer.in_flight] == [("far.send", "cancelled")]
    told = await stuck.task
    assert isinstance(told, Refusal)
    assert (told.code, told.effect) == ("halted", "none")
    tool.doors["server/discover"].set()
    assert (await far(two[1], stuck.session, "send")).code == "halted"
    assert tool.calls == []
    await two[0].system.plane.resume(OPERATOR, scope, "test")
    assert isinstance(await far(two[1], stuck.session, "send"), Returned)
    assert len(tool.calls) == 1


async def test_a_kill_of_another_scope_disturbs_nothing(two, tool, stuck):
    answer = await two[0].system.plane.kill(OPERATOR, "tool:shop", "test")
    assert answer.in_flight == ()
    tool.doors["server/discover"].set()
    assert isinstance(await stuck.task, Returned)


async def test_what_is_sent_already_may_still_take_effect_and_is_listed_so(two, tool):
    tool.shut("tools/call")
    task = asyncio.create_task(far(two[1], await two[1].session(), "send"))
    await asyncio.wait_for(tool.asked["tools/call"].wait(), PATIENCE_S)
    answer = await two[0].system.plane.kill(OPERATOR, "tool:far", "test")
    assert [(call.operation, call.became) for call in answer.in_flight] == [("far.send", "may_still_take_effect")]
    tool.doors["tools/call"].set()
    assert isinstance(await task, Returned)


async def test_a_kill_and_resume_while_it_waits_is_seen(two, tool, stuck):
    # The notifications are lost, so that the renewal finds both at once.
    stuck.made.system.keeper.told = lambda told: None
    kill = asyncio.create_task(two[0].system.plane.kill(OPERATOR, "tool:far", "test"))
    await until(lambda: two[0].system.lease.epoch == 1)
    await two[0].system.plane.resume(OPERATOR, "tool:far", "test")
    assert {held.lease for held in (await kill).processes} == {"acknowledged"}
    assert (await stuck.task).code == "halted"
    tool.doors["server/discover"].set()
    assert tool.calls == []


async def test_a_lost_notification_costs_a_renewal_and_no_more(two, stuck):
    stuck.made.system.keeper.told = lambda told: None
    answer = await two[0].system.plane.kill(OPERATOR, "tool:far", "test")
    assert {held.lease for held in answer.processes} == {"acknowledged"}
    assert [call.became for call in answer.in_flight] == ["cancelled"]


async def test_a_process_that_loses_its_lease_starts_nothing_reads_included(two, tool, stuck):
    lease = stuck.made.system.lease
    await stuck.made.system.keeper.stop()
    await until(lambda: not lease.is_valid())
    read = await far(stuck.made, await stuck.made.session(), "look")
    assert read.code == "control_plane_unavailable"
    tool.doors["server/discover"].set()
    told = await stuck.task
    assert (told.code, told.effect) == ("control_plane_unavailable", "none")
    assert tool.calls == []


async def test_a_kill_waits_for_a_silent_process_exactly_until_its_lease_is_over(two, tool, stuck):
    await stuck.made.system.keeper.stop()
    answer = await two[0].system.plane.kill(OPERATOR, "tool:far", "test")
    leases = {held.process_id: held.lease for held in answer.processes}
    assert leases == {two[0].system.process_id: "acknowledged", two[1].system.process_id: "ran out"}
    assert not stuck.made.system.lease.is_valid()
    assert answer.took_ms >= (LEASE_S + LEASE_MARGIN_S) * 1000
    assert [call.became for call in answer.in_flight] == ["may_still_take_effect"]
    tool.doors["server/discover"].set()
    assert (await stuck.task).code == "control_plane_unavailable"
    assert tool.calls == []


async def test_no_clock_of_the_database_decides_whether_a_kill_waits(two, database_urls, stuck):
    # As if the database's clock had jumped ahead by an hour: by its times nobody is alive any more.
    await stuck.made.system.keeper.stop()
    connection = await asyncpg.connect(database_urls.superuser)
    await connection.execute(
        "UPDATE process SET seen_at = seen_at - interval '1 hour', started_at = started_at - interval '1 hour'"
    )
    await connection.close()
    answer = await two[0].system.plane.kill(OPERATOR, "tool:far", "test")
    assert sorted(held.lease for held in answer.processes) == ["acknowledged", "ran out"]


async def test_a_jump_of_the_wall_clock_neither_lengthens_nor_ends_a_lease(two, tool):
    system = two[1].system
    true_us = system.clock.wall_us
    for jump_s in (86_400, -86_400):
        system.clock.wall_us = lambda jump_s=jump_s: true_us() + jump_s * 1_000_000
        assert system.lease.is_valid()
        await system.keeper.renew()
        assert 0 < system.lease.remaining_s() <= LEASE_S
        answer = await two[0].system.plane.kill(OPERATOR, "tool:far", "test")
        assert {held.lease for held in answer.processes} == {"acknowledged"}
        await two[0].system.plane.resume(OPERATOR, "tool:far", "test")


async def test_the_statement_of_last_resort_stops_what_is_unsent_and_is_on_record(two, tool, stuck, database_urls):
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute(
        "INSERT INTO control (scope, halted, reason) VALUES ('fleet', true, 'all else is down') "
        "ON CONFLICT (scope) DO UPDATE SET halted = true, reason = excluded.reason"
    )
    assert (await stuck.task).code == "halted"
    (row,) = await connection.fetch("SELECT halted, by_user, halted_epoch FROM control")
    assert (row["halted"], row["by_user"], row["halted_epoch"]) == (True, "sql:interlock_owner", 1)
    body, salt, commitment = await connection.fetchrow(
        "SELECT body, salt, commitment FROM event JOIN event_body USING (chain_id, seq) WHERE kind = 'control.changed'"
    )
    assert hmac.digest(salt, body.encode(), "sha256") == commitment
    told = [body for kind, body in await two[0].events("control") if kind == "control.changed"]
    assert [(body["scope"], body["by"], body["reason"]) for body in told] == [
        ("fleet", "sql:interlock_owner", "all else is down")
    ]
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute("DELETE FROM control")
    await connection.execute("UPDATE control SET halted = false")
    await connection.close()
    tool.doors["server/discover"].set()
    assert isinstance(await far(two[1], stuck.session, "send"), Returned)


async def test_in_another_life_of_the_database_nothing_starts_before_a_lease_has_passed(two, tool, stuck, database_urls):
    epoch = two[0].system.lease.epoch
    connection = await asyncpg.connect(database_urls.superuser)
    # What a standby that has taken over, or a restored backup, would say of itself.
    await connection.execute(
        "CREATE OR REPLACE FUNCTION incarnation() RETURNS text LANGUAGE sql AS $$ SELECT 'another/00000002' $$"
    )
    # Whatever was permitted in the life before is not sent in this one.
    assert (await stuck.task).code == "halted"
    lease = stuck.made.system.lease
    assert lease.epoch > epoch + 999_999
    assert not lease.is_valid()
    answer = await two[0].system.plane.kill(OPERATOR, "operation:far.look", "test")
    assert answer.took_ms > LEASE_S * 1000 or lease.is_valid()
    await until(lease.is_valid)
    tool.doors["server/discover"].set()
    assert isinstance(await far(two[1], stuck.session, "send"), Returned)
    assert [kind for kind, _ in await two[0].events("control")].count("database.changed") == 1
    await two[1].system.keeper.renew()
    assert await connection.fetchval("SELECT settled FROM epoch") is True
    await connection.close()


async def test_with_the_database_gone_what_is_claimed_and_unsent_is_not_sent(two, tool, stuck, postgres, database_urls):
    await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
    await postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'")
    lease = stuck.made.system.lease
    await until(lambda: not lease.is_valid())
    tool.doors["server/discover"].set()
    told = await stuck.task
    assert told.code in {"control_plane_unavailable", "not_recorded"}
    assert tool.calls == []
    # It comes back, and so does the lease.
    await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")
    await until(lease.is_valid)


async def test_claims_of_several_processes_race_a_kill_and_none_begins_after_its_answer(database_urls, tmp_path):
    shop = Shop()
    async with (
        counter(database_urls.app, tmp_path / "a", shop=shop) as one,
        counter(database_urls.app, tmp_path / "b", shop=shop) as another,
    ):
        for scope in ("fleet", "tool:shop", "operation:shop.note", "user:acme/ana", "agent:bot"):
            stop = asyncio.Event()

            async def ask(made, stop=stop):
                session = await made.session()
                while not stop.is_set():
                    await made.call(session, "note", text="x")

            asking = [asyncio.create_task(ask(made)) for made in (one, another) for _ in range(4)]
            before = len(shop.calls)
            await until(lambda before=before: len(shop.calls) > before + 20)
            await one.system.plane.kill(OPERATOR, scope, "race")
            begun = len(shop.calls)
            stop.set()
            await asyncio.gather(*asking)
            assert len(shop.calls) == begun, scope
            await one.system.plane.resume(OPERATOR, scope, "race")
