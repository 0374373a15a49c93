"""What makes a kill's answer quick, and what it must not cost."""

from contextlib import asynccontextmanager

import asyncpg
import pytest

from interlock.store.queries import load
from tests.support.shop import counter

RENEW = "SELECT * FROM renew_lease($1, $2, 0, '{}')"


@pytest.fixture
async def line(database_urls, tmp_path):
    """A gateway whose lease nobody renews but us, and a connection to do it with."""
    async with counter(database_urls.app, tmp_path) as made:
        await made.system.keeper.stop()
        connection = await asyncpg.connect(database_urls.app)
        await connection.execute("SET synchronous_commit = on")  # which it is not in tests
        try:
            yield Line(connection, made.system)
        finally:
            await connection.close()


class Line:
    def __init__(self, connection, system):
        self.connection = connection
        self.process_id = system.process_id
        self.incarnation = system.lease.incarnation
        self.leases = system.leases

    async def renew(self):
        """Renew in the transaction that is open; says whether its commit will wait for the disk."""
        await self.connection.fetchrow(RENEW, self.process_id, self.incarnation)
        return await self.connection.fetchval("SHOW synchronous_commit")

    async def renewals(self):
        return await self.connection.fetchval("SELECT renewals FROM process WHERE process_id = $1", self.process_id)

    @asynccontextmanager
    async def lost(self):
        """What happens inside is what a crash of the database forgets."""
        transaction = self.connection.transaction()
        await transaction.start()
        yield
        await transaction.rollback()


async def test_that_a_lease_is_open_is_on_the_disk_before_it_is_answered_and_a_renewal_need_not_be(line):
    async with line.connection.transaction():
        assert await line.renew() == "off"
    (holder,) = await line.leases.holders()
    await line.leases.close(holder)
    async with line.connection.transaction():
        assert await line.renew() == "on"
    async with line.connection.transaction():
        assert await line.renew() == "off"
    assert await line.connection.fetchval("SHOW synchronous_commit") == "on"


async def test_what_another_life_of_the_database_brings_is_on_the_disk_before_it_is_answered(line, database_urls):
    superuser = await asyncpg.connect(database_urls.superuser)
    await superuser.execute("CREATE OR REPLACE FUNCTION incarnation() RETURNS text LANGUAGE sql AS $$ SELECT 'another/2' $$")
    await superuser.close()
    async with line.connection.transaction():
        assert await line.renew() == "on"
    async with line.connection.transaction():
        assert await line.renew() == "off"


async def test_a_renewal_that_a_crash_forgot_does_not_make_the_next_look_as_if_the_lease_had_stood_still(line):
    seen = set()
    for _ in range(5):
        async with line.lost():
            await line.renew()
            seen.add(await line.renewals())
    assert len(seen) == 5  # so whoever has seen one of them does not take the next for it
    before = await line.renewals()
    await line.renew()
    assert await line.renewals() > before


async def test_what_a_kill_asks_reads_no_table_that_grows_from_end_to_end(line):
    await line.connection.execute("SET enable_seqscan = off")  # else small tables are read whole, which says nothing
    plan = "\n".join(row[0] for row in await line.connection.fetch("EXPLAIN " + load()["claims_ended"], ["clm_1"]))
    assert "event_by_call" in plan
    assert "Seq Scan" not in plan
    assert "enable_seqscan=off" in await line.connection.fetchval(
        "SELECT array_to_string(proconfig, ' ') FROM pg_proc WHERE proname = 'change_control'"
    )
