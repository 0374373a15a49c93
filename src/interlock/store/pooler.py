"""Poolers that hand each transaction to another server session are found out, and refused.

Leases, notifications, prepared statements and locks belong to a session here. Behind PgBouncer in transaction mode, or anything
like it, they would be somebody else's a moment later, and mostly nothing would be said.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from interlock.store.errors import PoolerError
from interlock.store.passwords import Password

ROUNDS: Final = 4
CONNECT_TIMEOUT_S: Final = 10.0
_WHO: Final = "SELECT pg_backend_pid()"
_ADVICE: Final = (
    "something in between hands each transaction to another session of Postgres (a pooler in transaction or statement mode); "
    "leases, notifications and locks need a session of their own: connect to Postgres itself, or set the pooler to "
    "pool_mode = session for this database"
)


async def refuse_transaction_pooler(url: str, password: Password | None = None) -> None:
    """Two connections compare who serves them: a session has a server process of its own, and keeps it.

    Raises:
        PoolerError: it is not so.
        OSError, asyncpg.PostgresError: the database cannot be reached.
    """
    first = await _connect(url, password)
    try:
        second = await _connect(url, password)
        try:
            ours = await _who(first)
            for _ in range(ROUNDS):
                # Twice in a row finds those that take turns; while the second one holds a server, those that take the newest.
                seen = {await _who(first), await _who(first)}
                async with second.transaction():
                    theirs = await second.fetchval(_WHO)
                    seen.add(await _who(first))
                if seen != {ours} or theirs == ours:
                    raise PoolerError(_ADVICE)
        finally:
            await second.close()
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
        raise PoolerError(_ADVICE) from error
    finally:
        await first.close()


async def _connect(url: str, password: Password | None) -> asyncpg.Connection[asyncpg.Record]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        url, password=password, timeout=CONNECT_TIMEOUT_S, command_timeout=CONNECT_TIMEOUT_S
    )
    return connection


async def _who(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """In a transaction, so that what prepares the question also answers it."""
    async with connection.transaction():
        return int(await connection.fetchval(_WHO))
