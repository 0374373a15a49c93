"""Facts about a lineage's past: how a release declares one, what is kept of each call, and what a fact says.

A fact errs on the side that its kind is safe on. One about what *may have happened* (the default) counts every call that was
claimed and is not known to have come to nothing, those under way included, and whatever is not known counts as if it matched.
One about what *was done* (`done`) counts only calls that have succeeded, and what is not known does not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from interlock.core.budget import units_of
from interlock.core.canonical import JsonValue
from interlock.core.contract import Contract, OpaqueShape
from interlock.core.plan import forms
from interlock.core.terms import Classification, Effect
from interlock.core.texts import taints

_HASH_BYTES: Final = 8


class Form(StrEnum):
    """What a fact says. `formerly`: a call matched before this one. `once`: this one, or one before it.

    `count`: how many matched before this one. `distinct`: how many values an argument had in them. `sum`: what it adds up to.
    """

    FORMERLY = "formerly"
    ONCE = "once"
    COUNT = "count"
    DISTINCT = "distinct"
    SUM = "sum"


class Span(StrEnum):
    """Whose past it is: that of the lineage, of this session alone, or of the work.

    The past of the work is that of the lineage and of all that was done below any session of the lineage it came from.
    """

    LINEAGE = "lineage"
    SESSION = "session"
    WORK = "work"


class HistoryFact(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as declared. `on` are the operations whose calls it looks at.

    `argument` is what is added up or told apart. `matching` maps arguments of a past call to the present call's that they
    must equal, `where` to the values that they may have. Only calls after the last one of `since` that was done count, none
    that began more than `within_s` seconds ago (0: none is too old), and with `with_this` the present call too.
    """

    name: str
    form: Form
    on: tuple[str, ...]
    argument: str = ""
    matching: Mapping[str, str] = {}
    where: Mapping[str, tuple[str, ...]] = {}
    since: tuple[str, ...] = ()
    within_s: int = 0
    per: Span = Span.LINEAGE
    done: bool = False
    with_this: bool = False

    @property
    def counted(self) -> frozenset[str]:
        """Every operation whose calls it has to know of."""
        return frozenset((*self.on, *self.since))

    @property
    def kept(self) -> frozenset[str]:
        """The arguments of past calls that it has to know."""
        return frozenset((*self.matching, *self.where, *((self.argument,) if self.argument else ())))


class PastCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the history knows it. `state` is that of its claim; `unsent`: it is known never to have reached its tool.

    `values` holds the hashed forms of kept arguments, empty for one that was not given; one that is missing is not known.
    They are hashed for `keyed_by`, a lineage: its own, or the one that the work came from. `units` holds those that are added
    up, in ten-thousandths.
    """

    claim_id: str
    call_id: str
    session_id: str
    lineage_id: str = ""
    keyed_by: str = ""
    operation: str
    at_us: int
    state: str = "claimed"
    unsent: bool = False
    values: Mapping[str, tuple[str, ...]] = {}
    units: Mapping[str, int] = {}


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier call that makes a fact what it is, and what it brought (`pii data`, `untrusted content`, `a change`)."""

    call_id: str
    operation: str
    brought: tuple[str, ...] = ()


FactValue: TypeAlias = bool | int | str


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """What a fact says of one call: true or false, a number, a sum as a person writes it; with some of the calls behind it."""

    value: FactValue
    because: tuple[Earlier, ...] = ()


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The arguments of a call as they are stored beside its claim: `v` hashed for its lineage, `w` for that of the work."""

    v: Mapping[str, tuple[str, ...]] = {}
    u: Mapping[str, int] = {}
    w: Mapping[str, tuple[str, ...]] = {}


def keep(contract: Contract, arguments: Mapping[str, JsonValue], names: Iterable[str], lineage_id: str, work: str = "") -> Kept:
    """What is kept of a call's arguments: hashes that mean nothing in another lineage, and numbers.

    `work` is the lineage that the work came from, where facts count the call for all of it.
    """
    values: dict[str, tuple[str, ...]] = {}
    for_work: dict[str, tuple[str, ...]] = {}
    units: dict[str, int] = {}
    for name in sorted(names):
        if name not in contract.arguments.fields:
            continue
        value = arguments.get(name)
        values[name] = () if value is None else hashed(contract, name, value, lineage_id)
        if work:
            for_work[name] = () if value is None else hashed(contract, name, value, work)
        amount = units_of(value)
        if amount is not None:
            units[name] = amount
    return Kept(v=values, u=units, w=for_work)


def hashed(contract: Contract, name: str, value: JsonValue, lineage_id: str) -> tuple[str, ...]:
    """The hashed forms of an argument's value."""
    shape = contract.arguments.fields.get(name, OpaqueShape())
    return tuple(hash_of(form, lineage_id) for form in forms(value, shape))


def hash_of(form: str, lineage_id: str) -> str:
    """Sixteen hexadecimal digits for a form, other ones in every lineage."""
    return hashlib.blake2b(form.encode(), digest_size=_HASH_BYTES, key=lineage_id.encode()[:64]).hexdigest()


def brought(contract: Contract) -> tuple[str, ...]:
    """What a call of this contract may have brought into its lineage, or done, in words."""
    found: list[str] = []
    if taints(contract):
        found.append("untrusted content")
    if contract.classification.rank >= Classification.CONFIDENTIAL.rank:
        found.append(f"{contract.classification.value} data")
    found += [word for effect, word in _DID.items() if effect in contract.effects]
    return tuple(found)


_DID: Final = {Effect.WRITE: "a change", Effect.DESTRUCTIVE: "a deletion", Effect.EGRESS: "something sent out"}
