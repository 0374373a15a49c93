"""What was stopped, worried or revoked after a backup does not come alive with it, and people are told what they must look at."""

import msgspec
import pytest

from interlock.app import marking
from interlock.app.postures import PostureConflictError
from interlock.cli.access import AsApp
from interlock.cli.backup import reconcile as reconcile_command
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway import histories, plans
from interlock.gateway.messages import Returned
from interlock.store.mark import Standing, parts_of, read_part
from tests.doubt.world import RELEASE
from tests.restore.world import BOSS, made_good, resumed

ADMINISTERED = {
    **RELEASE,
    "release.yaml": RELEASE["release.yaml"].replace(
        "kill: [Operator]", "kill: [Operator], lower: [Operator], revoke: [Operator]"
    ),
}
ASKING = """
bot:
  test: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [shop.paid, shop.held, shop.once, shop.top_up, shop.blind], for: &staff {roles: [Staff], task: selling}}
    - {on: shop.pay, for: *staff, ask: {rule: refunds, when: {amount: {over: "50.00"}}}}
idle:
  test: {issuer: interlock-dev, subject: idle}
"""
LEA = Person(user="lea", tenant="acme", roles=("Lead",))


async def pay(made, session, order, amount="1.00"):
    return await made.call(session, "pay", order=order, amount=amount)


async def posture(made, session):
    return (await made.system.plane.postures._postures.get(session.lineage.id)).posture


async def control_events(made):
    return [msgspec.json.decode(event.body) for event in await made.system.traces.events("control")]


@pytest.fixture
def bank(bank):
    bank.files = ADMINISTERED
    return bank


async def _emptied(bank):
    async with bank.gateway():
        pass
    await bank.backup()


async def test_a_tool_that_was_stopped_after_the_backup_is_stopped_when_writes_go_on(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
        await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
    await bank.set_back()
    async with bank.gateway() as made:
        report = await made_good(made)
        assert report.controls == ("tool:shop is stopped, as oki said: the books are wrong",)
        await resumed(made)
        assert (await pay(made, await made.session(), "A2")).code == "halted"
        (told,) = [event for event in await control_events(made) if event["kind"] == "control.recovered"]
        assert (told["what"], told["target"], told["by"]) == ("stop", "tool:shop", "oki")
    assert [row["order"] for row in bank.tool.table] == ["A1"]


async def test_what_was_resumed_after_the_backup_stays_stopped_and_that_is_said(bank):
    async with bank.gateway() as made:
        await made.system.plane.kill(BOSS, "tool:shop", "a moment")
    await bank.backup()
    async with bank.gateway() as made:
        await made.system.plane.resume(BOSS, "tool:shop", "over")
        await made.system.keeper.renew()
        await pay(made, await made.session(), "A1")
        await made.system.marking.tend()
    await bank.set_back()
    async with bank.gateway() as made:
        report = await made_good(made)
        assert report.controls == ()
        (said,) = report.look_at
        assert said.startswith("tool:shop was resumed after the backup")
        await resumed(made)
        assert (await pay(made, await made.session(), "A2")).code == "halted"


async def test_postures_of_scopes_and_lineages_are_as_worried_as_they_were(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        worried, session = await made.session(user="eve"), await made.session()
        await pay(made, worried, "A1")
        await made.system.plane.postures.set(BOSS, worried.lineage.id, Posture.HALTED, "odd calls")
        await made.system.plane.scope_postures.set(BOSS, "agent:bot", Posture.READ_ONLY, "looking into it")
        await made.system.marking.tend()
    await bank.set_back()
    async with bank.gateway() as made:
        report = await made_good(made)
        assert report.controls == (
            "agent:bot is read_only, as oki said: looking into it",
            "bot for eve (acme, test) is halted, as oki said: odd calls",
        )
        await resumed(made)
        assert (await pay(made, await made.session(), "A2")).code == "read_only"
        assert await posture(made, await made.session(user="eve")) is Posture.HALTED
        assert await posture(made, await made.session()) is Posture.NORMAL
    assert session.lineage.user == "ana"


async def test_a_token_that_was_revoked_after_the_backup_opens_nothing(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
        before_us = made.system.clock.wall_us()
        await made.system.plane.revocations.revoke(BOSS, "user:ana", "left the company")
        await made.system.plane.revocations.revoke(BOSS, "agent:bot", "its key leaked")
        await made.system.marking.tend()
    await bank.set_back()
    async with bank.gateway() as made:
        revoked = "SELECT proofs_revoked('test', 'acme', $1, $2, $3, $2)"
        pool = made.system.database.pool()
        assert not await pool.fetchval(revoked, "ana", before_us, "bot")
        report = await made_good(made)
        assert [line.partition(" was issued")[0] for line in report.controls] == ["what agent bot", "what user ana"]
        assert await pool.fetchval(revoked, "ana", before_us, "other")
        assert await pool.fetchval(revoked, "ben", before_us, "bot")
        assert not await pool.fetchval(revoked, "ben", before_us, "other")
        await made_good(made)
        assert await pool.fetchval("SELECT count(*) FROM revocation") == 2


async def test_sessions_of_before_and_after_the_backup_are_over_and_so_are_logins(bank, database_urls):
    async with bank.gateway() as made:
        before = await made.session()
        assert isinstance(await pay(made, before, "A1"), Returned)
        await made.system.database.pool().execute(
            "INSERT INTO login (login_id, environment, client_id, tenant, user_id, agent, task, session_id, expires_at) "
            "VALUES ('l1', 'test', 'page', 'acme', 'ana', '', '', '', now() + interval '1 hour')"
        )
    await bank.backup()
    async with bank.gateway() as made:
        after = await made.session()
        assert isinstance(await pay(made, after, "A2"), Returned)
        await made.system.database.rows("revoke_session", before.session_id)
    await bank.set_back()
    async with bank.gateway() as made:
        await made_good(made)
        await resumed(made)
        for session in (before, after):
            assert (await pay(made, session, "A3")).code == "session_ended"
        assert await made.system.database.pool().fetchval("SELECT ended_because FROM login") == "restored"
    assert [row["order"] for row in bank.tool.table] == ["A1", "A2"]


async def test_an_approval_from_before_the_backup_that_was_used_after_it_is_not_used_again(bank):
    bank.files = {**ADMINISTERED, "agents.yaml": ASKING}
    async with bank.gateway() as made:
        session = await made.session()
        asked = await pay(made, session, "A1", "60.00")
        assert asked.code == "needs_approval"
        await made.system.plane.approvals.answer(LEA, asked.meta()["approvals"][0]["id"], approve=True)
    await bank.backup()
    async with bank.gateway() as made:
        assert isinstance(await pay(made, session, "A1", "60.00"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        assert (await made_good(made)).counts == {"done": 1}
        await resumed(made)
        session = await made.session()
        # It is decided on anew, and a new yes to it gets the first answer.
        again = await pay(made, session, "A1", "60.00")
        assert again.code == "needs_approval"
        await made.system.plane.approvals.answer(LEA, again.meta()["approvals"][0]["id"], approve=True)
        assert (await pay(made, session, "A1", "60.00")).meta["interlock/replayed"]
        assert (await pay(made, session, "A2", "60.00")).code == "needs_approval"
    assert [row["order"] for row in bank.tool.table] == ["A1"]


async def test_another_release_than_in_the_marks_is_said(bank):
    await _emptied(bank)
    bank.files = {**ADMINISTERED, "release.yaml": ADMINISTERED["release.yaml"].replace("name: ", "name: other-")}
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
        await made.system.marking.tend()
    await bank.set_back()
    bank.files = ADMINISTERED
    async with bank.gateway() as made:
        (said,) = (await made_good(made)).look_at
        assert "was in force" in said
        in_force = (await made.system.controls.epochs())[1]
        with pytest.raises(PostureConflictError, match=f"may allow more.*--release {in_force}"):
            await resumed(made)
        with pytest.raises(PostureConflictError, match="is not in force"):
            await made.system.plane.resume(BOSS, "restored", "the books agree", "sha256:other")
        assert (await pay(made, await made.session(), "A1")).code == "restored"
        await resumed(made, named=True)
        (event,) = [event for event in await control_events(made) if event["kind"] == "database.resumed"]
        assert event["release"] == in_force


async def test_under_the_release_that_was_in_force_nobody_has_to_name_it(bank):
    await _emptied(bank)
    narrower = {**ADMINISTERED, "release.yaml": ADMINISTERED["release.yaml"].replace("name: ", "name: other-")}
    bank.files = narrower
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
    await bank.set_back()
    bank.files = ADMINISTERED
    async with bank.gateway() as made:
        await made_good(made)
        with pytest.raises(PostureConflictError, match="was in force as the marks tell"):
            await resumed(made)
        await made.system.plane.releases.put_in_force(dict(narrower), by="the test")
        await resumed(made)
        assert (await pay(made, await made.session(), "A1")).meta["interlock/replayed"]


async def test_where_no_mark_tells_of_a_release_or_marks_may_be_missing_it_must_be_named(bank, monkeypatch):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
    await bank.set_back()
    async with bank.gateway() as made:
        await made_good(made, all_marks=False)
        with pytest.raises(PostureConflictError, match="marks may be missing"):
            await resumed(made)
        monkeypatch.setattr("interlock.app.restoring.latest", lambda _: None)
        await made_good(made)
        with pytest.raises(PostureConflictError, match="no mark tells which release was"):
            await resumed(made)
        await resumed(made, named=True)


async def test_marks_without_a_word_on_controls_say_so(bank, monkeypatch):
    async def nothing(_):
        pass

    monkeypatch.setattr(marking.Marking, "note_controls", nothing)
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
    await bank.set_back()
    async with bank.gateway() as made:
        (said,) = (await made_good(made)).look_at
        assert said.startswith("no mark tells of stops")


async def test_while_a_restore_is_open_no_mark_is_made_of_what_stands(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
        await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
    await bank.set_back()
    async with bank.gateway() as made:
        await made.system.marking.tend()
        await made.system.plane.kill(BOSS, "tenant:acme", "and this")
        assert any("the books are wrong" in line for line in (await made_good(made)).controls)
        await resumed(made)
        await made.system.marking.tend()
        secret, folder = made.system.keys.private_bytes("mark")[1], made.system.marking.mark
        lines = [line for path in parts_of(bank.state / "mark", folder.database_id) for line in read_part(path, secret).lines]
    last = [line for line in lines if isinstance(line, Standing)][-1]
    assert {stop.scope for stop in last.stops} == {"tool:shop", "tenant:acme"}


async def test_a_gateway_that_ran_through_a_restore_believes_nothing_of_what_it_knew(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        session = await made.session()
        assert isinstance(await pay(made, session, "A1"), Returned)
        system = made.system
        await system.contexts.holding(session)
        system.plans._known.put("of before", plans._Known(0, None, 1))
        system.histories._known.put("of before", histories._Log("of before"))
        system.marking._restores = -1
        await system.marking.note_controls()
        for memory in (system.contexts, system.plans, system.histories):
            assert not memory._known


def test_the_command_says_what_stands_and_what_is_left_to_people(bank, capsys):
    import asyncio  # noqa: PLC0415  # the command runs a loop of its own

    async def lost():
        await _emptied(bank)
        async with bank.gateway() as made:
            await pay(made, await made.session(), "A1")
            await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
        await bank.set_back()
        async with bank.gateway():
            pass

    asyncio.run(lost())
    assert reconcile_command(database=AsApp(database_url=bank.database_url), state=bank.state, all_marks=True) == 0
    said = capsys.readouterr().out
    assert "writes:\n  done after the backup, and known again: 1\n" in said
    assert "stopped, worried and revoked, as it stood:\n  tool:shop is stopped, as oki said: the books are wrong\n" in said
    assert "for people to look at:\n  budgets count what was put back" in said
