"""`budgets.yaml`: what is counted, for whom, up to which limit, and whom a hit is put to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from interlock.core.budget import (
    CEILINGS,
    HANDED_DOWN,
    MAX_UNITS,
    MAX_WINDOW_S,
    UNITS_PER_ONE,
    Budget,
    Counted,
    Per,
    units_of,
)
from interlock.core.contract import Contract, DecimalShape, LongShape
from interlock.release.documents import Node, Problems
from interlock.release.model import ApprovalRule

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_WINDOW: Final = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_BOUND_TO_A_LIFE: Final = frozenset({Per.RUN, Per.SESSION})


class BudgetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `budgets.yaml`."""

    per: Per
    limit: int | str
    count: Counted | None = None
    sum: str = ""
    on: str | list[str] = []
    within: str = ""
    ask: str = ""


def read_budgets(
    node: Node, contracts: Mapping[str, Contract], approvals: Mapping[str, ApprovalRule], problems: Problems
) -> tuple[Budget, ...]:
    """The budgets of a release: the ceilings, with what the file says in their place and besides."""
    found = {budget.name: budget for budget in CEILINGS}
    for name, inside in node.items():
        spec = problems.convert(inside, BudgetSpec)
        if spec is None:
            continue
        budget = _budget(name, spec, inside, contracts, problems)
        if budget is None:
            continue
        if spec.ask and spec.ask not in approvals:
            problems.add(inside.at("ask"), f"there is no approval rule {spec.ask!r} in approvals.yaml")
        ceiling = found.get(name)
        if ceiling is not None and (ceiling.counted, ceiling.per, ceiling.on) != (budget.counted, budget.per, budget.on):
            # INVARIANT: a ceiling is raised or lowered in so many words, and never lost to a name.
            problems.add(
                inside, f"{name} is the ceiling of {ceiling.counted} per {ceiling.per}; count that, or take another name"
            )
        found[name] = budget
    return tuple(found.values())


def _budget(name: str, spec: BudgetSpec, node: Node, contracts: Mapping[str, Contract], problems: Problems) -> Budget | None:
    if not _NAME.fullmatch(name) or name == HANDED_DOWN:
        problems.add(node, f"{name!r} cannot be a budget's name; use small letters, digits and `-`, 48 at most")
        return None
    if (spec.count is None) == (not spec.sum) or spec.count is Counted.SUM:
        problems.add(
            node,
            f"{name}: say one of count (calls, lookups, writes, entities, tokens, wall_ms) and sum (tool.operation.argument)",
        )
        return None
    if spec.count is Counted.LOOKUPS and (spec.per not in {Per.SESSION, Per.LINEAGE} or spec.ask):
        problems.add(node, f"{name}: lookups are counted per session or lineage, and nobody can be asked about one")
        return None
    on, argument = _counted_on(spec, node, contracts, problems)
    limit = _limit(spec)
    if limit is None:
        problems.add(
            node.at("limit"),
            f"{name}: the limit is a number of zero or more; for a sum with at most four digits after the point",
        )
        return None
    window_s = _window_s(name, spec, node, problems)
    if window_s is None:
        return None
    return Budget(
        name=name,
        counted=Counted.SUM if spec.count is None else spec.count,
        per=spec.per,
        limit=limit,
        window_s=window_s,
        on=on,
        argument=argument,
        rule=spec.ask,
    )


def _counted_on(
    spec: BudgetSpec, node: Node, contracts: Mapping[str, Contract], problems: Problems
) -> tuple[tuple[str, ...], str]:
    if not spec.sum:
        return _operations(spec.on, node, contracts, problems), ""
    operation, _, argument = spec.sum.rpartition(".")
    contract = contracts.get(operation)
    if spec.on:
        problems.add(node.at("on"), "a sum names its operation already")
    if contract is None or not isinstance(contract.arguments.fields.get(argument), (LongShape, DecimalShape)):
        problems.add(node.at("sum"), f"sum names {spec.sum!r}, which is no number among an operation's arguments")
    return (operation,), argument


def _operations(on: str | list[str], node: Node, contracts: Mapping[str, Contract], problems: Problems) -> tuple[str, ...]:
    found: set[str] = set()
    for name in [on] if isinstance(on, str) else on:
        matching = {c.operation for c in contracts.values() if name in {c.operation, f"{c.tool}.*"}}
        if not matching:
            problems.add(node.at("on"), f"there is no operation {name!r}")
        found |= matching
    return tuple(sorted(found))


def _limit(spec: BudgetSpec) -> int | None:
    counted = spec.limit if isinstance(spec.limit, int) else None
    units = units_of(spec.limit) if spec.sum else counted
    return units if units is not None and 0 <= units <= MAX_UNITS // UNITS_PER_ONE * UNITS_PER_ONE else None


def _window_s(name: str, spec: BudgetSpec, node: Node, problems: Problems) -> int | None:
    if not spec.within:
        if spec.per in _BOUND_TO_A_LIFE or spec.per is Per.CALL:
            return 0
        problems.add(node, f"{name}: a budget per {spec.per} needs a window, such as `within: 24h`")
        return None
    written = _WINDOW.fullmatch(spec.within)
    seconds = int(written.group(1)) * _SECONDS[written.group(2)] if written else 0
    if spec.per is Per.CALL or not 0 < seconds <= MAX_WINDOW_S:
        problems.add(
            node.at("within"), f"{name}: within is a time such as 90s, 15m, 24h or 7d, 31d at most, and not for a single call"
        )
        return None
    return seconds
