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
    ready = Readiness(look, clock)
    await asyncio.gather(*(ready.check() for _ in range(50)))
    assert looks == 1
    clock.advance(readiness.READY_HOLDS_S)
    await ready.check()
    assert looks == 2


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(readiness, "READY_WITHIN_S", 0.01)
    ready = Readiness(asyncio.Event().wait, ManualClock())
    with pytest.raises(StoreUnavailableError):
        await ready.check()
