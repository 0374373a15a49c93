"""Two JSON schemas: does the new one take everything that the old one took, or less?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from interlock.release.diff.changes import Direction, more_is, together

_WORDS: Final = frozenset({"title", "description", "examples", "default", "$comment"})
_UPPER: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_LOWER: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_MORE: Final = more_is(Direction.WIDENS)
MAX_DEPTH: Final = 16


def schema_direction(old: str | None, new: str | None) -> Direction:
    """`widens` when more fits the new schema, as JSON text; whatever these few rules do not cover is unknown."""
    if old is None or new is None:
        return Direction.NEUTRAL if old == new else Direction.WIDENS if new is None else Direction.NARROWS
    return _compared(json.loads(old), json.loads(new), 0)


def _compared(old: Any, new: Any, depth: int) -> Direction:
    if old == new:
        return Direction.NEUTRAL
    if not isinstance(old, dict) or not isinstance(new, dict) or depth > MAX_DEPTH:
        return Direction.UNKNOWN
    return together(_key(key, old, new, depth) for key in (old.keys() | new.keys()) - _WORDS)


def _key(key: str, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> Direction:
    was, now = old.get(key), new.get(key)
    if was == now:
        return Direction.NEUTRAL
    if key == "properties" and isinstance(was, dict) and isinstance(now, dict):
        return together(_property(name, old, new, depth) for name in was.keys() | now.keys())
    if key == "items":
        return _compared(was, now, depth + 1)
    if key == "required":
        return _required(old, new)
    if key == "additionalProperties":
        return _others(was, now)
    if key == "enum":
        if was is None or now is None:
            return Direction.NARROWS if was is None else Direction.WIDENS
        return _MORE([json.dumps(item) for item in was], [json.dumps(item) for item in now])
    if key in _UPPER | _LOWER:
        if was is None or now is None:
            return Direction.NARROWS if was is None else Direction.WIDENS
        return Direction.WIDENS if (now > was) == (key in _UPPER) else Direction.NARROWS
    if key in {"pattern", "format", "const", "uniqueItems"} and (was is None or now is None):
        return Direction.NARROWS if was is None else Direction.WIDENS
    return Direction.UNKNOWN


def _property(name: str, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> Direction:
    was, now = old["properties"].get(name), new["properties"].get(name)
    if was is None:
        # Where anything could stand under the name before, naming it says less may; else it could not stand there at all.
        return Direction.WIDENS if old.get("additionalProperties") is False else Direction.NARROWS
    if now is None:
        return Direction.NARROWS if new.get("additionalProperties") is False else Direction.WIDENS
    return _compared(was, now, depth + 1)


def _required(old: Mapping[str, Any], new: Mapping[str, Any]) -> Direction:
    """What newly has to be there narrows, unless it is a property that was not there before: then its own widening counts."""
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    came, gone = now - was, {name for name in was - now if name in new.get("properties", {})}
    return together(
        [*(Direction.NARROWS for _ in came), *(Direction.WIDENS for _ in gone)]
    )  # fmt: skip


def _others(was: Any, now: Any) -> Direction:
    if was is False:
        return Direction.WIDENS
    if now is False:
        return Direction.NARROWS
    return Direction.UNKNOWN
