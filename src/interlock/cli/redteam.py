"""`interlock redteam`: attack a release in a dry world, before somebody else does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from interlock.app.redteam.run import UnknownEnvironmentError, UnknownOperationError, red_team
from interlock.cli.common import Json
from interlock.cli.output import NO, OK, UNREACHABLE, USAGE, Failure, print_json, print_table
from interlock.cli.release import Folder, read_folder, release_failure
from interlock.cli.shown import shown
from interlock.policy.errors import UnusableReleaseError
from interlock.redteam.model import Report
from interlock.redteam.report import advice, markdown, notes, page, rows, summary
from interlock.release.errors import ReleaseError
from interlock.store.embedded import server as embedded
from interlock.store.errors import StoreError
from interlock.store.migrate import migrate

_COLUMNS: Final = ("became", "OWASP", "attack", "where", "stopped by")


def redteam(
    folder: Folder,
    *,
    environment: Annotated[list[str] | None, Parameter(help="Only this environment; may be repeated.")] = None,
    only: Annotated[list[str] | None, Parameter(help="Only attacks on this operation; may be repeated.")] = None,
    html: Annotated[Path | None, Parameter(help="Also write the report as one HTML file.")] = None,
    markdown_file: Annotated[Path | None, Parameter(name="--markdown", help="Also write it as Markdown.")] = None,
    database_url: Annotated[
        str, Parameter(help="An empty, migrated database of its own. Without it, an embedded one that is thrown away.")
    ] = "",
    as_json: Json = False,
) -> int:
    """Attack a release: the real gate and a real database, recorders for tools. Nothing real is called.

    Exit code 1 when an attack is open or could not be tried.
    """
    logging.disable(logging.WARNING)  # what the attacks provoke is the report's to tell
    files = read_folder(folder)
    try:
        with _world(database_url) as (state, url):
            report = asyncio.run(
                red_team(files, state=state, database_url=url, environments=environment or (), only=only or ())
            )
    except ReleaseError as error:
        raise release_failure(error) from error
    except UnusableReleaseError as error:
        raise Failure(str(error), code=NO) from error
    except (UnknownEnvironmentError, UnknownOperationError) as error:
        raise Failure(str(error), code=USAGE) from error
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE) from error
    finally:
        logging.disable(logging.NOTSET)
    for path, text in ((html, page), (markdown_file, markdown)):
        if path is not None:
            _write(path, text(report))
    if as_json:
        print_json(msgspec.to_builtins(report) | {"closed": report.is_closed})
    else:
        _show(report)
    return OK if report.is_closed else NO


def _show(report: Report) -> None:
    print_table(_COLUMNS, rows(report), empty="nothing in this release gave rise to an attack")
    for line in notes(report):
        print(shown(f"note: {line}"))
    for line in advice(report):
        print(shown(f"open: {line}"))
    print(shown(summary(report)))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}", code=USAGE) from error


@contextlib.contextmanager
def _world(database_url: str) -> Iterator[tuple[Path, str]]:
    """A folder for keys, and a database that holds nothing but this run."""
    with tempfile.TemporaryDirectory(prefix="interlock-redteam-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        if database_url:
            yield folder, database_url
            return
        lease = embedded.acquire(folder, durable=False)
        try:
            asyncio.run(migrate(lease.running.owner_url))
            yield folder, lease.running.app_url
        finally:
            lease.release()
            embedded.stop(folder)
