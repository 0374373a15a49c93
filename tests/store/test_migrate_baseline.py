"""The baseline gives the schema that the migrations before it gave, and databases that these brought there go on."""

import asyncpg
import pytest

from interlock.store.errors import MigrationError
from interlock.store.migrate import BASELINE, apply_to_empty, migrate, migrations, why_not
from tests.store.before import schema


async def brought_to(number, owner_url):
    """A database as the migrations up to this number, from before the baseline, have left it, as far as it tells."""
    connection = await asyncpg.connect(owner_url)
    async with connection.transaction():
        await apply_to_empty(connection, migrations()[:1])
        await connection.execute("DELETE FROM migration")
        await connection.executemany(
            "INSERT INTO migration (number, name, digest, works_from) VALUES ($1, $2, $3, 33)",
            [row for row in schema.recorded()["migrations"] if row[0] <= number],
        )
    return connection


async def test_the_baseline_gives_the_schema_that_the_migrations_before_it_gave(postgres, empty_database_urls):
    """Record: of a database that those migrations made, and the first migration after them."""
    connection = await asyncpg.connect(empty_database_urls.owner)
    async with connection.transaction():
        await apply_to_empty(connection, migrations()[:2])
    rows = await schema.rows_of(connection)
    await connection.close()
    recorded = schema.recorded()
    found = schema.described(postgres.layout, empty_database_urls.owner)
    assert [
        name for name in found.keys() | recorded["objects"].keys() if found.get(name) != recorded["objects"].get(name)
    ] == []
    assert rows == recorded["rows"]


def test_the_baseline_is_never_edited():
    """Databases that began with it know its digest: not even a comment of it changes. What changes is a file with the next number."""
    assert migrations()[0].digest == schema.recorded()["baseline"]


@pytest.mark.parametrize(
    "harm",
    [
        "REVOKE INSERT ON event FROM interlock_app",
        "COMMENT ON COLUMN claim.work IS ''",
        "DROP TRIGGER event_is_append_only ON event",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "ALTER TABLE context_item ALTER COLUMN tokens SET STORAGE MAIN",
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO interlock_auditor",
    ],
)
async def test_another_schema_is_told_from_that(postgres, database_urls, harm):
    was = schema.described(postgres.layout, database_urls.owner)
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute(harm)
    await connection.close()
    assert schema.described(postgres.layout, database_urls.owner) != was


async def test_a_database_that_the_migrations_before_the_baseline_have_brought_to_it_goes_on(empty_database_urls):
    connection = await brought_to(BASELINE, empty_database_urls.owner)
    later = tuple(entry.number for entry in migrations()[1:])
    assert await migrate(empty_database_urls.owner) == later
    assert await migrate(empty_database_urls.owner) == ()
    assert await why_not(connection) == ""
    numbers = [row["number"] for row in await connection.fetch("SELECT number FROM migration ORDER BY number")]
    assert numbers == [*range(1, BASELINE + 1), *later]
    await connection.close()


@pytest.mark.parametrize("number", [1, 33, BASELINE - 1])
async def test_one_that_they_have_brought_only_a_part_of_the_way_is_refused_with_what_to_do(empty_database_urls, number):
    connection = await brought_to(number, empty_database_urls.owner)
    told = f"migrated to {number} by a version from before the first release"
    assert told in (why := await why_not(connection))
    assert f"bring it to {BASELINE} with the version that has the migrations 1 to {BASELINE}" in why
    with pytest.raises(MigrationError, match=told):
        await migrate(empty_database_urls.owner)
    assert await connection.fetchval("SELECT max(number) FROM migration") == number
    await connection.close()


async def test_one_that_other_files_have_brought_there_is_refused(empty_database_urls):
    connection = await brought_to(BASELINE, empty_database_urls.owner)
    await connection.execute("UPDATE migration SET digest = 'x' WHERE number = 7")
    assert "other files" in await why_not(connection)
    with pytest.raises(MigrationError, match="other files"):
        await migrate(empty_database_urls.owner)
    await connection.close()
