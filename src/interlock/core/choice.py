"""Which row of a result is meant: said by a plan in advance, worked out from the recorded result by this pure code.

"The largest file" is a choice that a plan can name before anything was read; whoever reads the list afterwards chooses nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

import msgspec

MAX_CHOSEN_ROWS: Final = 1_000
_ROW: Final = "[]"
_MISSING: Final = object()


class Pick(StrEnum):
    """Which of the rows: the one with the largest or smallest value of a field, or the first or last in the list."""

    MAX = "max"
    MIN = "min"
    FIRST = "first"
    LAST = "last"


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How rows of a list are chosen. `where` (field paths and texts) keeps those with these values; `pick` takes one of them.

    `by` is the field path of `max` and `min`, whose values are all numbers or all ISO 8601 moments. Paths are those of the
    output (`rows[].size`); every path of a choice lies in the rows of the one list.
    """

    pick: Pick | None = None
    by: str = ""
    where: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """The choice on a line; equal for equal choices only."""
        kept = [f"{path}={value!r}" for path, value in sorted(self.where)]
        picked = [] if self.pick is None else [f"{self.pick.value} {self.by}".strip()]
        return " and ".join((*kept, *picked))


def fits(field: str, choice: Choice) -> bool:
    """Whether a choice says something about the rows that a field stands in."""
    rows = _split(field)
    paths = [_split(path) for path in (*(path for path, _ in choice.where), *([choice.by] if choice.by else []))]
    takes = (choice.pick in {Pick.MAX, Pick.MIN}) == bool(choice.by)
    return rows is not None and takes and bool(choice.pick or choice.where) and all(p and p[0] == rows[0] for p in paths)


def chosen(structured: Mapping[str, Any] | None, field: str, choice: Choice) -> tuple[str, ...]:
    """The values of `field` in the rows that a choice names; none whenever anything about it is odd.

    INVARIANT: of rows that are equally large none is the largest, and a row whose value cannot be compared spoils the choice:
    what is not certain proves nothing.
    """
    place = _split(field)
    if structured is None or place is None or not fits(field, choice):
        return ()
    rows = _inside(structured, place[0])
    if not isinstance(rows, list | tuple):
        return ()
    kept = [row for row in rows if all(_is(row, path, value) for path, value in choice.where)]
    found = [_inside(row, place[1]) for row in _picked(kept, choice)]
    if len(found) > MAX_CHOSEN_ROWS or any(
        isinstance(value, bool) or not isinstance(value, str | int | float) for value in found
    ):
        return ()
    return tuple(map(str, found))


def _picked(rows: list[Any], choice: Choice) -> list[Any]:
    match choice.pick:
        case None:
            return rows
        case Pick.FIRST:
            return rows[:1]
        case Pick.LAST:
            return rows[-1:]
        case _:
            values = _comparable([_inside(row, _split(choice.by)[1]) for row in rows])  # type: ignore[index]  # it fits
            if not values:
                return []
            best = max(values) if choice.pick is Pick.MAX else min(values)
            return [rows[values.index(best)]] if values.count(best) == 1 else []


def _comparable(values: list[Any]) -> list[Any]:
    """All of them as numbers, or all as moments (all with a zone, or none); none when they are not of one kind."""
    for read in (_number, _moment):
        found = [read(value) for value in values]
        if all(value is not None for value in found):
            return found if len({getattr(value, "tzinfo", None) is None for value in found}) == 1 else []
    return []


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _moment(value: Any) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is(row: Any, path: str, value: str) -> bool:
    place = _split(path)
    found = _MISSING if place is None else _inside(row, place[1])
    return isinstance(found, str | int | float) and not isinstance(found, bool) and str(found) == value


def _split(path: str) -> tuple[str, str] | None:
    """The path of the list and the path in its rows; None where there is not exactly one list."""
    before, row, after = path.partition(_ROW)
    if not row or _ROW in after or (after and not after.startswith(".")):
        return None
    return before, after.removeprefix(".")


def _inside(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value
