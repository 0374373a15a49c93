"""Migrations: any number of starters, forward only, never edited."""

import asyncio

import asyncpg
import pytest

from interlock.store import migrate as module
from interlock.store.errors import MigrationError
from interlock.store.migrate import RELEASED, Migration, migrate, migrations, why_not


async def test_ten_processes_may_start_at_once(empty_database_urls):
    applied = await asyncio.gather(*[migrate(empty_database_urls.owner) for _ in range(10)])
    assert sorted(len(numbers) for numbers in applied) == [0] * 9 + [len(migrations())]
    connection = await asyncpg.connect(empty_database_urls.owner)
    assert await why_not(connection) == ""
    await connection.close()


async def test_a_database_of_a_later_version_is_refused(database_urls):
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute("INSERT INTO migration (number, name, digest) VALUES (999, 'future', 'x')")
    assert "use the later version" in await why_not(connection)
    await connection.close()
    with pytest.raises(MigrationError, match="later version"):
        await migrate(database_urls.owner)


async def test_an_edited_migration_is_refused(database_urls, monkeypatch):
    edited = tuple(Migration(entry.number, entry.name, entry.sql + " ") for entry in migrations())
    monkeypatch.setattr(module, "migrations", lambda: edited)
    with pytest.raises(MigrationError, match="never edited"):
        await migrate(database_urls.owner)


async def test_an_empty_database_is_not_current(empty_database_urls):
    connection = await asyncpg.connect(empty_database_urls.owner)
    assert await why_not(connection)
    await connection.close()


async def test_a_migration_that_met_calls_in_a_deadlock_is_applied_again(database_urls, monkeypatch):
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute("CREATE SEQUENCE turn")
    sql = "DO $$ BEGIN IF nextval('turn') < {} THEN RAISE SQLSTATE '40P01'; END IF; END $$"
    number = migrations()[-1].number + 1
    everything = (*migrations(), Migration(number, "once", sql.format(3)), Migration(number + 1, "always", sql.format(1_000)))
    monkeypatch.setattr(module, "migrations", lambda: everything)
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await migrate(database_urls.owner)
    assert await connection.fetchval("SELECT max(number) FROM migration") == number
    await connection.close()


async def test_the_version_before_starts_on_the_schema_of_this_one_and_the_one_before_it_does_not(database_urls, monkeypatch):
    later = Migration(migrations()[-1].number + 1, "later", "SELECT 1")
    everything = (*migrations(), later)
    monkeypatch.setattr(module, "migrations", lambda: everything)
    assert await migrate(database_urls.owner) == (later.number,)
    before = [entry for entry in everything if entry.number <= RELEASED]
    connection = await asyncpg.connect(database_urls.app)
    monkeypatch.setattr(module, "migrations", lambda: before)
    assert await why_not(connection) == ""
    await connection.close()
    # One that the version before is not left able to run on.
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute("UPDATE migration SET works_from = $1 WHERE number = $1", later.number)
    assert "use the later version" in await why_not(connection)
    await connection.close()


async def test_this_version_does_not_start_on_a_schema_that_lacks_a_migration(empty_database_urls, monkeypatch):
    await migrate(empty_database_urls.owner)
    later = Migration(migrations()[-1].number + 1, "later", "SELECT 1")
    everything = (*migrations(), later)
    monkeypatch.setattr(module, "migrations", lambda: everything)
    connection = await asyncpg.connect(empty_database_urls.app)
    assert f"lacks the migrations from {later.number} on" in await why_not(connection)
    await connection.close()
