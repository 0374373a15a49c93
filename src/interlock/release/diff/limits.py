"""`budgets.yaml` compared: what may be used. A budget with a ceiling's name is a change of the ceiling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from interlock.core.budget import CEILINGS, Budget, Counted
from interlock.release.diff.changes import (
    Change,
    Direction,
    Found,
    Lines,
    Rule,
    always,
    differences,
    more_is,
    shown,
    together,
)
from interlock.release.model import Release

KIND: Final = "budget"
FILE: Final = "budgets.yaml"
_UNSURE: Final = always(Direction.UNKNOWN)
_CEILINGS: Final = frozenset(budget.name for budget in CEILINGS)
# What a budget counts, and for whom: of another count nothing can be said by numbers.
_MEASURE: Final = ("counted", "per", "on", "argument")
BUDGET_RULES: Final[Mapping[str, Rule]] = {
    "name": _UNSURE,
    **dict.fromkeys(_MEASURE, _UNSURE),
    "limit": more_is(Direction.WIDENS),
    # What fits in any window fits in every part of it; no window is the whole life of a run or session.
    "window_s": lambda old, new: more_is(Direction.NARROWS)(old or math.inf, new or math.inf),
    # People may let through what was refused.
    "rule": lambda old, new: Direction.WIDENS if not old else Direction.UNKNOWN if new else Direction.NARROWS,
}


def budget_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """Budgets that came, went or changed."""
    before, after = ({budget.name: budget for budget in release.budgets} for release in (old, new))
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        lines = now if name in dict(now.node(FILE).items()) else was

        def change(told: Found, name: str = name, lines: Lines = lines) -> Change:
            return Change(direction=told[0], kind=KIND, name=name, what=told[1], file=FILE, line=lines.of(FILE, name))

        if name not in before:
            found.append(change((Direction.NARROWS, f"new: {_told(after[name])}")))
        elif name not in after:
            found.append(change((Direction.WIDENS, f"gone: {_told(before[name])}")))
        else:
            found += [change(told) for told in _differ(before[name], after[name])]
    return found


def _told(budget: Budget) -> str:
    on = f" on {', '.join(budget.on)}" if budget.on else ""
    asks = f"; beyond it {budget.rule} are asked" if budget.rule else ""
    return f"{_amount(budget)} per {budget.per}{_within(budget)}{on}{asks}"


def _amount(budget: Budget) -> str:
    counted = f"of {budget.argument}" if budget.counted is Counted.SUM else budget.counted.value
    return f"{budget.shown(budget.limit)} {counted}"


def _within(budget: Budget) -> str:
    return f" in {budget.window_s} s" if budget.window_s else ""


def _differ(old: Budget, new: Budget) -> list[Found]:
    found = differences(old, new, BUDGET_RULES)
    if not found:
        return []
    if any(getattr(old, name) != getattr(new, name) for name in _MEASURE):
        return [(Direction.UNKNOWN, f"{_told(old)} → {_told(new)}")]
    told: list[Found] = [item for item in found if item[1].startswith("rule:")]
    numbers = [item for item in found if item not in told]
    if numbers:
        # Limit and window make one rate: when they move against each other, nobody can tell.
        ceiling = " (a ceiling)" if old.name in _CEILINGS else ""
        parts = [f"limit: {old.shown(old.limit)} → {new.shown(new.limit)}"] if old.limit != new.limit else []
        if old.window_s != new.window_s:
            parts.append(f"window: {_seconds(old)} → {_seconds(new)}")
        told.append((together(direction for direction, _ in numbers), f"{', '.join(parts)}{ceiling}"))
    return [(direction, what.replace("rule:", "ask:", 1)) for direction, what in told]


def _seconds(budget: Budget) -> str:
    return shown(f"{budget.window_s} s") if budget.window_s else "none"
