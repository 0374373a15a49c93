"""Backups: every table in one snapshot, as Postgres's own COPY text, with a manifest of counts and checksums.

A backup is a folder. It names the migrations it was made under by their digests, so that it is only ever loaded into just the
schema it came from; what is newer is migrated afterwards. It holds everything that is in the database: what was asked and
answered, personal data with it. It holds no signing key, no credential of a tool, no mark and no witness: those are not there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from interlock.store.errors import BackupError
from interlock.store.migrate import Migration, apply_to_empty, counted, migrate, migrations
from interlock.store.passwords import Password

FORMAT: Final = "interlock/backup/1"
MANIFEST: Final = "manifest.json"
CHUNK_BYTES: Final = 256 * 1024
COPY_TIMEOUT_S: Final = 24 * 3600.0
LOCAL: Final = frozenset({"migration"})
"""Tables that a schema brings itself."""

_TABLES: Final = """
SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY c.relname
"""
_COLUMNS: Final = """
SELECT a.attname AS name FROM pg_attribute a
WHERE a.attrelid = ('public.' || quote_ident($1))::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""
_SEQUENCES: Final = """
SELECT t.relname AS table_name, a.attname AS column_name, pg_get_serial_sequence(quote_ident(t.relname), a.attname) AS sequence
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r' AND a.attidentity <> '' AND NOT a.attisdropped
"""
_REFERENCES: Final = """
SELECT c.conrelid::regclass::text AS child, c.confrelid::regclass::text AS parent FROM pg_constraint c
WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
"""

Tell = Callable[[str, int], None]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table of a backup: `file` is gzipped COPY text of `columns`; `sha256` is of the file."""

    name: str
    columns: tuple[str, ...]
    rows: int
    file: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. `migrations` are digests in their order; `made_at_us` is when its snapshot was taken."""

    format: str
    database_id: str
    made_at_us: int
    server: str
    migrations: tuple[str, ...]
    tables: tuple[Table, ...]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(table.rows for table in self.tables)


async def back_up(owner_url: str, folder: Path, tell: Tell, password: Password | None = None) -> Manifest:
    """Write a backup into a new folder; `tell` hears of each table when it is done.

    Raises:
        BackupError: the folder is there already, or the schema is not this version's.
    """
    _make_folder(folder)
    connection = await asyncpg.connect(owner_url, password=password)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _refuse_other_schema(connection)
            at_us = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            tables = []
            for name in [row["name"] for row in await connection.fetch(_TABLES)]:
                if name not in LOCAL:
                    tables.append(await _write_table(connection, folder, name))
                    tell(name, tables[-1].rows)
            manifest = Manifest(
                format=FORMAT,
                database_id=str(await connection.fetchval("SELECT database_id FROM database_identity WHERE id = 1")),
                made_at_us=at_us,
                server=str(await connection.fetchval("SHOW server_version")),
                migrations=tuple(entry.digest for entry in migrations()),
                tables=tuple(tables),
            )
    finally:
        await connection.close()
    # Last: a folder without it is no backup.
    _write_down(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    _sync_folder(folder)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest, with every file checked against it. Raises `BackupError`."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise BackupError(f"{folder} is no backup: it has no {MANIFEST}, so it was not finished") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(f"the {MANIFEST} of {folder} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{folder} has the format {manifest.format!r}; this version reads {FORMAT}")
    for table in manifest.tables:
        if _sha256(folder / Path(table.file).name) != table.sha256:
            raise BackupError(f"{table.file} of {folder} is not what was backed up: its checksum differs")
    return manifest


async def restore(owner_url: str, folder: Path, tell: Tell, password: Password | None = None) -> Manifest:
    """Load a backup into an empty database, in one transaction, then migrate it; it is read-only until people resume it.

    Raises:
        BackupError: it is not what it says it is, or the database is not empty; nothing was changed.
    """
    manifest = read_manifest(folder)
    base = _base(manifest)
    connection = await asyncpg.connect(owner_url, password=password)
    try:
        found = [row["name"] for row in await connection.fetch(_TABLES)]
        if found:
            raise BackupError(
                f"the database is not empty: it has {len(found)} tables; a backup is loaded into an empty one only"
            )
        async with connection.transaction():
            await apply_to_empty(connection, base)
            for table in await _in_order(connection, manifest):
                await _load_table(connection, folder, table)
                tell(table.name, table.rows)
            for row in await connection.fetch(_SEQUENCES):
                column, name = _quoted(row["column_name"]), _quoted(row["table_name"])
                await connection.execute(
                    f"SELECT setval('{row['sequence']}', coalesce(max({column}), 1), max({column}) IS NOT NULL) FROM {name}"  # noqa: S608  # names of the catalogue
                )
            # Another life of it began: whatever lease or epoch is known of the one before, it means nothing here.
            await connection.execute("UPDATE epoch SET incarnation = 'restored', settled = false WHERE id = 1")
    finally:
        await connection.close()
    await migrate(owner_url, password)
    connection = await asyncpg.connect(owner_url, password=password)
    try:
        await connection.fetch("SELECT * FROM notice_restored($1)", f"a backup of {manifest.made_at_us} was loaded")
    finally:
        await connection.close()
    return manifest


def _base(manifest: Manifest) -> tuple[Migration, ...]:
    made_under = counted(manifest.migrations)
    base = migrations()[: len(made_under)]
    if tuple(entry.digest for entry in base) != made_under:
        raise BackupError(
            f"the backup was made under {len(manifest.migrations)} migrations that are not the first of this version's; "
            "load it with the version that made it, or a later one"
        )
    return base


async def _refuse_other_schema(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        applied = [row["digest"] for row in await connection.fetch("SELECT digest FROM migration ORDER BY number")]
    except asyncpg.UndefinedTableError as error:
        raise BackupError("this is no database of Interlock's: it was never migrated") from error
    if counted(applied) != tuple(entry.digest for entry in migrations()):
        raise BackupError("the database's schema is not this version's; back it up with the version that runs on it")


async def _write_table(connection: asyncpg.Connection[asyncpg.Record], folder: Path, name: str) -> Table:
    columns = tuple(row["name"] for row in await connection.fetch(_COLUMNS, name))
    path = folder / f"{name}.copy.gz"
    with path.open("xb") as raw:
        os.fchmod(raw.fileno(), 0o600)
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
            status = await connection.copy_from_query(
                f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(name)}",  # noqa: S608  # names of the catalogue
                output=_into(packed),
                timeout=COPY_TIMEOUT_S,
            )
        raw.flush()
        os.fsync(raw.fileno())
    return Table(
        name=name,
        columns=columns,
        rows=int(status.split()[-1]),
        file=path.name,
        bytes=path.stat().st_size,
        sha256=_sha256(path),
    )


def _into(packed: gzip.GzipFile) -> Any:
    async def write(data: bytes) -> None:
        packed.write(data)

    return write


async def _load_table(connection: asyncpg.Connection[asyncpg.Record], folder: Path, table: Table) -> None:
    await connection.execute(f"ALTER TABLE {_quoted(table.name)} DISABLE TRIGGER USER")
    # What a migration puts there is in the backup as it became.
    await connection.execute(f"DELETE FROM {_quoted(table.name)}")  # noqa: S608  # names of the manifest, quoted
    status = await connection.copy_to_table(
        table.name, source=_unpacked(folder / Path(table.file).name), columns=list(table.columns), timeout=COPY_TIMEOUT_S
    )
    await connection.execute(f"ALTER TABLE {_quoted(table.name)} ENABLE TRIGGER USER")
    if int(status.split()[-1]) != table.rows:
        raise BackupError(f"{table.file} holds {status.split()[-1]} rows and not the {table.rows} it should")


async def _unpacked(path: Path) -> AsyncIterator[bytes]:
    with gzip.open(path, "rb") as packed:
        while chunk := packed.read(CHUNK_BYTES):
            yield chunk


async def _in_order(connection: asyncpg.Connection[asyncpg.Record], manifest: Manifest) -> list[Table]:
    """Whatever is referred to before what refers to it. Raises `BackupError` for tables that the schema does not have."""
    there = {row["name"] for row in await connection.fetch(_TABLES)} - LOCAL
    named = {table.name: table for table in manifest.tables}
    if there != set(named):
        raise BackupError(f"the backup and its schema differ in the tables {', '.join(sorted(there ^ set(named)))}")
    parents: dict[str, set[str]] = {name: set() for name in named}
    for row in await connection.fetch(_REFERENCES):
        if row["child"] != row["parent"]:
            parents[row["child"]].add(row["parent"])
    done: list[Table] = []
    while parents:
        ready = sorted(name for name, needed in parents.items() if not needed)
        if not ready:
            raise BackupError(f"the tables {', '.join(sorted(parents))} refer to one another")
        for name in ready:
            del parents[name]
            done.append(named[name])
        for needed in parents.values():
            needed.difference_update(ready)
    return done


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise BackupError(f"{folder} is there already; a backup is never written over another: name a new folder") from error
    except OSError as error:
        raise BackupError(f"{folder} cannot be made: {error.strerror}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _write_down(path: Path, text: bytes) -> None:
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
