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


async def test_the_version_before_starts_on_the_schema_of_this_one_and_the_one_before_it_does_not(database_urls, monkeypatch):
    assert len(migrations()) > RELEASED
    before = migrations()[:RELEASED]
    connection = await asyncpg.connect(database_urls.app)
    monkeypatch.setattr(module, "migrations", lambda: before)
    assert await why_not(connection) == ""
    monkeypatch.setattr(module, "migrations", lambda: before[:-1])
    assert "use the later version" in await why_not(connection)
    await connection.close()


async def test_this_version_does_not_start_on_the_schema_of_the_one_before(empty_database_urls, monkeypatch):
    before = migrations()[:RELEASED]
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "migrations", lambda: before)
        await migrate(empty_database_urls.owner)
    connection = await asyncpg.connect(empty_database_urls.app)
    assert f"lacks the migrations from {RELEASED + 1} on" in await why_not(connection)
    await connection.close()
