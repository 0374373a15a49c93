"""Connections. Everything that goes wrong between us and Postgres becomes `StoreUnavailableError`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg

from interlock.store.errors import StoreUnavailableError, UnstorableError
from interlock.store.passwords import Password
from interlock.store.queries import load

POOL_MAX_CONNECTIONS: Final = 6
CONNECT_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 10.0
# The server gives up first and says so: what was not done in time is then known not to be done, and is not done later.
STATEMENT_TIMEOUT_MS: Final = 9_000
CLOSE_WITHIN_S: Final = 15.0

# What an unreachable, restarting, overloaded, full, read-only or forbidding server looks like from here.
UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was cut at an unlucky moment
    asyncpg.ObjectNotInPrerequisiteStateError,  # a database that takes no connections
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCatalogNameError,
)


# What a value looks like that the wire or a text column cannot hold. asyncpg's own kind says so before anything is sent.
UNSTORABLE: Final = (asyncpg.DataError, asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


class Greeting:
    """What is asked of each new connection before anything uses it; when that raises, the connection is not used."""

    def __init__(self) -> None:
        self.ask: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[None]] = _as_it_is

    async def __call__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Ask, and bound what its statements may take."""
        # Not as a parameter of the connection, which poolers in session mode refuse.
        await connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        await self.ask(connection)


class Database:
    """A small pool on one database. Make it with `open_database`; close it when done."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], url: str, greeting: Greeting, password: Password | None) -> None:
        self._pool = pool
        self.url = url
        self.greeting = greeting
        self.password = password
        self._sql = load()

    async def rows(self, name: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """All rows of the named statement. Raises `StoreUnavailableError`, or `UnstorableError` for what no column can hold."""
        try:
            async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                return await connection.fetch(self._sql[name], *arguments, timeout=COMMAND_TIMEOUT_S)
        except UNAVAILABLE as error:
            raise StoreUnavailableError(why_not_done(error)) from error
        except asyncpg.DataError as error:
            if type(error) not in UNSTORABLE:
                raise  # a statement of ours that computes with what it should not
            raise UnstorableError("this value holds a NUL, or a number too large to be kept anywhere") from error

    async def row(self, name: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row, or None. Raises `StoreUnavailableError`."""
        found = await self.rows(name, *arguments)
        return found[0] if found else None

    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool itself, for the writer, the head signer and listeners."""
        return self._pool

    async def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Close every connection; statements under way get so long, and are cut off then."""
        try:
            await asyncio.wait_for(self._pool.close(), within_s)
        except UNAVAILABLE:
            self._pool.terminate()


def why_not_done(error: BaseException | None) -> str:
    """What kept the database from doing what was asked, and what to do about it."""
    match error:
        case asyncpg.DiskFullError():
            return "the database has no room left: make room on its disk; then it goes on by itself"
        case asyncpg.ReadOnlySQLTransactionError():
            return "the database only reads: give the URL of the primary, or lift default_transaction_read_only"
        case asyncpg.QueryCanceledError():
            return f"the database is too slow: a statement took {STATEMENT_TIMEOUT_MS} ms; look at its locks and its disk"
        case asyncpg.InsufficientPrivilegeError():
            return f"the database does not allow it ({error}); `interlock db migrate OWNER_URL` grants what is needed"
        case _:
            return f"the database did not answer ({type(error).__name__}); check that it is running and reachable"


async def _as_it_is(_connection: object) -> None:
    """What a connection is given back with: nothing.

    Every statement here is a transaction of its own and sets nothing for longer than it lasts, so there is nothing to take
    back, and a round trip less after each. A transaction that is open is still rolled back by asyncpg.
    """


async def open_database(url: str, *, password: Password | None = None, max_connections: int = POOL_MAX_CONNECTIONS) -> Database:
    """Connect, asking for the password anew each time when it is not in the URL.

    Raises `StoreUnavailableError` with the host but never the password.
    """
    greeting = Greeting()
    try:
        pool = await asyncpg.create_pool(
            url,
            init=greeting,
            password=password,
            min_size=1,
            max_size=max_connections,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            reset=_as_it_is,
        )
    except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise StoreUnavailableError(
            f"cannot connect to the database ({type(error).__name__}: {error}); check the URL, or run `interlock db start`"
        ) from error
    return Database(pool, url, greeting, password)
