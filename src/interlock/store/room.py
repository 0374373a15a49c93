"""Whether the database can take anything up."""

from __future__ import annotations

from typing import Final

import asyncpg

from interlock.store.database import Database
from interlock.store.errors import StoreUnavailableError

_NOT_WRITTEN: Final = (asyncpg.DiskFullError, asyncpg.ReadOnlySQLTransactionError)


async def check_room(database: Database) -> None:
    """Raise `StoreUnavailableError` when its disk is full, or it only reads.

    Anything else that keeps it from being tried says nothing: a lease is renewed by a row that has its place.
    """
    try:
        await database.rows("room")
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, _NOT_WRITTEN):
            raise
