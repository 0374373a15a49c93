"""Obligations: a closed set of things that an Allow may demand, how they are written, and how several of them meet.

    redact:<tag>   columns:<path>:<a,b,c>   rows:<path>:<field>=<value>   rate:<limit>/<seconds>s   read-only   log

A row value is a literal, or `user.<attribute>` or `session.tenant`, filled in from the facts of the call.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec

from interlock.core.decision import Columns, Facts, Obligations, Rate, RowFilter
from interlock.policy.errors import ObligationError

NONE: Final = Obligations()
MAX_RATE_LIMIT: Final = 1_000_000_000
MAX_RATE_WINDOW_S: Final = 31 * 24 * 3600

_RATE: Final = re.compile(r"([0-9]{1,10})/([0-9]{1,10})s")
_USER: Final = "user."
_SESSION: Final = "session."


class RowTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A row filter whose value comes from the facts: `source` is `user.<attribute>` or `session.tenant`."""

    path: str
    field: str
    source: str


Demand: TypeAlias = Obligations | RowTemplate


def parse(text: str) -> Demand:
    """What an `@obligation` demands. Raises `ObligationError` for anything outside the closed set."""
    if text == "read-only":
        return Obligations(read_only=True)
    if text == "log":
        return Obligations(extra_log=True)
    kind, colon, rest = text.partition(":")
    if colon and rest:
        if kind == "redact" and rest.strip() == rest:
            return Obligations(redact=frozenset({rest}))
        if kind == "rate":
            return _rate(text, rest)
        if kind == "columns":
            return _columns(text, rest)
        if kind == "rows":
            return _rows(text, rest)
    raise ObligationError(f"unknown obligation {text!r}; write one of redact, columns, rows, rate, read-only, log")


def fill(demand: Demand, facts: Facts) -> Obligations:
    """The demand for this call. Raises `ObligationError` when the facts do not hold the value it refers to."""
    if isinstance(demand, Obligations):
        return demand
    value = _lookup(demand.source, facts)
    if value is None:
        raise ObligationError(f"{demand.source} is not known for this user, so the rows of {demand.path!r} cannot be filtered")
    return Obligations(rows=(RowFilter(path=demand.path, field=demand.field, value=value),))


def meet(first: Obligations, second: Obligations) -> Obligations:
    """Both at once: columns intersect per path, row filters add up, redactions unite, the lower rate counts.

    INVARIANT: commutative, associative and idempotent, so the order in which policies fire never matters.
    """
    if first is NONE or first == NONE:
        return second
    if second is NONE or second == NONE:
        return first
    columns: dict[str, frozenset[str]] = {}
    for item in (*first.columns, *second.columns):
        known = columns.get(item.path)
        columns[item.path] = item.keep if known is None else known & item.keep
    rates: dict[int, int] = {}
    for rate in (*first.rates, *second.rates):
        rates[rate.window_s] = min(rate.limit, rates.get(rate.window_s, rate.limit))
    return Obligations(
        redact=first.redact | second.redact,
        columns=tuple(Columns(path=path, keep=columns[path]) for path in sorted(columns)),
        rows=tuple(sorted({*first.rows, *second.rows})),
        rates=tuple(Rate(limit=rates[window_s], window_s=window_s) for window_s in sorted(rates)),
        read_only=first.read_only or second.read_only,
        extra_log=first.extra_log or second.extra_log,
    )


def _rate(text: str, rest: str) -> Obligations:
    match = _RATE.fullmatch(rest)
    if match is None:
        raise ObligationError(f"{text!r}: write rate:<limit>/<seconds>s, such as rate:10/3600s")
    limit, window_s = int(match[1]), int(match[2])
    if not 1 <= limit <= MAX_RATE_LIMIT or not 1 <= window_s <= MAX_RATE_WINDOW_S:
        raise ObligationError(f"{text!r}: the limit must be 1 to {MAX_RATE_LIMIT}, the window 1 to {MAX_RATE_WINDOW_S} s")
    return Obligations(rates=(Rate(limit=limit, window_s=window_s),))


def _columns(text: str, rest: str) -> Obligations:
    path, colon, names = rest.partition(":")
    keep = names.split(",")
    if not colon or not all(name and name.strip() == name for name in keep):
        raise ObligationError(f"{text!r}: write columns:<path>:<a,b,c>, the fields to keep, without spaces")
    return Obligations(columns=(Columns(path=path, keep=frozenset(keep)),))


def _rows(text: str, rest: str) -> Demand:
    path, colon, test = rest.partition(":")
    field, equals, value = test.partition("=")
    if not (colon and equals and field and value):
        raise ObligationError(f"{text!r}: write rows:<path>:<field>=<value>")
    if value.startswith((_USER, _SESSION)):
        if value in (_USER, _SESSION) or (value.startswith(_SESSION) and value != "session.tenant"):
            raise ObligationError(f"{text!r}: a row value may be a literal, user.<attribute> or session.tenant")
        return RowTemplate(path=path, field=field, source=value)
    return Obligations(rows=(RowFilter(path=path, field=field, value=value),))


def _lookup(source: str, facts: Facts) -> str | None:
    if source in {"session.tenant", "user.tenant"}:
        return facts.tenant
    if source == "user.id":
        return facts.user
    value = facts.attributes.get(source.removeprefix(_USER))
    if type(value) is int:
        return str(value)
    return value if type(value) is str and value else None
