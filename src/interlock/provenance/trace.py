"""Where each argument of a call came from. Pure; the answer is one of `Origin`, the worst that applies.

INVARIANT: that more is tainted never makes an origin better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.contract import Contract
from interlock.core.disguise import strict
from interlock.core.plan import PlannedSource
from interlock.core.terms import Effect, Origin
from interlock.provenance.active import KINDS, MAX_PARTS, active_parts
from interlock.provenance.index import Index
from interlock.provenance.labels import Provenance, Standing, worst
from interlock.provenance.tokens import Tokenizer, Way, is_common, is_quantity, is_short

MAX_TRACED_VALUES: Final = 1_000
_RETURNED: Final = Standing.TRUSTED | Standing.FIELD | Standing.LISTED | Standing.TEXT
MAX_TEXTS: Final = 100_000


def trace(
    contract: Contract, arguments: Mapping[str, JsonValue], index: Index, tokenizer: Tokenizer, *, tainted: bool
) -> dict[str, Provenance]:
    """The provenance of every target argument that is there, and the active parts of every content argument."""
    found: dict[str, Provenance] = {}
    for name in contract.targets:
        if name in arguments and arguments[name] is not None:
            found[name] = _of_argument(arguments[name], index, tokenizer, tainted=tainted)
    for name in contract.content:
        if name in arguments and arguments[name] is not None:
            found[name] = _of_content(arguments[name], index, tokenizer, tainted=tainted)
    return found


def points(contract: Contract, arguments: Mapping[str, JsonValue], index: Index, tokenizer: Tokenizer) -> bool:
    """Whether the user named what a call reads: it has targets that name something, and all of those were said by them.

    How many, and of which day, names nothing: such targets neither help nor harm.
    """
    if Effect.READ not in contract.effects:
        return False
    given = [arguments[name] for name in contract.targets if arguments.get(name) is not None]
    named = [item for value in given for item in _values(value, MAX_TRACED_VALUES) if not is_quantity(item)]
    said = {Origin.USER, Origin.DERIVED}
    return bool(named) and all(_of_value(item, index, tokenizer, tainted=True).origin in said for item in named)


def held(index: Index, tokenizer: Tokenizer, value: JsonValue, sources: tuple[PlannedSource, ...]) -> bool:
    """Whether every value in an argument stands in a result of one of these sources: as that field, or anywhere in it.

    Whole things only, compared strictly: what merely looks like a value of the source is not from there.
    """
    values = list(_values(value, MAX_TRACED_VALUES + 1))
    if not values or len(values) > MAX_TRACED_VALUES:
        return False
    return all(any(_stands_in(index, tokenizer, item, source) for source in sources) for item in values)


def _stands_in(index: Index, tokenizer: Tokenizer, value: str, source: PlannedSource) -> bool:
    if source.field:
        standing = Standing.PLACE if source.choose is None else Standing.CHOSEN
        ways = tokenizer.at_place(source.operation, source.place, value)
        return any(index.all_from(way.tokens, source.operation, standing) for way in ways)
    ways = (*tokenizer.standing(value), *tokenizer.as_field(strict(value)))
    return any(index.all_from(way.tokens, source.operation, _RETURNED) for way in ways)


def texts_in(value: JsonValue) -> Iterator[str]:
    """Every text in a value, names of properties included, at most `MAX_TEXTS`."""
    return _values(value, MAX_TEXTS)


def _of_argument(value: JsonValue, index: Index, tokenizer: Tokenizer, *, tainted: bool) -> Provenance:
    values = list(_values(value, MAX_TRACED_VALUES + 1))
    if len(values) > MAX_TRACED_VALUES:
        return Provenance(origin=Origin.UNTRUSTED)  # more than is looked at: nothing good can be said of it
    found = [_of_value(item, index, tokenizer, tainted=tainted) for item in values]
    if _has_switch(value):
        found.append(Provenance(origin=Origin.WEAK))  # on or off: what was said of it no comparison can tell
    return worst(found)


def _has_switch(value: JsonValue) -> bool:
    match value:
        case bool():
            return True
        case dict():
            return any(map(_has_switch, value.values()))
        case list():
            return any(map(_has_switch, value))
        case _:
            return False


def _of_content(value: JsonValue, index: Index, tokenizer: Tokenizer, *, tainted: bool) -> Provenance:
    """Texts may come from anywhere; what acts in them (links, recipients) is traced like a target."""
    parts, kinds = [], set()
    values = list(_values(value, MAX_TRACED_VALUES + 1))
    for text in values:
        found = list(active_parts(text))
        if len(values) > MAX_TRACED_VALUES or len(found) == MAX_PARTS:
            # There is more than is looked at, and it may be anything.
            return Provenance(origin=Origin.UNTRUSTED, active=KINDS)
        for kind, part in found:
            kinds.add(kind)
            parts.append(_of_value(part, index, tokenizer, tainted=tainted))
    traced = worst(parts)
    return msgspec.structs.replace(traced, active=tuple(sorted(kinds)))


def _of_value(value: str, index: Index, tokenizer: Tokenizer, *, tainted: bool) -> Provenance:
    if is_short(value):
        return Provenance(origin=Origin.WEAK)
    vouched = tokenizer.vouched(value)
    whole = tuple(way for way in vouched if not way.part)
    for way in whole:
        if number := index.all_in(way.tokens, Standing.USER):
            said = Origin.USER if way.exact else Origin.DERIVED
            return Provenance(origin=Origin.WEAK if is_common(value) else said, item=number)
    if number := _first(index, whole, Standing.TRUSTED):
        return Provenance(origin=Origin.WEAK if is_common(value) else Origin.TRUSTED, item=number)
    found = _of_others(value, index, tokenizer, tuple(way for way in vouched if way.part), tainted=tainted)
    if found.origin.is_doubtful and (number := _first(index, whole, Standing.POINTED)):
        return Provenance(origin=found.origin, item=number, pointed=True)
    return found


def _of_others(value: str, index: Index, tokenizer: Tokenizer, part: tuple[Way, ...], *, tainted: bool) -> Provenance:
    """The origin of a value that neither the user nor a reviewer vouches for as a whole; in `part` they may."""
    accused = tokenizer.accused(value)
    whole = tuple(way for way in accused if not way.part)
    if number := _first(index, whole, Standing.TEXT):
        return Provenance(origin=Origin.UNTRUSTED, item=number)
    if not index.is_complete:
        return Provenance(origin=Origin.UNTRUSTED)  # it may have been in what was too long to keep
    if number := _first(index, whole, Standing.ASSERTED):
        return Provenance(origin=Origin.ASSERTED, item=number)
    if number := _first(index, part, Standing.USER) or _first(index, part, Standing.TRUSTED):
        return Provenance(origin=Origin.WEAK, item=number)
    for standing, origin in ((Standing.TEXT, Origin.UNTRUSTED), (Standing.ASSERTED, Origin.ASSERTED)):
        if number := _first(index, accused, standing):
            return Provenance(origin=origin, item=number)
    field = tokenizer.as_field(value)
    if number := _first(index, field, Standing.LISTED):
        return Provenance(origin=Origin.SELECTED if tainted else Origin.FIELD, item=number)
    if number := _first(index, field, Standing.FIELD):
        return Provenance(origin=Origin.FIELD, item=number)
    return Provenance(origin=Origin.COMPUTED if is_quantity(value) else Origin.MODEL)


def _first(index: Index, ways: tuple[Way, ...], standing: Standing) -> int:
    for way in ways:
        if number := index.all_in(way.tokens, standing):
            return number
    return 0


def _values(value: JsonValue, limit: int) -> Iterator[str]:
    """Every value in an argument as text, names of properties included."""
    pending: list[JsonValue] = [value]
    given = 0
    while pending and given < limit:
        item = pending.pop()
        match item:
            case dict():
                pending.extend(item.keys())
                pending.extend(item.values())
            case list():
                pending.extend(item)
            case bool() | None:
                continue
            case float() | int():
                given += 1
                yield format(Decimal(repr(item)), "f").removesuffix(".0") if isinstance(item, float) else str(item)
            case _:
                if item.strip():
                    given += 1
                    yield item
