"""What a reading tells of a call: it was done, it was not, or nothing that could not be the work of another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

import msgspec

from interlock.core.contract import KEY, Evidence, Sign
from interlock.gateway.released import RawOutput


class Told(StrEnum):
    """What a reading tells."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNCLEAR = "unclear"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was told, and by which sign, in words for people."""

    told: Told
    why: str


_UNKNOWN: Final = object()


def judge(evidence: Evidence, arguments: Mapping[str, Any], key: str, raw: RawOutput) -> Reading:
    """What `raw` tells about the call with these arguments and this key.

    INVARIANT: `done` is only told by what no other call can have left, `not_done` only by a reading that was complete.
    """
    if raw.is_error or raw.structured is None:
        return Reading(told=Told.UNCLEAR, why=f"{evidence.read} gave no record to look at")
    grew: list[str] = []
    for sign in evidence.signs:
        wanted = key if sign.argument == KEY else arguments.get(sign.argument)
        shown = f"{sign.path} {'at least' if sign.at_least else 'is'} {wanted}"
        seen = list(_values(raw.structured, sign.path))
        holds = _holds(sign, wanted, seen)
        if holds is None:
            return Reading(told=Told.UNCLEAR, why=f"{evidence.read} does not tell whether {shown}")
        if not holds:
            return Reading(told=Told.NOT_DONE, why=f"by {evidence.read} it is not so that {shown}")
        if sign.at_least:
            grew.append(shown)
    if len(grew) == len(evidence.signs):
        told = f"by {evidence.read} {' and '.join(grew)}; that may be the doing of another call"
        return Reading(told=Told.UNCLEAR, why=told)
    return Reading(told=Told.DONE, why=f"by {evidence.read} its own mark is there")


def _holds(sign: Sign, wanted: object, seen: list[object]) -> bool | None:
    """Whether any value is the sign; None when that cannot be known."""
    if wanted is None:
        return None
    if not sign.at_least:
        if any(value is not _UNKNOWN and not isinstance(value, bool) and value == wanted for value in seen):
            return True
        return None if _UNKNOWN in seen else False
    numbers, least = [_number(value) for value in seen], _number(wanted)
    if least is None or not numbers or any(number is None for number in numbers):
        return None
    return any(number is not None and number >= least for number in numbers)


def _values(inside: object, path: str) -> Iterator[object]:
    """The values at a path; `_UNKNOWN` for each place where the output is not as the path says."""
    name, _, rest = path.partition(".")
    several = name.endswith("[]")
    name = name.removesuffix("[]")
    if not isinstance(inside, Mapping) or name not in inside:
        yield _UNKNOWN
        return
    found = inside[name]
    if several and not isinstance(found, (list, tuple)):
        yield _UNKNOWN
        return
    for item in found if several else (found,):
        if rest:
            yield from _values(item, rest)
        else:
            yield item


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
