"""Tools and the contracts of their operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.core.contract import Contract, EntitiesOf, Repeat
from interlock.core.terms import Effect
from interlock.release.cedar import GROUPS
from interlock.release.diff.changes import (
    Change,
    Direction,
    Found,
    Lines,
    Rule,
    always,
    differences,
    more_is,
    shown,
    step,
    together,
)
from interlock.release.diff.schemas import schema_direction
from interlock.release.model import Release, ToolSource

OPERATION: Final = "operation"
TOOL: Final = "tool"
_NEUTRAL: Final = always(Direction.NEUTRAL)
CLOSER: Final = frozenset({"effects", "classification", "arguments", "input_schema", "output_schema", "fields"}) | {
    *("bulkhead", "breaker", "retry", "degrade")
}


def _wider(*, when: bool) -> Direction:
    return Direction.WIDENS if when else Direction.NARROWS


_UNSURE: Final = always(Direction.UNKNOWN)


def _counted(old: int | EntitiesOf, new: int | EntitiesOf) -> Direction:
    """The more a call counts for, the sooner it meets its budgets; what an argument will say nobody knows."""
    if isinstance(old, int) and isinstance(new, int):
        return more_is(Direction.NARROWS)(old, new)
    return Direction.UNKNOWN


def _pinned(old: str, new: str) -> Direction:
    """A pin stops whatever is not what was reviewed; another pin lets something else through and stops what ran."""
    return Direction.UNKNOWN if old and new else _wider(when=not new)


# A field that stands nowhere here is unknown. What is only said to people, or only waited for, decides nothing.
RULES: Final[Mapping[str, Rule]] = {
    "title": _NEUTRAL,
    "description": _NEUTRAL,
    "timeout_ms": _NEUTRAL,
    "settles_within_s": _NEUTRAL,
    "bulkhead": _NEUTRAL,
    "breaker": _NEUTRAL,
    "retry": _NEUTRAL,
    # Only what was released to this lineage under these very obligations, and decided on again.
    "degrade": _NEUTRAL,
    # What it opens is told by `trusted`; a call is decided without.
    "changes": _NEUTRAL,
    "reviewed_by": _NEUTRAL,
    "reviewed_digest": _pinned,
    "entities": _counted,
    # What is hashed, looked up or sent otherwise than before may go either way.
    **dict.fromkeys(
        ("operation", "tool", "upstream_name", "kind", "completes", "content", "once_per", "idempotency_argument", "resource"),
        _UNSURE,
    ),
    # How it can be checked, tried and undone; a call is decided without.
    **dict.fromkeys(("verify", "evidence", "honours_key", "undo", "dry_run"), _UNSURE),
    # Fewer targets: fewer arguments are looked at as saying who, where and how much.
    "targets": more_is(Direction.NARROWS),
    # Policies may say of what does not send whatever they like.
    "egress_to": _UNSURE,
    "trusted": more_is(Direction.WIDENS),
    # Pictures, sounds, logs, and what a tool may ask of a client.
    "passes": more_is(Direction.WIDENS),
    # What asked and had acted would act once more.
    "asks_before_acting": lambda _old, new: _wider(when=new),
    "mime_type": _NEUTRAL,
    "internal": lambda _old, new: _wider(when=not new),
    "repeat": lambda _old, new: _wider(when=new is Repeat.ALLOW),
    # The longer two writes count as the same, the fewer are done.
    "once_window_s": more_is(Direction.NARROWS),
}


# What a tool that is failing still gets: more calls at once, later refusals, more attempts and older answers widen.
_MORE: Final = more_is(Direction.WIDENS)
_LESS: Final = more_is(Direction.NARROWS)
STABILITY_RULES: Final[Mapping[str, Mapping[str, Rule]]] = {
    "bulkhead": {"at_once": _MORE, "wait_ms": _NEUTRAL},
    "breaker": {"failing_percent": _MORE, "min_calls": _MORE, "window_s": _UNSURE, "open_s": _LESS, "trials": _LESS},
    "retry": {"attempts": _MORE, "budget_percent": _MORE, "first_ms": _NEUTRAL, "most_ms": _NEUTRAL},
    "degrade": {"cache_s": _MORE},
}
TOOL_RULES: Final[Mapping[str, Rule]] = {
    "name": _UNSURE,
    "sources": _UNSURE,  # one by one, in `_tools`
    "stateless": lambda _old, new: _wider(when=new),
    "protocol": _NEUTRAL,
}
SOURCE_RULES: Final[Mapping[str, Rule]] = dict.fromkeys(("url", "command", "python", "credential"), _UNSURE)


def contract_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """Operations that came, went or changed, and tools that run somewhere else."""
    found: list[Change] = []
    for name in sorted(old.contracts.keys() | new.contracts.keys()):
        before, after = old.contracts.get(name), new.contracts.get(name)
        if before is None and after is not None:
            found.append(_change(after, Direction.WIDENS, f"new: {_told(after)}", now))
        elif before is not None and after is None:
            found.append(_change(before, Direction.NARROWS, f"gone: {_told(before)}", was))
        elif before is not None and after is not None:
            found += [_change(after, direction, what, now) for direction, what in _differ(before, after, old, new)]
    return found + _tools(old, new, was, now)


def _change(contract: Contract, direction: Direction, what: str, lines: Lines) -> Change:
    file = f"tools/{contract.tool}.yaml"
    line = lines.of(file, "operations", contract.operation.partition(".")[2])
    return Change(direction=direction, kind=OPERATION, name=contract.operation, what=what, file=file, line=line)


def _told(contract: Contract) -> str:
    internal = ", for the gateway only" if contract.internal else ""
    return f"{', '.join(sorted(contract.effects))}; {contract.classification.value} data{internal}"


def _differ(was: Contract, now: Contract, old: Release, new: Release) -> list[Found]:
    same = {name: getattr(was, name) for name in CLOSER}
    found = [_in_words(was, now, told) for told in differences(was, msgspec.structs.replace(now, **same), RULES)]
    for name, rules in STABILITY_RULES.items():
        found += [
            (direction, f"{name} {what}") for direction, what in differences(getattr(was, name), getattr(now, name), rules)
        ]
    if was.effects != now.effects:
        found.append((_effects(was, now, old, new), f"effects: {step(was.effects, now.effects)}"))
    if was.classification is not now.classification:
        # Fewer grants open data that is said to be more sensitive; a policy that reads the class may do anything.
        direction = _wider(when=now.classification.rank < was.classification.rank)
        reads = _written_reads(old, "context.data") or _written_reads(new, "context.data")
        what = f"classification: {step(was.classification.value, now.classification.value)}"
        found.append((Direction.UNKNOWN if reads else direction, what))
    if was.input_schema != now.input_schema:
        direction = schema_direction(was.input_schema, now.input_schema)
        # What policy sees of the arguments is what its conditions stand on.
        understood = was.arguments == now.arguments or direction is not Direction.NEUTRAL
        found.append((direction if understood else Direction.UNKNOWN, f"input: {_schemas(was.input_schema, now.input_schema)}"))
    elif was.arguments != now.arguments:
        found.append((Direction.UNKNOWN, "input: policy sees it differently"))
    if was.output_schema != now.output_schema:
        direction = schema_direction(was.output_schema, now.output_schema)
        found.append((direction, f"output: {_schemas(was.output_schema, now.output_schema)}"))
    if was.fields != now.fields:
        found.append(_fields(was, now))
    return found


def _in_words(was: Contract, now: Contract, told: Found) -> Found:
    """A difference as people would write it in the file."""
    name = told[1].partition(":")[0]
    if name == "entities":
        reads = f"{_entities(was)} → {_entities(now)}"
        return told[0], f"entities: {reads}"
    if name == "reviewed_digest":
        return told[0], f"pin of {now.operation}: {shown(was.reviewed_digest)} → {shown(now.reviewed_digest)}"
    return told


def _entities(contract: Contract) -> str:
    counted = contract.entities
    if isinstance(counted, int):
        return str(counted)
    return f"len({counted.argument})" if counted.length else counted.argument


def _effects(was: Contract, now: Contract, old: Release, new: Release) -> Direction:
    """An effect less: fewer forbids and postures stop it. A permit for a whole group of effects turns that around."""
    parts = []
    for effect in was.effects ^ now.effects:
        named = [policy for release in (old, new) for policy in release.policies if GROUPS[effect] in (policy.actions or ())]
        if any(policy.effect == "permit" for policy in named):
            parts.append(Direction.UNKNOWN)
        elif effect is not Effect.READ or named or was.is_read_only or now.is_read_only:
            parts.append(_effect(effect, was, now))
    return together(parts) if parts else Direction.UNKNOWN


def _effect(effect: Effect, was: Contract, now: Contract) -> Direction:
    if effect is Effect.READ:
        return Direction.NEUTRAL if was.is_read_only or now.is_read_only else _wider(when=effect in was.effects)
    return _wider(when=effect in was.effects)


def _written_reads(release: Release, text: str) -> bool:
    return any(text in policy.cedar for policy in release.policies if not policy.id.startswith("grant:"))


def _schemas(old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return "any → described" if old is None else "described → any"
    was, now = (msgspec.json.decode(schema) for schema in (old, new))
    before, after = was.get("properties", {}), now.get("properties", {})
    if before.keys() != after.keys():
        return step(sorted(before), sorted(after))
    changed = [name for name in sorted(before) if before[name] != after[name]]
    return "; ".join(f"{name} {shown(before[name])} → {shown(after[name])}" for name in changed) or f"{old} → {new}"[:200]


def _fields(was: Contract, now: Contract) -> Found:
    before = {f"{path}: {tag}" for path, tags in was.fields.items() for tag in tags}
    after = {f"{path}: {tag}" for path, tags in now.fields.items() for tag in tags}
    return more_is(Direction.NARROWS)(before, after), f"tags: {step(before, after)}"


def _tools(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    found: list[Change] = []
    for name in sorted(old.tools.keys() | new.tools.keys()):
        file = f"tools/{name}.yaml"
        before, after = old.tools.get(name), new.tools.get(name)
        line = (now if after is not None else was).of(file)

        def change(direction: Direction, what: str, line: int = line, file: str = file, name: str = name) -> Change:
            return Change(direction=direction, kind=TOOL, name=name, what=what, file=file, line=line)

        if before is None or after is None:
            tool = after or before
            where = _where({} if tool is None else tool.sources)
            found.append(change(_wider(when=before is None), f"{'new' if before is None else 'gone'}: {where}"))
            continue
        for environment in sorted(before.sources.keys() | after.sources.keys()):
            source, moved = before.sources.get(environment), after.sources.get(environment)
            if source is None or moved is None:
                direction = _wider(when=source is None)
                what = f"{'runs in' if source is None else 'no longer runs in'} {environment}"
                found.append(change(direction, f"{what}: {_where({environment: source or moved})}"))
            elif source != moved:
                found += [change(d, f"{environment} {w}") for d, w in differences(source, moved, SOURCE_RULES)]
        same = msgspec.structs.replace(after, sources=before.sources)
        found += [change(direction, what) for direction, what in differences(before, same, TOOL_RULES)]
    return found


def _where(sources: Mapping[str, ToolSource | None]) -> str:
    return ", ".join(f"{env} at {_place(source)}" for env, source in sorted(sources.items()) if source is not None)


def _place(source: ToolSource) -> Any:
    return source.url or " ".join(source.command) or source.python
