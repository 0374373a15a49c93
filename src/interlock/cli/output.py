"""What commands print: for people by default, JSON with --json; errors on standard error, each saying what to do next."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

OK: Final = 0
NO: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
WIDE_CHARS: Final = 400


class Failure(Exception):  # noqa: N818  # not a defect: the command's way of saying no
    """A command cannot do what it was asked. `code` is the exit code; `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str = "", code: int = NO, details: Any = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.details = details


def show_failure(failure: Failure) -> int:
    """Print a failure and give its exit code. With --json on the command line it is JSON too."""
    if "--json" in sys.argv:
        print_json({"error": str(failure), "hint": failure.hint, "details": failure.details})
    else:
        from interlock.cli.shown import shown  # noqa: PLC0415  # not needed for --help

        print(shown(f"error: {failure}"), file=sys.stderr)
        if failure.hint:
            print(shown(f"  {failure.hint}"), file=sys.stderr)
    return failure.code


def print_table(
    names: tuple[str, ...],
    rows: Iterable[Iterable[str]],
    *,
    empty: str,
    whole: str = "",
    style_of: Callable[[tuple[str, ...]], str] | None = None,
) -> None:
    """Rows for people. The column `whole` is never broken, for it is copied; into a file or pipe nothing is broken at all.

    `style_of` gives a row its rich style. `empty` is said in the place of a table without rows.
    """
    from rich.console import Console  # noqa: PLC0415  # not needed for --help
    from rich.table import Table  # noqa: PLC0415

    from interlock.cli.shown import Text  # noqa: PLC0415

    table = Table()
    for name in names:
        table.add_column(name, no_wrap=name == whole, overflow="fold")
    for row in rows:
        cells = tuple(row)
        table.add_row(*(Text(cell) for cell in cells), style=style_of(cells) if style_of else None)
    console = Console() if sys.stdout.isatty() else Console(width=WIDE_CHARS)
    console.print(table if table.row_count else Text(empty))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.encode(value).decode(), flush=True)
