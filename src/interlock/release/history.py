"""`history.yaml`: the facts about the past that policies read as `context.history.NAME`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from interlock.core.budget import MAX_WINDOW_S
from interlock.core.contract import Contract, DecimalShape, LongShape, OpaqueShape
from interlock.core.history import Form, HistoryFact, Span
from interlock.core.plan import forms
from interlock.core.terms import Classification, Effect
from interlock.core.texts import taints
from interlock.release.documents import Node, Problems

MAX_FACTS: Final = 100
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_WINDOW: Final = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_GROUPS: Final = {
    "reads": Effect.READ,
    "writes": Effect.WRITE,
    "destructive": Effect.DESTRUCTIVE,
    "egress": Effect.EGRESS,
}
CONFIDENTIAL: Final = "confidential"
UNTRUSTED: Final = "untrusted"
_OF_ARGUMENTS: Final = frozenset({Form.DISTINCT, Form.SUM})


class HistorySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `history.yaml`: exactly one of the forms, and what narrows it."""

    formerly: str | list[str] = []
    once: str | list[str] = []
    count: str | list[str] = []
    distinct: str = ""
    sum: str = ""
    matching: list[str] | dict[str, str] = []
    where: dict[str, Any] = {}
    since: str | list[str] = []
    within: str = ""
    per: Span = Span.LINEAGE
    done: bool = False
    with_this: bool = False


def read_history(node: Node, contracts: Mapping[str, Contract], problems: Problems) -> tuple[HistoryFact, ...]:
    """The declared facts of a release, in their order."""
    found: list[HistoryFact] = []
    for name, inside in node.items():
        spec = problems.convert(inside, HistorySpec)
        fact = None if spec is None else _fact(name, spec, inside, contracts, problems)
        if fact is not None:
            found.append(fact)
    if len(found) > MAX_FACTS:
        problems.add(node, f"a release declares {MAX_FACTS} facts about the past at most")
    return tuple(found)


def _fact(
    name: str, spec: HistorySpec, node: Node, contracts: Mapping[str, Contract], problems: Problems
) -> HistoryFact | None:
    if not _NAME.fullmatch(name):
        problems.add(node, f"{name!r} cannot be a fact's name; use small letters, digits and `_`, 48 at most")
        return None
    said = [form for form in Form if getattr(spec, form.value)]
    if len(said) != 1:
        problems.add(node, f"{name}: say one of {', '.join(Form)}")
        return None
    form = said[0]
    argument = ""
    named = getattr(spec, form.value)
    if form in _OF_ARGUMENTS:
        operation, _, argument = named.rpartition(".")
        on = selected(operation, contracts) if operation in contracts else ()
        shape = contracts[operation].arguments.fields.get(argument) if operation in contracts else None
        if shape is None or (form is Form.SUM and not isinstance(shape, (LongShape, DecimalShape))):
            kind = "a number among an operation's arguments" if form is Form.SUM else "an argument of an operation"
            problems.add(node.at(form.value), f"{name}: {form} names {named!r}, which is not {kind}")
            return None
    else:
        on = _selected(named, node.at(form.value), contracts, problems)
    if form is Form.DISTINCT and spec.done and spec.per is Span.WORK:
        problems.add(node.at("per"), f"{name}: values of different agents' calls cannot be told apart surely enough for `done`")
        return None
    within_s = _within_s(name, spec, node, problems)
    if within_s is None or not on:
        return None
    if form is Form.ONCE and spec.with_this:
        problems.add(node.at("with_this"), f"{name}: once looks at the present call anyway")
    return HistoryFact(
        name=name,
        form=form,
        on=on,
        argument=argument,
        matching=_matching(name, spec, on, node, contracts, problems),
        where=_where(name, spec, on, node, contracts, problems),
        since=_selected(spec.since, node.at("since"), contracts, problems) if spec.since else (),
        within_s=within_s,
        per=spec.per,
        done=spec.done,
        with_this=spec.with_this,
    )


def selected(name: str, contracts: Mapping[str, Contract]) -> tuple[str, ...]:
    """The operations that a word means: one by name, a tool's, those with an effect, confidential or untrusted ones."""
    return tuple(sorted(contract.operation for contract in contracts.values() if not contract.internal and _is(name, contract)))


def _is(name: str, contract: Contract) -> bool:
    if name in {contract.operation, f"{contract.tool}.*"}:
        return True
    if name in _GROUPS:
        return _GROUPS[name] in contract.effects
    if name == CONFIDENTIAL:
        return contract.classification.rank >= Classification.CONFIDENTIAL.rank
    return name == UNTRUSTED and taints(contract)


def _selected(named: str | list[str], node: Node, contracts: Mapping[str, Contract], problems: Problems) -> tuple[str, ...]:
    found: set[str] = set()
    for name in [named] if isinstance(named, str) else named:
        matching = selected(name, contracts)
        if not matching and name not in {*_GROUPS, CONFIDENTIAL, UNTRUSTED}:
            words = ", ".join((*_GROUPS, CONFIDENTIAL, UNTRUSTED))
            problems.add(node, f"there is no operation {name!r}; name one, a `tool.*`, or one of {words}")
        found.update(matching)
    if not found:
        problems.add(node, "no operation of this release is meant by that")
    return tuple(sorted(found))


def _within_s(name: str, spec: HistorySpec, node: Node, problems: Problems) -> int | None:
    if not spec.within:
        if spec.per is Span.SESSION:
            return 0
        problems.add(node, f"{name}: say how far back it looks (`within: 24h`), or `per: session`")
        return None
    written = _WINDOW.fullmatch(spec.within)
    seconds = int(written.group(1)) * _SECONDS[written.group(2)] if written else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        problems.add(node.at("within"), f"{name}: within is a time such as 90s, 15m, 24h or 7d, 31d at most")
        return None
    return seconds


def _lacking(name: str, operations: Iterable[str], contracts: Mapping[str, Contract]) -> list[str]:
    return [operation for operation in operations if name not in contracts[operation].arguments.fields]


def _matching(
    name: str, spec: HistorySpec, on: tuple[str, ...], node: Node, contracts: Mapping[str, Contract], problems: Problems
) -> dict[str, str]:
    pairs = spec.matching if isinstance(spec.matching, dict) else {item: item for item in spec.matching}
    for past, now in pairs.items():
        for operation in _lacking(past, on, contracts):
            problems.add(node.at("matching"), f"{name}: {operation} has no argument {past!r}")
        if all(now not in contract.arguments.fields for contract in contracts.values()):
            problems.add(node.at("matching"), f"{name}: no operation has an argument {now!r}")
    return dict(sorted(pairs.items()))


def _where(
    name: str, spec: HistorySpec, on: tuple[str, ...], node: Node, contracts: Mapping[str, Contract], problems: Problems
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for past, value in sorted(spec.where.items()):
        for operation in _lacking(past, on, contracts):
            problems.add(node.at("where"), f"{name}: {operation} has no argument {past!r}")
        if value is None or isinstance(value, dict) or value == []:
            problems.add(node.at("where"), f"{name}: give {past} a value, or a list of those that count")
            continue
        shapes = [contracts[operation].arguments.fields.get(past, OpaqueShape()) for operation in on]
        found[past] = tuple(sorted({form for shape in shapes for form in forms(value, shape)}))
    return found
