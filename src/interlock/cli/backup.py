"""Backups of the database, restoring one, and making a restored database good again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from interlock.cli.access import IN_THE_URL, Secret
from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, UNREACHABLE, USAGE, Failure, print_json
from interlock.store.embedded import server
from interlock.store.errors import StoreError, StoreUnavailableError

_Value = TypeVar("_Value")

OwnerUrl = Annotated[
    str, Parameter(help="URL of the database as its owner; the embedded one when not given.", env_var="INTERLOCK_OWNER_URL")
]
AppUrl = Annotated[
    str, Parameter(help="URL of the database as the app; the embedded one when not given.", env_var="INTERLOCK_DATABASE_URL")
]


def back_up(
    folder: Annotated[Path, Parameter(help="A new folder for it.")],
    *,
    database_url: OwnerUrl = "",
    state: State = DEFAULT_STATE,
    secret: Secret = IN_THE_URL,
    as_json: Json = False,
) -> int:
    """Write a backup of the database as it is now, while it goes on. Keys, marks and the witness are not in it."""
    from interlock.store.backup import back_up as write  # noqa: PLC0415  # not needed for --help

    password = secret.for_url(database_url)
    with _owner(state, database_url) as url:
        made = _run(write(url, folder, _progress("backed up", quiet=as_json), password))
    if as_json:
        print_json({"folder": str(folder), "database": made.database_id, "rows": made.rows, "made_at_us": made.made_at_us})
    else:
        print(
            f"{made.rows} rows of {len(made.tables)} tables in {folder}; what was asked and answered is in it, so keep it safe"
        )
        print(f"  keys, marks and signed heads are not: they are in {state}")
    return OK


def restore(
    folder: Annotated[Path, Parameter(help="The folder of a backup.")],
    *,
    database_url: OwnerUrl = "",
    state: State = DEFAULT_STATE,
    secret: Secret = IN_THE_URL,
    as_json: Json = False,
) -> int:
    """Load a backup into an empty database, check it, and verify its ledger. It is read-only until people resume it."""
    from interlock.identity.keys import KeyRing  # noqa: PLC0415  # not needed for --help
    from interlock.ledger.reader import verify_database  # noqa: PLC0415
    from interlock.store.backup import restore as load  # noqa: PLC0415

    password = secret.for_url(database_url)
    with _owner(state, database_url) as url:
        made = _run(load(url, folder, _progress("restored", quiet=as_json), password))
        report = _run(verify_database(url, KeyRing(state / "keys").public_bytes("heads"), None, password))
    if as_json:
        print_json({"database": made.database_id, "rows": made.rows, "ledger": report.as_dict()})
    else:
        print(f"restored {made.rows} rows; the ledger is {'intact' if report.intact else 'NOT INTACT'}: {report.events} events")
        for finding in report.findings:
            print(f"  {finding.where}: {finding.what}")
        print("it is read-only; next: `interlock db reconcile`, then `interlock resume restored`")
    return OK if report.intact else NO


def reconcile(
    *,
    mark: Annotated[list[Path] | None, Parameter(help="A folder of marks; the one in the state folder when not given.")] = None,
    all_marks: Annotated[bool, Parameter(help="Say that these are the marks of all gateways there were.", negative="")] = False,
    database_url: AppUrl = "",
    state: State = DEFAULT_STATE,
    secret: Secret = IN_THE_URL,
    as_json: Json = False,
) -> int:
    """Put back what a restored database lost of writes, as the marks outside of it tell. Then a person may resume."""
    from interlock.app.restoring import NothingRestoredError, reconcile_marks  # noqa: PLC0415  # not needed for --help

    password = secret.for_url(database_url)
    folders = mark or [state / "mark"]
    try:
        with _app(state, database_url) as url:
            made, aside = _run(reconcile_marks(url, state, folders, all_marks=all_marks, password=password))
    except NothingRestoredError as error:
        raise Failure(str(error)) from error
    if as_json:
        print_json({"report": made, "witness_put_aside": None if aside is None else str(aside)})
        return OK
    print(f"{made.parts} marks read")
    for name, count in sorted(made.counts.items()):
        print(f"  {_BECAME[name]}: {count}")
    for fault in made.faults:
        print(f"  fault: {fault}")
    if aside is not None:
        print(f"  the witness of signed heads tells of what is lost now; it is kept as {aside}")
    if made.doubts.looked_into:
        print(f"  {made.doubts.looked_into} calls in doubt are looked into by the gateways that run: `interlock doubts list`")
    if made.doubts.asking:
        print(f"  {made.doubts.asking} calls in doubt ask a person: `interlock doubts list`")
    if not made.complete:
        print("marks may be missing (say --all-marks if they are not): resumed like this, each write asks a person for a day")
    print("next, for whoever may: `interlock resume restored --reason ...`")
    return OK


_BECAME = {
    "done": "done after the backup, and known again",
    "failed": "failed after the backup, and known again",
    "not_done": "not done, so that they may be made",
    "in_doubt": "in doubt",
    "settled": "were in the backup without their end, which is known now",
    "unsettled": "are in the backup without their end, which no mark tells",
    "known": "are in the backup",
}


def _progress(done: str, *, quiet: bool) -> Callable[[str, int], None]:
    def tell(table: str, rows: int) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"  {done} {table}: {rows} rows", file=sys.stderr)

    return tell


def _run(work: Awaitable[_Value]) -> _Value:
    import asyncpg  # noqa: PLC0415  # not needed for --help

    async def run() -> _Value:
        return await work

    try:
        return asyncio.run(run())
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE if isinstance(error, StoreUnavailableError) else NO) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise Failure(f"the database cannot be used: {error}", hint="check the URL", code=UNREACHABLE) from error


@contextlib.contextmanager
def _owner(state: Path, database_url: str) -> Iterator[str]:
    with _embedded_unless(state, database_url, lambda running: running.owner_url) as url:
        yield url


@contextlib.contextmanager
def _app(state: Path, database_url: str) -> Iterator[str]:
    with _embedded_unless(state, database_url, lambda running: running.app_url) as url:
        yield url


@contextlib.contextmanager
def _embedded_unless(state: Path, database_url: str, url_of: Callable[[server.Running], str]) -> Iterator[str]:
    if database_url:
        yield database_url
        return
    if not state.exists():
        raise Failure(f"there is no state folder {state}", hint="give --state or --database-url", code=USAGE)
    try:
        lease = server.acquire(state)
    except StoreError as error:
        raise Failure(str(error)) from error
    try:
        yield url_of(lease.running)
    finally:
        lease.release()
