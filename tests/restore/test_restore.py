"""A database restored to an earlier point is noticed, comes up read-only, and pays nothing twice when it goes on."""

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.postures import PostureConflictError
from interlock.app.restoring import NothingRestoredError, Restoring
from interlock.app.scopes import UnknownScopeError
from interlock.app.sources import SystemIds
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from interlock.ledger.reader import verify_database
from interlock.store.errors import MarkError, StoreUnavailableError
from tests.doubt.world import RELEASE, reconcile
from tests.restore.world import BOSS, made_good, resumed
from tests.support.patience import until

GUARDED = {name: text for name, text in RELEASE.items() if name != "policies/guard/rules.cedar"}
GUARDED["release.yaml"] += "guarded: refunds\n"


async def pay(made, session, order, operation="pay"):
    return await made.call(session, operation, order=order, amount="1.00")


async def test_what_was_paid_after_the_backup_is_not_paid_again_and_its_repetition_gets_the_first_answer(bank):
    async with bank.gateway() as made:
        session = await made.session()
        assert isinstance(await pay(made, session, "before"), Returned)
    await bank.backup()
    async with bank.gateway() as made:
        session = await made.session()
        for order in ("A1", "A2", "A3"):
            assert isinstance(await pay(made, session, order), Returned)
    await bank.set_back()

    async with bank.gateway() as made:
        session = await made.session()
        told = await pay(made, session, "A1")
        assert (told.code, told.outcome.value, told.effect.value, told.retry) == ("restored", "halted", "unknown", "after_ms")
        assert isinstance(await made.call(session, "paid", order="A1"), Returned)

        report = await made_good(made)
        assert (report.counts, report.faults, report.complete) == ({"done": 3, "known": 1}, (), True)
        assert (await pay(made, session, "A1")).code == "restored"
        await resumed(made)
        for order in ("before", "A1", "A2", "A3"):
            told = await pay(made, session, order)
            assert isinstance(told, Returned), told
            assert told.meta["interlock/replayed"]
        assert isinstance(await pay(made, session, "new"), Returned)
    assert [row["order"] for row in bank.tool.table] == ["before", "A1", "A2", "A3", "new"]


async def test_a_write_in_doubt_that_the_backup_does_not_know_is_looked_up_before_anybody_may_make_it(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        session = await made.session()
        bank.tool.loses = ["after", "before"]
        assert (await pay(made, session, "lost after")).code == "in_doubt"
        assert (await pay(made, session, "lost before")).code == "in_doubt"
    await bank.set_back()
    async with bank.gateway() as made:
        await made.session()
        assert (await made_good(made)).counts == {"in_doubt": 2}
        await reconcile(made, seconds=200)
        await resumed(made)
        session = await made.session()
        assert (await pay(made, session, "lost after")).code == "done_unseen"
        assert isinstance(await pay(made, session, "lost before"), Returned)
    assert sorted(row["order"] for row in bank.tool.table) == ["lost after", "lost before"]


async def _emptied(bank):
    """A backup of a database in which a release is in force, and nothing was done."""
    async with bank.gateway():
        pass
    await bank.backup()


async def test_what_nothing_can_tell_of_stays_in_doubt_and_a_person_is_asked(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        bank.tool.loses = ["after"]
        assert (await made.call(await made.session(), "blind", order="A1")).code == "in_doubt"
    await bank.set_back()
    async with bank.gateway() as made:
        await made.session()
        assert (await made_good(made)).doubts.looked_into == 1
        await reconcile(made, seconds=200)
        await resumed(made)
        assert (await made.call(await made.session(), "blind", order="A1")).code == "in_doubt"
        (doubt,) = await made.system.plane.doubts.list(BOSS)
        assert "does not say how to find out" in doubt.asks_people
        assert doubt.arguments == {"order": "A1"}
    assert len(bank.tool.table) == 1


async def test_a_call_in_flight_when_the_backup_was_made_gets_its_end_from_the_mark(bank):
    """What is known of its end, and the same key may then be used for another."""
    async with bank.gateway() as made:
        session = await made.session()
        bank.tool.loses = ["after"]
        assert (await pay(made, session, "A1")).code == "in_doubt"
    await bank.backup()
    async with bank.gateway() as made:
        await reconcile(made, seconds=200)
        assert (await pay(made, await made.session(), "A1")).code == "done_unseen"
        assert isinstance(await pay(made, await made.session(), "A2"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await made.session()
        assert (await made_good(made)).counts == {"settled": 1, "done": 1}
        await resumed(made)
        assert (await pay(made, await made.session(), "A1")).code == "done_unseen"
    assert len(bank.tool.table) == 2


async def test_an_answer_too_long_for_the_mark_is_told_as_done_and_unseen(bank, monkeypatch):
    monkeypatch.setattr("interlock.app.marking.MAX_OUTCOME_BYTES", 1)
    await _emptied(bank)
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await made_good(made)
        await resumed(made)
        assert (await pay(made, await made.session(), "A1")).code == "done_unseen"


async def test_nobody_resumes_before_it_is_made_good_nor_without_the_role_nor_twice(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
    await bank.set_back()
    async with bank.gateway() as made:
        with pytest.raises(PostureConflictError, match="db reconcile"):
            await resumed(made)
        await made_good(made)
        with pytest.raises(NotPermittedError):
            await made.system.plane.resume(Person(user="ana", tenant="acme", roles=("Staff",)), "restored", "please")
        with pytest.raises(UnknownScopeError):
            await made.system.plane.scope_postures.set(BOSS, "restored", Posture.NORMAL, "a way around")
        assert (await resumed(made)).scope == "restored"
        with pytest.raises(PostureConflictError, match="no restore"):
            await resumed(made)
        with pytest.raises(NothingRestoredError):
            await made_good(made)
        kinds = [kind for kind, _ in await made.events("control")]
        assert [kind for kind in kinds if kind.startswith("database.re")] == [
            "database.restored",
            "database.reconciled",
            "database.resumed",
        ]


async def test_where_marks_may_be_missing_each_write_asks_a_person_for_a_day(bank):
    bank.files = GUARDED
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
    await bank.set_back()
    async with bank.gateway() as made:
        report = await made_good(made, all_marks=False)
        assert not report.complete
        assert "each write asks a person" in (await resumed(made, named=True)).note
        session = await made.session()
        assert (await pay(made, session, "unknown to all")).code == "needs_approval"
        assert isinstance(await made.call(session, "paid", order="A1"), Returned)
        with pytest.raises(PostureConflictError, match="a day"):
            await resumed(made)
    assert len(bank.tool.table) == 1


async def test_a_gateway_that_runs_notices_on_its_next_connection_and_writes_nothing_meanwhile(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1"), Returned)
        await bank.set_back()
        watch = made.system.marking

        async def is_noticed():
            # What it writes meanwhile does not count: there is none. Each of these asks for a connection.
            try:
                return await watch.restorations.last() is not None
            except StoreUnavailableError:
                return False

        await until(is_noticed)
        assert watch.desk.knows_by > 0
        assert not isinstance(await pay(made, await made.session(), "A1"), Returned)
    assert len(bank.tool.table) == 1


async def test_a_second_gateway_with_marks_of_its_own_elsewhere_is_heard_as_well(bank, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    await _emptied(bank)
    async with bank.gateway(elsewhere) as made:
        assert isinstance(await pay(made, await made.session(), "A1"), Returned)
        secrets = made.system.keys.all_private_bytes("mark")
    await bank.set_back()
    async with bank.gateway() as made:
        # This one has no mark that tells, so it does not know: whoever comes with one tells everybody.
        async with bank.gateway(elsewhere):
            await made.system.keeper.renew()
            assert (await pay(made, await made.session(), "A1")).code == "restored"
        restoring = Restoring(made.system.marking.restorations, made.system.desk, SystemIds())
        report = await restoring.reconcile([elsewhere / "mark"], secrets, all_marks=True)
        assert report.counts == {"done": 1}


async def test_a_database_in_the_place_of_another_is_refused(bank):
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1"), Returned)
    await bank.forget_everything()
    with pytest.raises(MarkError, match="holds marks of another database"):
        async with bank.gateway():
            pass


async def test_what_cannot_be_put_in_the_mark_is_not_done(bank, monkeypatch):
    async with bank.gateway() as made:
        session = await made.session()

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("interlock.store.mark.os.write", full)
            told = await pay(made, session, "A1")
        assert (told.code, told.effect.value) == ("control_plane_unavailable", "none")
        assert bank.tool.table == []
        assert isinstance(await pay(made, session, "A2"), Returned)


async def test_after_it_was_made_good_a_restart_finds_nothing_to_notice_and_the_ledger_holds(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        await pay(made, await made.session(), "A1")
        bank.tool.loses = ["before"]
        assert (await pay(made, await made.session(), "A2")).code == "in_doubt"
        await reconcile(made, seconds=200)
    await bank.set_back()
    async with bank.gateway() as made:
        # What it signs meanwhile stands in the witness behind what is lost.
        assert await made.system.sign_heads() > 0
        assert (await made_good(made)).counts == {"done": 1, "not_done": 1}
        restoring = Restoring(made.system.marking.restorations, made.system.desk, SystemIds())
        assert await restoring.put_witness_aside(bank.state / "heads.jsonl") is not None
        await resumed(made)
        heads = made.system.keys.public_bytes("heads")
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A2"), Returned)
        assert (await made.system.marking.restorations.last()).n == 1
    report = await verify_database(bank.owner_url, heads, bank.state / "heads.jsonl")
    assert report.intact, report.findings
