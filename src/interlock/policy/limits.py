"""Which limit of a grant stands in the way of a call, in words. It explains a No of Cedar's; nothing is decided here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from interlock.release.model import Limit

MAX_LIMIT_CHARS: Final = 120
_COMPARED: Final = {"max": "at most", "min": "at least", "over": "more than", "under": "less than"}
_WORDS: Final = {**_COMPARED, "is": "", "like": "like", "in": "one of"}


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """The argument that stands in the way, and what it has to be, as a sentence."""

    argument: str
    say: str


def first_unmet(grants: Iterable[tuple[Limit, ...]], arguments: str) -> Unmet | None:
    """What would have to be otherwise, of the grant that is nearest to allowing the call; None when no limit tells.

    `grants` are the limits of each grant that is for this agent and user; `arguments` is the JSON text of the call's.
    """
    given = json.loads(arguments, parse_float=Decimal)
    nearest: list[Limit] | None = None
    for limits in grants:
        unmet = [limit for limit in limits if not _is_met(limit, given)]
        if not unmet:
            return None  # it is something else than a limit; nothing is better than something wrong
        if nearest is None or len(unmet) < len(nearest):
            nearest = unmet
    return None if nearest is None else _told(nearest, given)


def _told(unmet: list[Limit], given: Mapping[str, Any]) -> Unmet:
    name = unmet[0].argument
    if given.get(name) is None:
        return Unmet(argument=name, say=f"`{name}` has to be given.")
    words = [_words(limit) for limit in unmet if limit.argument == name]
    return Unmet(argument=name, say=f"`{name}` has to be {' and '.join(words)}.")


def _words(limit: Limit) -> str:
    value = json.loads(limit.value)
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if len(shown) > MAX_LIMIT_CHARS:
        shown = f"{shown[:MAX_LIMIT_CHARS]}…"
    return f"{_WORDS[limit.verb]} {shown}".strip()


def _is_met(limit: Limit, given: Mapping[str, Any]) -> bool:
    value, bound = given.get(limit.argument), json.loads(limit.value)
    if value is None:
        return False
    if limit.verb in _COMPARED:
        number, other = _number(value), _number(bound)
        if number is None or other is None:
            return True
        return {"max": number <= other, "min": number >= other, "over": number > other, "under": number < other}[limit.verb]
    if limit.verb == "in":
        values = value if isinstance(value, list) else [value]
        return all(any(_same(item, allowed) for allowed in bound) for item in values)
    if limit.verb == "is":
        return _same(value, bound)
    return not isinstance(value, str) or _is_like(value, str(bound))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    first, second = _number(one), _number(other)
    return bool(one == other) or (first is not None and first == second)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _is_like(text: str, pattern: str) -> bool:
    """Cedar's `like` with `*` for anything, in one pass over the text."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])
