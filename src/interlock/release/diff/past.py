"""`history.yaml` compared.

A fact decides nothing by itself: one that comes or goes with the policies that read it is neutral. What a changed one opens or
closes depends on how they read it, which nobody can tell from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from interlock.core.history import HistoryFact
from interlock.release.diff.changes import Change, Direction, Lines, Rule, always, differences
from interlock.release.model import Release

KIND: Final = "history"
FILE: Final = "history.yaml"
_UNSURE: Final = always(Direction.UNKNOWN)
HISTORY_RULES: Final[Mapping[str, Rule]] = dict.fromkeys(HistoryFact.__struct_fields__, _UNSURE)


def history_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """Facts about the past that came, went or changed."""
    before, after = ({fact.name: fact for fact in release.history} for release in (old, new))
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        lines = now if name in after else was
        if name not in before or name not in after:
            what = "new: what reads it is a change of its own" if name in after else "gone, and nothing reads it"
            told = [(Direction.NEUTRAL, what)]
        else:
            told = differences(before[name], after[name], HISTORY_RULES)
        found += [
            Change(direction=direction, kind=KIND, name=name, what=what, file=FILE, line=lines.of(FILE, name))
            for direction, what in told
        ]
    return found
