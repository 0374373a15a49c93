"""Backups of the database, restoring one, and making a restored database good again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from interlock.cli.access import APP, OWNER, AsApp, AsOwner
from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, Failure, print_json

if TYPE_CHECKING:
    from interlock.app.restoring import Reconciliation
    from interlock.ledger.verify import Report
    from interlock.store.backup import Manifest
    from interlock.store.passwords import Password


def back_up(
    folder: Annotated[Path, Parameter(help="A new folder for it.")],
    *,
    database: AsOwner = OWNER,
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> int:
    """Write a backup of the database as it is now, while it goes on. Keys, marks and the witness are not in it."""
    from interlock.store.backup import back_up as write  # noqa: PLC0415  # not needed for --help

    tell = _progress("backed up", quiet=as_json)
    made = database.answer(state, lambda url, password: write(url, folder, tell, password))
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
    database: AsOwner = OWNER,
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> int:
    """Load a backup into an empty database, check it, and verify its ledger. It is read-only until people resume it."""
    from interlock.identity.keys import KeyRing  # noqa: PLC0415  # not needed for --help
    from interlock.ledger.reader import verify_database  # noqa: PLC0415
    from interlock.store.backup import restore as load  # noqa: PLC0415

    tell = _progress("restored", quiet=as_json)

    async def loaded(url: str, password: Password | None) -> tuple[Manifest, Report]:
        made = await load(url, folder, tell, password)
        return made, await verify_database(url, KeyRing(state / "keys").public_bytes("heads"), None, password)

    made, report = database.answer(state, loaded)
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
    database: AsApp = APP,
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> int:
    """Put back what a restored database lost of writes, as the marks outside of it tell. Then a person may resume."""
    from interlock.app.restoring import NothingRestoredError, reconcile_marks  # noqa: PLC0415  # not needed for --help

    folders = mark or [state / "mark"]
    try:
        made, aside = database.answer(
            state, lambda url, password: reconcile_marks(url, state, folders, all_marks=all_marks, password=password)
        )
    except NothingRestoredError as error:
        raise Failure(str(error)) from error
    if as_json:
        print_json({"report": made, "witness_put_aside": None if aside is None else str(aside)})
        return OK
    _tell(made, aside)
    return OK


def _tell(made: Reconciliation, aside: Path | None) -> None:
    """What was put back, what stands again, and what is left to people: a part of each, none when it is empty."""
    print(f"{made.parts} {'mark' if made.parts == 1 else 'marks'} read")
    _part("writes", [f"{_BECAME[name]}: {count}" for name, count in sorted(made.counts.items())])
    _part("stopped, worried and revoked, as it stood", made.controls)
    left = list(made.look_at)
    if made.doubts.looked_into:
        left.append(
            f"{made.doubts.looked_into} calls in doubt are looked into by the gateways that run: `interlock doubts list`"
        )
    if made.doubts.asking:
        left.append(f"{made.doubts.asking} calls in doubt ask a person: `interlock doubts list`")
    left.append("budgets count what was put back, each call at the most it may have taken: `interlock budgets`")
    _part("for people to look at", left)
    _part("wrong with marks", made.faults)
    if aside is not None:
        print(f"the witness of signed heads tells of what is lost now; it is kept as {aside}")
    if not made.complete:
        print("marks may be missing (say --all-marks if they are not): resumed like this, each write asks a person for a day")
    print("next, for whoever may: `interlock resume restored --reason ...`")


def _part(name: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{name}:")
    for line in lines:
        print(f"  {line}")


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
