"""Bring a database to this version's schema: numbered files, forward only, one process at a time."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import asyncpg
import msgspec

from interlock.store.errors import MigrationError
from interlock.store.passwords import Password

_LOCK_KEY = 0x1_7E_10C_CED
_ROLES = ("interlock_app", "interlock_auditor")
RELEASED = 33
"""The last migration of the version before this one. Every later one leaves that version able to run: a test runs its SQL."""
_MIGRATION_TABLE = (
    """CREATE TABLE IF NOT EXISTS migration (
        number int PRIMARY KEY, name text NOT NULL, digest text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    # From which migration on a version must know for it to run on this one; of one that does not say, none but its own.
    "ALTER TABLE migration ADD COLUMN IF NOT EXISTS works_from int NOT NULL DEFAULT 2147483647",
)


class Migration(msgspec.Struct, frozen=True):
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """Every migration of this version in order. Raises `MigrationError` when a number is missing or stands twice."""
    folder = files("interlock.store") / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    listed = tuple(Migration(int(name[:4]), name[5:-4], (folder / name).read_text(encoding="utf-8")) for name in found)
    if [entry.number for entry in listed] != list(range(1, len(listed) + 1)):
        raise MigrationError("the migrations of this installation are not numbered without gaps; install it again")
    return listed


async def migrate(owner_url: str, password: Password | None = None) -> tuple[int, ...]:
    """Apply what is missing, as the owner; gives the numbers applied. Safe for any number of processes at once.

    Raises:
        MigrationError: the database was migrated by other files, by a later version, or the roles cannot be made.
    """
    connection = await asyncpg.connect(owner_url, password=password)
    try:
        # One transaction a migration, the lock for all of them: whoever comes second finds nothing to do.
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await _ensure_roles(connection)
        for statement in _MIGRATION_TABLE:
            await connection.execute(statement)
        applied = {row["number"]: row["digest"] for row in await connection.fetch("SELECT number, digest FROM migration")}
        known = migrations()
        _check(applied, known)
        new = [entry for entry in known if entry.number not in applied]
        for entry in new:
            async with connection.transaction():
                await _apply(connection, entry)
        return tuple(entry.number for entry in new)
    finally:
        await connection.close()


async def apply_to_empty(connection: asyncpg.Connection[asyncpg.Record], first: tuple[Migration, ...]) -> None:
    """Apply the first migrations to an empty database, in the caller's transaction, as its owner. Raises `MigrationError`."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
    await _ensure_roles(connection)
    for statement in _MIGRATION_TABLE:
        await connection.execute(statement)
    for entry in first:
        await _apply(connection, entry)


async def _apply(connection: asyncpg.Connection[asyncpg.Record], entry: Migration) -> None:
    await connection.execute(entry.sql)
    await connection.execute(
        "INSERT INTO migration (number, name, digest, works_from) VALUES ($1, $2, $3, $4)",
        entry.number,
        entry.name,
        entry.digest,
        RELEASED,
    )


async def why_not(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    """Why this version cannot run on a database as it is; empty when it can.

    It can on exactly its own schema, and on a later one whose migrations all say that they leave this version able to run.
    """
    known = migrations()
    try:
        rows = await connection.fetch("SELECT number, digest, works_from FROM migration ORDER BY number")
    except asyncpg.UndefinedTableError:
        return "it was never migrated"
    except asyncpg.UndefinedColumnError:
        return "it was migrated by an earlier version only"
    ours, later = rows[: len(known)], rows[len(known) :]
    if [(row["number"], row["digest"]) for row in ours] != [(entry.number, entry.digest) for entry in known[: len(ours)]]:
        return "it was migrated by other files than this version's"
    if len(ours) < len(known):
        return f"it lacks the migrations from {known[len(ours)].number} on"
    if any(row["works_from"] > len(known) for row in later):
        return (
            f"a later version has migrated it (to {rows[-1]['number']}), and this one cannot run on that: use the later version"
        )
    return ""


def _check(applied: dict[int, str], known: tuple[Migration, ...]) -> None:
    by_number = {entry.number: entry for entry in known}
    for number, digest in sorted(applied.items()):
        entry = by_number.get(number)
        if entry is None:
            raise MigrationError(f"the database has migration {number}, which this version does not know; use a later version")
        if entry.digest != digest:
            raise MigrationError(
                f"migration {number} ({entry.name}) was applied from another text; migrations are never edited once released"
            )


async def _ensure_roles(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for role in _ROLES:
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            continue
        try:
            await connection.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER")
        except asyncpg.DuplicateObjectError:
            continue
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(
                f"the role {role} does not exist and this user may not create it; have an administrator run: "
                f"CREATE ROLE {role} LOGIN"
            ) from error
