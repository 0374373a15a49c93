"""One change and its direction; how directions add up."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from interlock.release.documents import Node, Problems, line_of, read_yaml

MAX_SHOWN_CHARS: Final = 160


class Direction(StrEnum):
    """Whether more may happen after a change, less, the same, or whether that cannot be told by these rules."""

    WIDENS = "widens"
    NARROWS = "narrows"
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `owners` are the teams that own `file` in the old release, empty when nobody claims it."""

    direction: Direction
    kind: str
    name: str
    what: str
    file: str
    line: int = 0
    owners: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """`file:line` in the new release; in the old one for what is gone."""
        return f"{self.file}:{self.line}" if self.line else self.file


Found: TypeAlias = tuple[Direction, str]
Rule: TypeAlias = Callable[[Any, Any], Direction]
_FLIPPED: Final = {Direction.WIDENS: Direction.NARROWS, Direction.NARROWS: Direction.WIDENS}


def flipped(direction: Direction) -> Direction:
    """The direction seen from the other side: what makes a forbid fire more often narrows."""
    return _FLIPPED.get(direction, direction)


def together(directions: Iterable[Direction]) -> Direction:
    """Several at once: of one mind, or unknown."""
    # INVARIANT: what mixes or is not understood is unknown, never neutral.
    found = set(directions) - {Direction.NEUTRAL}
    if not found:
        return Direction.NEUTRAL
    return found.pop() if len(found) == 1 else Direction.UNKNOWN


def always(direction: Direction) -> Rule:
    """Whatever the values, this direction."""
    return lambda _old, _new: direction


def more_is(direction: Direction) -> Rule:
    """For collections and numbers: what is added, or larger, goes in this direction, what is gone or smaller in the other."""

    def rule(old: Any, new: Any) -> Direction:
        if isinstance(old, (set, frozenset, tuple, list)):
            was, now = set(old), set(new)
            if was < now:
                return direction
            return flipped(direction) if now < was else Direction.NEUTRAL if was == now else Direction.UNKNOWN
        if old == new:
            return Direction.NEUTRAL
        return direction if new > old else flipped(direction)

    return rule


def differences(old: msgspec.Struct, new: msgspec.Struct, rules: Mapping[str, Rule]) -> list[Found]:
    """The fields in which two values of a kind differ. A field that has no rule is unknown, so that none is overlooked."""
    found = []
    for name in type(old).__struct_fields__:
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            found.append((rules.get(name, always(Direction.UNKNOWN))(was, now), f"{name}: {step(was, now)}"))
    return found


def step(old: Any, new: Any) -> str:
    """From one value to another, for people; of collections only what came and went."""
    if isinstance(old, (set, frozenset, tuple, list)) and isinstance(new, (set, frozenset, tuple, list)):
        gone, came = _without(old, new), _without(new, old)
        if gone or came:
            return ", ".join([*(f"+{shown(item)}" for item in came), *(f"-{shown(item)}" for item in gone)])
    return f"{shown(old)} → {shown(new)}"


def _without(some: Collection[Any], others: Collection[Any]) -> list[Any]:
    return sorted((item for item in some if item not in others), key=str)


def shown(value: Any) -> str:
    """A value as people would write it, short enough for a line."""
    if value is None or value in ("", (), [], {}, frozenset()):
        return "nothing"
    plain = msgspec.to_builtins(value, order="sorted")
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def on_a_line(text: str) -> str:
    """Text that whoever wrote the release chose, so that it can forge no line of a report and steer no terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Lines:
    """Where things stand in the YAML files of a release."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._read: dict[str, Node] = {}

    def node(self, file: str) -> Node:
        """A file as values; an empty one when it is not there."""
        known = self._read.get(file)
        if known is None:
            read = read_yaml(file, self._files[file], Problems()) if file in self._files else None
            known = self._read[file] = read or Node({}, file, {})
        return known

    def of(self, file: str, *keys: str) -> int:
        """The line of a key, or of the nearest one around it; 0 when the file is not there."""
        return line_of(self.node(file).lines, ".".join(("$", *keys)))
