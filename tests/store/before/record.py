"""Record the SQL that a version sends, for the tests of the next one: `python -m tests.store.before.record`, when a version is released.

Then `store/migrate.py:RELEASED` becomes the number of its last migration. What is kept of each statement: its text, the types that
go in, and the names and types that come out.
"""

import asyncio
import json
from pathlib import Path

import asyncpg

from interlock.store.migrate import migrate, migrations
from interlock.store.queries import load
from tests.support.postgres import TestServer

RECORD = Path(__file__).parent / "statements.json"


async def described(url, statements):
    """What Postgres says of each statement; for one that cannot be prepared, its complaint."""
    connection = await asyncpg.connect(url)
    try:
        return {name: await _described(connection, sql) for name, sql in sorted(statements.items())}
    finally:
        await connection.close()


async def _described(connection, sql):
    try:
        prepared = await connection.prepare(sql)
    except asyncpg.PostgresError as error:
        return {"sql": sql, "complaint": str(error)}
    takes = [f"{kind.schema}.{kind.name}" for kind in prepared.get_parameters()]
    gives = [[column.name, f"{column.type.schema}.{column.type.name}"] for column in prepared.get_attributes()]
    return {"sql": sql, "takes": takes, "gives": gives}


async def record():
    server = TestServer()
    try:
        url = server.url("interlock_owner", await server.empty())
        await migrate(url)
        told = {"migration": migrations()[-1].number, "statements": await described(url, load())}
    finally:
        server.close()
    RECORD.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    asyncio.run(record())
