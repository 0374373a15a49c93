"""Bring a database to this version's schema: a baseline, then numbered files, forward only, one process at a time.

The baseline is the folder `migrations/0041_baseline`: the schema that 41 migrations from before the first release gave, each
table and each function once (docs/decisions/0031). It is applied as one migration and, like any other, never edited: what
changes is a file with the next number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import asyncpg
import msgspec

from interlock.store.errors import MigrationError
from interlock.store.passwords import Password

_LOCK_KEY = 0x1_7E_10C_CED
_ROLES = ("interlock_app", "interlock_auditor")
BASELINE = 41
"""The number of the baseline: a database that the migrations 1 to 41 have brought there has it."""
RELEASED = 41
"""The last migration of the version before this one. Every later one leaves that version able to run: a test runs its SQL."""
MAX_TURNS: Final = 5
"""How often a migration is begun that takes tables in another order than calls do, before it is given up for now."""
_BEFORE_BASELINE = "0cc2a862caad1a73adeadc51609dc21dfc569c9912963baf32fdc0a9f84ff8a5"
"""Hexadecimal SHA-256 of the digests of the migrations 1 to 41, one a line."""
_TOO_OLD = (
    "it was migrated to {number} by a version from before the first release, and this one begins at {baseline}: "
    "bring it to {baseline} with the version that has the migrations 1 to {baseline}, or begin with an empty database"
)
_MIGRATION_TABLE = (
    """CREATE TABLE IF NOT EXISTS migration (
        number int PRIMARY KEY, name text NOT NULL, digest text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    # From which migration on a version must know for it to run on this one; of one that does not say, none but its own.
    "ALTER TABLE migration ADD COLUMN IF NOT EXISTS works_from int NOT NULL DEFAULT 2147483647",
)


class Migration(msgspec.Struct, frozen=True):
    """One numbered file, or the baseline."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """The baseline and every later migration in order. Raises `MigrationError` when a number is missing or stands twice."""
    folder = files("interlock.store") / "migrations"
    baseline = folder / f"{BASELINE:04}_baseline"
    parts = sorted(entry.name for entry in baseline.iterdir() if entry.name.endswith(".sql"))
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    listed = (
        Migration(BASELINE, "baseline", "\n".join((baseline / name).read_text(encoding="utf-8") for name in parts)),
        *(Migration(int(name[:4]), name[5:-4], (folder / name).read_text(encoding="utf-8")) for name in found),
    )
    if [entry.number for entry in listed] != list(range(BASELINE, BASELINE + len(listed))):
        raise MigrationError("the migrations of this installation are not numbered without gaps; install it again")
    return listed


def counted(digests: Sequence[str]) -> tuple[str, ...]:
    """Digests of what was applied, in order, with that of the baseline in place of those that it stands for."""
    if hashlib.sha256("\n".join(digests[:BASELINE]).encode()).hexdigest() == _BEFORE_BASELINE:
        return migrations()[0].digest, *digests[BASELINE:]
    return tuple(digests)


async def migrate(owner_url: str, password: Password | None = None) -> tuple[int, ...]:
    """Apply what is missing, as the owner; gives the numbers applied. Safe for any number of processes at once.

    Raises:
        MigrationError: the database was migrated by other files, by a later version or one that is too old, or the roles cannot
            be made.
    """
    connection = await asyncpg.connect(owner_url, password=password)
    try:
        # One transaction a migration, the lock for all of them: whoever comes second finds nothing to do.
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await _ensure_roles(connection)
        for statement in _MIGRATION_TABLE:
            await connection.execute(statement)
        applied = _applied(await connection.fetch("SELECT number, digest FROM migration ORDER BY number"))
        known = migrations()
        _check(applied, known)
        new = [entry for entry in known if entry.number not in applied]
        for entry in new:
            await _apply_by_itself(connection, entry)
        return tuple(entry.number for entry in new)
    finally:
        await connection.close()


async def _apply_by_itself(connection: asyncpg.Connection[asyncpg.Record], entry: Migration) -> None:
    """In a transaction of its own; again when it and calls of running gateways waited for each other: then nothing was done."""
    for left in reversed(range(MAX_TURNS)):
        try:
            async with connection.transaction():
                await _apply(connection, entry)
        except asyncpg.DeadlockDetectedError:
            if not left:
                raise
        else:
            return


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
    applied, last = _applied(rows), known[-1].number
    if too_old := _too_old(applied):
        return too_old
    if [item for item in applied.items() if item[0] <= last] != [(entry.number, entry.digest) for entry in known][
        : len(applied)
    ]:
        return "it was migrated by other files than this version's"
    if lacking := [entry.number for entry in known if entry.number not in applied]:
        return f"it lacks the migrations from {lacking[0]} on"
    if any(row["number"] > last and row["works_from"] > last for row in rows):
        return (
            f"a later version has migrated it (to {rows[-1]['number']}), and this one cannot run on that: use the later version"
        )
    return ""


def _applied(rows: Sequence[asyncpg.Record]) -> dict[int, str]:
    """Digests by number of what was applied, of rows in the order of their numbers."""
    digests = counted([row["digest"] for row in rows])
    return dict(zip([row["number"] for row in rows][len(rows) - len(digests) :], digests, strict=True))


def _too_old(applied: dict[int, str]) -> str:
    """Why a database is of no use that has a part of what the baseline stands for; empty for any other."""
    number = max(applied, default=BASELINE)
    return _TOO_OLD.format(number=number, baseline=BASELINE) if number < BASELINE else ""


def _check(applied: dict[int, str], known: tuple[Migration, ...]) -> None:
    if too_old := _too_old(applied):
        raise MigrationError(f"the database cannot be used: {too_old}")
    by_number = {entry.number: entry for entry in known}
    for number, digest in sorted(applied.items()):
        entry = by_number.get(number)
        if entry is None and number < BASELINE:
            raise MigrationError("the database was migrated by other files than this version's")
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
