"""`/readyz` is for load balancers and `/livez` for whoever restarts what hangs: both for anybody, and both say no more than that."""

import asyncio

import asyncpg
import pytest

from interlock.app import readiness
from interlock.app.readiness import Readiness
from interlock.store.errors import StoreUnavailableError
from tests.leaving.conftest import ManualClock
from tests.support.patience import until


async def test_anybody_may_ask_by_any_address_and_learns_nothing_else(house):
    async with house() as made:
        ready = await made.get("/readyz", host="10.1.2.3:8080")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert (await made.get("/livez", host="10.1.2.3:8080")).json() == {"status": "alive"}
        assert (await made.get("/", host="10.1.2.3:8080")).status_code == 403


async def test_it_is_not_ready_without_a_release(house):
    async with house(files=None) as made:
        await not_ready(made)


async def test_it_is_not_ready_when_its_lease_is_lost(house):
    async with house() as made:
        made.system.lease.surrender()
        await not_ready(made)


async def test_it_is_not_ready_while_the_database_cannot_be_reached(house, database_urls):
    async with house() as made:
        postgres = await asyncpg.connect(database_urls.superuser, database="postgres")
        await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
        await postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'")

        async def is_ready():
            return (await made.get("/readyz")).status_code == 200

        async def is_not_ready():
            return not await is_ready()

        await until(is_not_ready)
        await not_ready(made)
        await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")
        await postgres.close()
        await until(is_ready)


# In the place of the statement that fills half a megabyte: what Postgres says when it cannot.
FULL = "DO $$ BEGIN RAISE EXCEPTION 'could not write to file: No space left on device' USING ERRCODE = '53100'; END $$"


async def sql(urls, statement):
    connection = await asyncpg.connect(urls.superuser, server_settings={"default_transaction_read_only": "off"})
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def answers(made, status):
    async def does():
        return (await made.get("/readyz")).status_code == status

    await until(does)


async def test_it_is_not_ready_while_the_disk_of_the_database_is_full_though_leases_are_renewed(house):
    async with house() as made:
        found = dict(made.system.database._sql)
        made.system.database._sql = {**found, "room": FULL}
        await answers(made, 503)
        await not_ready(made)
        assert made.system.lease.is_valid()
        made.system.database._sql = found
        await answers(made, 200)


async def test_it_is_not_ready_while_the_database_only_reads_on_new_connections_alone(house, database_urls):
    async with house() as made:
        await sql(database_urls, f"ALTER DATABASE {database_urls.name} SET default_transaction_read_only = on")
        # The lease goes on by its own connection, which nobody cut; those of the pool are made anew after some minutes.
        await made.system.database.pool().expire_connections()
        await answers(made, 503)
        assert made.system.lease.is_valid()
        await sql(database_urls, f"ALTER DATABASE {database_urls.name} RESET default_transaction_read_only")
        await made.system.database.pool().expire_connections()
        await answers(made, 200)


async def test_a_probe_that_cannot_be_made_for_other_reasons_says_nothing(house, database_urls):
    async with house() as made:
        await sql(database_urls, f"ALTER ROLE interlock_app IN DATABASE {database_urls.name} SET temp_file_limit = 0")
        await made.system.database.pool().expire_connections()
        with pytest.raises(StoreUnavailableError, match="ConfigurationLimitExceeded"):
            await made.system.database.rows("room")
        await made.system.plane.readiness.look_for_room()
        await made.system.plane.ready()


async def test_room_that_comes_and_goes_is_no_room_until_it_stays():
    room = [True, False, True, True, False, True, True, True]
    told = []

    async def look():
        pass

    async def looked():
        if not room.pop(0):
            raise StoreUnavailableError("the database has no room left")

    clock = ManualClock()
    ready = Readiness(look, looked, clock)
    while room:
        await ready.look_for_room()
        clock.advance(readiness.READY_HOLDS_S)
        try:
            await ready.check()
            told.append(True)
        except StoreUnavailableError:
            told.append(False)
    assert told == [True, False, False, False, False, False, False, True]


async def nothing():
    pass


async def not_ready(made):
    answer = await made.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert set(answer.json()) <= {"type", "title", "status", "detail"}
    assert (await made.get("/livez")).status_code == 200


async def test_however_many_ask_the_database_is_asked_once_in_a_while():
    looks = 0

    async def look():
        nonlocal looks
        looks += 1

    clock = ManualClock()
    ready = Readiness(look, nothing, clock)
    await asyncio.gather(*(ready.check() for _ in range(50)))
    assert looks == 1
    clock.advance(readiness.READY_HOLDS_S)
    await ready.check()
    assert looks == 2


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(readiness, "READY_WITHIN_S", 0.01)
    ready = Readiness(asyncio.Event().wait, nothing, ManualClock())
    with pytest.raises(StoreUnavailableError):
        await ready.check()
