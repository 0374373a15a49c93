"""The database fails in every way it can: nothing is executed that is not on record, whatever it would do."""

import asyncio

import asyncpg
import pytest

from interlock.gateway.messages import Returned
from interlock.store.errors import StoreUnavailableError
from tests.failures.world import EFFECTS, EVERY, code, done
from tests.support.patience import until

pytestmark = pytest.mark.parametrize("effect", EVERY)


async def refused(made, session, effect):
    """Nothing starts and nothing is changed while the fault lasts."""
    if effect == "control":
        with pytest.raises(StoreUnavailableError):
            await made.kill()
        assert not await made.is_stopped()
        return
    answer = await made.attempt(session, effect)
    assert code(answer) == "control_plane_unavailable"
    assert answer.effect.value == "none"
    assert made.executed == []


async def answers_again(made):
    """Connections that were cut are noticed by whoever uses them next: here, by nobody whose call is judged."""

    async def every_connection_answers():
        asked = (made.system.controls.epochs() for _ in range(12))
        return not any(isinstance(found, Exception) for found in await asyncio.gather(*asked, return_exceptions=True))

    await until(every_connection_answers)


async def well_again(made, session, effect):
    await answers_again(made)
    await until(made.system.lease.is_valid)
    if effect == "control":
        await made.kill()
        assert await made.is_stopped()
        return
    done(await made.attempt(session, effect))
    assert made.executed == [effect]
    await made.accounted()


async def test_with_the_database_down_nothing_starts_and_afterwards_it_does(made, session, effect):
    await made.postgres.execute(f"ALTER DATABASE {made.urls.name} WITH ALLOW_CONNECTIONS false")
    await made.cut()
    try:
        if effect == "control":
            with pytest.raises(StoreUnavailableError):
                await made.kill()
        else:
            assert code(await made.attempt(session, effect)) == "control_plane_unavailable"
            assert made.executed == []
    finally:
        await made.postgres.execute(f"ALTER DATABASE {made.urls.name} WITH ALLOW_CONNECTIONS true")
    await well_again(made, session, effect)


async def test_while_the_database_hangs_nothing_starts_and_what_then_happens_is_on_record(made, session, effect):
    connection = await asyncpg.connect(made.urls.superuser)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE epoch, claim IN ACCESS EXCLUSIVE MODE")
    asked = asyncio.create_task(made.kill() if effect == "control" else made.attempt(session, effect))
    await until(lambda: not made.system.lease.is_valid())
    assert made.executed == []
    assert not asked.done()
    await transaction.rollback()
    await connection.close()
    answer = await asked
    if effect == "control":
        assert await made.is_stopped()
        return
    assert isinstance(answer, Returned) == (made.executed == [effect])
    if not isinstance(answer, Returned):
        assert code(answer) == "control_plane_unavailable"
    await made.accounted()


async def is_slow(made, seconds):
    await made.sql(
        "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$"
    )
    await made.sql("CREATE TRIGGER slowly BEFORE INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION slowly()")


async def test_on_a_slow_database_calls_take_their_time_and_are_on_record(made, session, effect):
    await is_slow(made, 0.5)
    if effect == "control":
        await made.kill()
        assert await made.is_stopped()
        return
    done(await made.attempt(session, effect))
    assert made.executed == [effect]
    await made.accounted()


async def test_on_a_database_that_is_too_slow_a_call_ends_while_it_is_and_nothing_starts(made, session, effect, monkeypatch):
    monkeypatch.setattr("interlock.store.database.STATEMENT_TIMEOUT_MS", 1_000)
    await made.cut()
    await answers_again(made)
    await is_slow(made, 3_600)
    await refused(made, session, effect)
    monkeypatch.undo()
    await made.cut()
    await made.sql("DROP TRIGGER slowly ON event")
    await well_again(made, session, effect)


async def test_on_a_database_that_only_reads_nothing_starts(made, session, effect):
    await made.postgres.execute(f"ALTER DATABASE {made.urls.name} SET default_transaction_read_only = on")
    await made.cut()
    try:
        await answers_again(made)
        await refused(made, session, effect)
        await until(lambda: not made.system.lease.is_valid())
        with pytest.raises(StoreUnavailableError):
            await made.system.plane.ready()
        with pytest.raises(StoreUnavailableError, match="the database only reads: give the URL of the primary"):
            await made.system.heartbeat()
    finally:
        await made.postgres.execute(f"ALTER DATABASE {made.urls.name} RESET default_transaction_read_only")
        await made.cut()
    await well_again(made, session, effect)


async def test_after_a_failover_nothing_starts_for_a_whole_lease_and_old_decisions_are_made_again(made, session, effect):
    before = (await made.system.controls.epochs())[0]
    await made.sql("CREATE OR REPLACE FUNCTION incarnation() RETURNS text LANGUAGE sql AS $$ SELECT 'another/00000002' $$")
    await until(lambda: made.system.lease.incarnation == "another/00000002")
    assert not made.system.lease.is_valid()
    assert (await made.system.controls.epochs())[0].control > before.control + 999_999
    if effect == "control":
        answer = await made.kill()
        assert answer.epoch > before.control
        assert await made.is_stopped()
        return
    asked = asyncio.create_task(made.attempt(session, effect))
    await asyncio.sleep(0)
    assert made.executed == []
    answer = await asked
    if not isinstance(answer, Returned):
        assert code(answer) == "control_plane_unavailable"
        assert made.executed == []
    await well_again_if_not(made, session, effect)


async def well_again_if_not(made, session, effect):
    await until(made.system.lease.is_valid)
    done(await made.attempt(session, effect))
    assert set(made.executed) == {effect}
    await made.accounted()


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$
"""


async def test_on_a_full_database_nothing_starts(made, session, effect):
    await made.sql(FULL)
    await made.sql("CREATE TRIGGER full_disk BEFORE INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION full_disk()")
    try:
        await refused(made, session, effect)
    finally:
        await made.sql("DROP TRIGGER full_disk ON event")
    await well_again(made, session, effect)


async def test_when_the_ledger_cannot_be_written_nothing_starts(made, session, effect):
    await made.sql("REVOKE INSERT ON event, event_body FROM interlock_app")
    try:
        await refused(made, session, effect)
    finally:
        await made.sql("GRANT INSERT ON event, event_body TO interlock_app")
    await well_again(made, session, effect)


SETTLES = """
CREATE FUNCTION no_end() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.kind = 'call.settled' THEN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$
"""


async def test_when_only_the_outcome_cannot_be_recorded_nothing_of_it_is_released(made, session, effect):
    if effect == "control":  # a change of a control and its record are one transaction: there is no outcome apart
        assert set(EFFECTS) < set(EVERY)
        return
    await made.sql(SETTLES)
    await made.sql("CREATE TRIGGER no_end BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION no_end()")
    answer = await made.attempt(session, effect)
    await made.sql("DROP TRIGGER no_end ON event")
    assert made.executed == [effect]
    assert code(answer) == ("control_plane_unavailable" if effect == "read" else "not_recorded")
    assert answer.effect.value == ("none" if effect == "read" else "unknown")
    await made.accounted()
