"""Grants compared in their own words, operation by operation, so that regrouping them is no change.

A grant's duties (what it obliges or asks) stand under the same conditions as its permits. So a change of whom or what it
covers goes one way for the permits and, where another grant permits the same call, the other way for the duties: unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from interlock.core.terms import Layer
from interlock.release.cedar import GROUPS
from interlock.release.diff.changes import Change, Direction, Found, Lines, flipped, more_is, shown, step, together
from interlock.release.documents import Problems
from interlock.release.grants import GrantSpec
from interlock.release.model import Release

FILE: Final = "agents.yaml"
KIND: Final = "grant"
_MORE: Final = more_is(Direction.WIDENS)
_UPPER: Final = frozenset({"max", "under"})
_LOWER: Final = frozenset({"min", "over"})


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """One grant for one operation. `environments` are those it holds in."""

    agent: str
    number: int
    line: int
    operation: str
    environments: frozenset[str]
    spec: GrantSpec

    @property
    def words(self) -> tuple[Any, ...]:
        """All that it says, but for where it stands."""
        return (msgspec.structs.replace(self.spec, on="", environments=[]), self.environments)

    @property
    def has_duties(self) -> bool:
        """Whether it obliges or asks."""
        data = self.spec.data
        return bool(data.redact or data.columns or data.rows or self.spec.ask or self.spec.rate)


def grants_of(release: Release, lines: Lines) -> dict[tuple[str, str], list[Granted]]:
    """The grants of a release by agent and operation."""
    found: dict[tuple[str, str], list[Granted]] = defaultdict(list)
    for agent, node in lines.node(FILE).items():
        everywhere = [identity.environment for identity in release.identities if identity.agent == agent]
        for number, inside in enumerate(node.at("grants").each(), start=1):
            spec = Problems().convert(inside, GrantSpec)
            if spec is None:
                continue  # a release that was loaded has no such grant
            for operation in _operations(spec.on, release):
                granted = Granted(
                    agent=agent,
                    number=number,
                    line=inside.line,
                    operation=operation,
                    environments=frozenset(spec.environments or everywhere),
                    spec=spec,
                )
                found[agent, operation].append(granted)
    return found


def _operations(on: str | list[str], release: Release) -> list[str]:
    found: list[str] = []
    for name in [on] if isinstance(on, str) else on:
        if name.endswith(".*"):
            found += [c.operation for c in release.contracts.values() if c.tool == name[:-2] and not c.internal]
        else:
            found.append(name)
    return found


def grant_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """What was granted, taken away or changed. The same change for several operations is one change."""
    before, after = grants_of(old, was), grants_of(new, now)
    grouped: dict[tuple[Direction, str, str, int], list[str]] = defaultdict(list)
    for key in sorted(before.keys() | after.keys()):
        agent, operation = key
        for direction, what, line in _of_operation(before.get(key, []), after.get(key, []), old, new):
            grouped[direction, agent, what, line].append(operation)
    return [
        Change(
            direction=direction,
            kind=KIND,
            name=f"{agent} on {', '.join(operations)}",
            what=what,
            file=FILE,
            line=line,
        )
        for (direction, agent, what, line), operations in grouped.items()
    ]


def _of_operation(
    before: list[Granted], after: list[Granted], old: Release, new: Release
) -> Iterable[tuple[Direction, str, int]]:
    gone, came = _unlike(before, after), _unlike(after, before)
    for was, now in _pairs(gone, came):
        gone.remove(was)
        came.remove(now)
        shared = (was.has_duties or now.has_duties) and (_others(before, was, old) or _others(after, now, new))
        for direction, what, is_scope in _compared(was, now):
            yield (Direction.UNKNOWN if shared and is_scope else direction), what, now.line
    for granted in came:
        alone = not granted.has_duties or not _others(after, granted, new)
        yield (Direction.WIDENS if alone else Direction.UNKNOWN), f"granted {told(granted)}", granted.line
    for granted in gone:
        alone = not granted.has_duties or not _others(before, granted, old)
        yield (Direction.NARROWS if alone else Direction.UNKNOWN), f"no longer granted {told(granted)}", granted.line


def _unlike(some: list[Granted], others: list[Granted]) -> list[Granted]:
    """Those that have no equal among the others, one for one."""
    left = [granted.words for granted in others]
    found = []
    for granted in some:
        if granted.words in left:
            left.remove(granted.words)
        else:
            found.append(granted)
    return found


def _pairs(gone: list[Granted], came: list[Granted]) -> list[tuple[Granted, Granted]]:
    """Which grant became which: the most alike first."""
    ranked = sorted(
        (len(_compared(was, now)), abs(was.number - now.number), was.number, now.number) for was in gone for now in came
    )
    by_old, by_new = {granted.number: granted for granted in gone}, {granted.number: granted for granted in came}
    found = []
    for _, _, old_number, new_number in ranked:
        if old_number in by_old and new_number in by_new:
            found.append((by_old.pop(old_number), by_new.pop(new_number)))
    return found


def _others(granted: list[Granted], this: Granted, release: Release) -> bool:
    """Whether anything else may permit the same calls."""
    if any(other is not this for other in granted):
        return True
    contract = release.contracts.get(this.operation)
    effects = () if contract is None else contract.effects
    names = {this.operation, f"tool:{this.operation.partition('.')[0]}", *(GROUPS[effect] for effect in effects)}
    return any(
        policy.layer is Layer.CAPABILITY
        and policy.effect == "permit"
        and not policy.id.startswith("grant:")
        and (policy.actions is None or names & set(policy.actions))
        for policy in release.policies
    )


def _compared(was: Granted, now: Granted) -> list[tuple[Direction, str, bool]]:
    """How two grants differ; the last says whether it is about whom and what they cover."""
    old, new = was.spec, now.spec
    scope: list[Found] = []
    if was.environments != now.environments:
        scope.append((_MORE(was.environments, now.environments), f"environments: {step(was.environments, now.environments)}"))
    if set(old.to.roles) != set(new.to.roles):
        scope.append((_MORE(old.to.roles, new.to.roles), f"roles: {step(old.to.roles, new.to.roles)}"))
    scope += _tasks(_listed(old.to.task), _listed(new.to.task))
    if old.to.tenant != new.to.tenant:
        direction = Direction.WIDENS if new.to.tenant == "any" else Direction.NARROWS
        scope.append((direction, f"tenant: {step(old.to.tenant, new.to.tenant)}"))
    scope += _conditions(old.to.where, new.to.where)
    scope += _conditions(old.where, new.where)
    if old.until != new.until:
        later = not new.until or (bool(old.until) and new.until > old.until)
        scope.append((Direction.WIDENS if later else Direction.NARROWS, f"until: {step(old.until, new.until)}"))
    if old.data.max is not new.data.max:
        direction = Direction.WIDENS if new.data.max.rank > old.data.max.rank else Direction.NARROWS
        scope.append((direction, f"data max: {step(old.data.max.value, new.data.max.value)}"))
    duties = _duties(old, new)
    if not scope and not duties and was.words != now.words:
        same = _in_order(was.words) == _in_order(now.words)
        scope.append((Direction.NEUTRAL if same else Direction.UNKNOWN, "in another order" if same else "written otherwise"))
    return [*((*found, True) for found in scope), *((*found, False) for found in duties)]


def _in_order(value: Any) -> Any:
    """A value with its lists sorted: of a set of words the order means nothing."""
    plain = msgspec.to_builtins(value, order="sorted")
    if isinstance(plain, dict):
        return {key: _in_order(inside) for key, inside in plain.items()}
    if isinstance(plain, (list, tuple)):
        return sorted({msgspec.json.encode(_in_order(item)) for item in plain})
    return plain


def _tasks(old: list[str], new: list[str]) -> list[Found]:
    if set(old) == set(new):
        return []
    if not old or not new:  # no task named is any task
        return [(Direction.NARROWS if new else Direction.WIDENS, f"task: {shown(old or 'any')} → {shown(new or 'any')}")]
    return [(_MORE(old, new), f"task: {step(old, new)}")]


def _conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Found]:
    found: list[Found] = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            found.append((Direction.WIDENS, f"{name}: {shown(old[name])} → no limit"))
        elif name not in old:
            found.append((Direction.NARROWS, f"{name}: no limit → {shown(new[name])}"))
        elif old[name] != new[name]:
            found.append((_limit(old[name], new[name]), f"{name}: {shown(old[name])} → {shown(new[name])}"))
    return found


def _limit(old: Any, new: Any) -> Direction:
    """Two limits on one argument or attribute."""
    was, now = _verbs(old), _verbs(new)
    return together(
        Direction.WIDENS if verb not in now
        else Direction.NARROWS if verb not in was
        else _bound(verb, was[verb], now[verb])
        for verb in was.keys() | now.keys()
    )  # fmt: skip


def _verbs(rule: Any) -> dict[str, Any]:
    if isinstance(rule, list):
        return {"in": rule}
    return dict(rule) if isinstance(rule, dict) else {"?": rule}


def _bound(verb: str, old: Any, new: Any) -> Direction:
    if old == new:
        return Direction.NEUTRAL
    if verb in _UPPER | _LOWER:
        try:
            grows = Decimal(str(new)) - Decimal(str(old))
        except InvalidOperation:
            return Direction.UNKNOWN
        if not grows:
            return Direction.NEUTRAL
        return Direction.WIDENS if (grows > 0) == (verb in _UPPER) else Direction.NARROWS
    if verb == "in" and isinstance(old, list) and isinstance(new, list):
        return _MORE([str(item) for item in old], [str(item) for item in new])
    return Direction.UNKNOWN


def _duties(old: GrantSpec, new: GrantSpec) -> list[Found]:
    found: list[Found] = []
    if set(old.data.redact) != set(new.data.redact):
        found.append((flipped(_MORE(old.data.redact, new.data.redact)), f"redact: {step(old.data.redact, new.data.redact)}"))
    for path in sorted(old.data.columns.keys() | new.data.columns.keys()):
        kept, keeps = old.data.columns.get(path), new.data.columns.get(path)
        if kept is None or keeps is None:
            found.append((Direction.WIDENS if keeps is None else Direction.NARROWS, f"columns {path}: {step(kept, keeps)}"))
        elif set(kept) != set(keeps):
            found.append((_MORE(kept, keeps), f"columns {path}: {step(kept, keeps)}"))
    for place in sorted(old.data.rows.keys() | new.data.rows.keys()):
        was, now = old.data.rows.get(place), new.data.rows.get(place)
        if was != now:
            direction = Direction.NARROWS if was is None else Direction.WIDENS if now is None else Direction.UNKNOWN
            found.append((direction, f"rows {place}: {step(was, now)}"))
    if old.rate != new.rate:
        found.append((_rate(old.rate, new.rate), f"rate: {step(old.rate, new.rate)}"))
    return found + _asks(old, new)


def _rate(old: str, new: str) -> Direction:
    if not old or not new:
        return Direction.NARROWS if new else Direction.WIDENS
    (was, was_s), (now, now_s) = (map(int, rate.removesuffix("s").split("/")) for rate in (old, new))
    return together((more_is(Direction.WIDENS)(was, now), more_is(Direction.NARROWS)(was_s, now_s)))


def _asks(old: GrantSpec, new: GrantSpec) -> list[Found]:
    if old.ask == new.ask:
        return []
    if old.ask is None or new.ask is None:
        came = new.ask or old.ask
        assert came is not None  # noqa: S101  # one of them is there: they differ
        what = f"ask {came.rule}" + (f" when {shown(came.when)}" if came.when else "")
        return [(Direction.NARROWS, f"{what}: added") if old.ask is None else (Direction.WIDENS, f"{what}: no longer asked")]
    found: list[Found] = []
    if old.ask.rule != new.ask.rule:
        found.append((Direction.UNKNOWN, f"ask: {step(old.ask.rule, new.ask.rule)}"))
    # The more narrowly it is said when to ask, the more goes through unasked.
    found += [(flipped(direction), f"ask when {what}") for direction, what in _conditions(old.ask.when, new.ask.when)]
    return found


def _listed(task: str | list[str]) -> list[str]:
    return [task] if isinstance(task, str) else list(task)


def told(granted: Granted) -> str:
    """A grant in a line."""
    spec, data = granted.spec, granted.spec.data
    parts = [f"to {', '.join(spec.to.roles)}", f"in {', '.join(sorted(granted.environments)) or 'no environment'}"]
    parts += [f"for task {', '.join(_listed(spec.to.task))}"] if spec.to.task else ["for any task"]
    parts += ["of any tenant"] if spec.to.tenant == "any" else []
    parts += [f"where {name} {shown(rule)}" for name, rule in (*spec.to.where.items(), *spec.where.items())]
    parts.append(f"up to {data.max.value} data")
    parts += [f"without {', '.join(data.redact)}"] if data.redact else []
    parts += [f"columns {path} {', '.join(names)}" for path, names in data.columns.items()]
    parts += [f"rows {place}={value}" for place, value in data.rows.items()]
    if spec.ask is not None:
        parts.append(f"asking {spec.ask.rule}" + (f" when {shown(spec.ask.when)}" if spec.ask.when else ""))
    parts += [f"at most {spec.rate}"] if spec.rate else []
    parts += [f"until {spec.until}"] if spec.until else []
    return "; ".join(parts)
