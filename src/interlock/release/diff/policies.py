"""Policies written by hand, compared by their ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.release.diff.changes import Change, Direction, Found, flipped, more_is, step, together
from interlock.release.model import Policy, Release

KIND: Final = "policy"
GRANTED: Final = "grant:"


def policy_changes(old: Release, new: Release) -> list[Change]:
    """Policies that came, went or changed."""
    before, after = _written(old), _written(new)
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            found.append(_change(now, more_fires(now), f"new: {_told(now)}"))
        elif was is not None and now is None:
            found.append(_change(was, flipped(more_fires(was)), f"gone: {_told(was)}"))
        elif was is not None and now is not None:
            found += [_change(now, direction, what) for direction, what in _differ(was, now)]
    return found


def _written(release: Release) -> dict[str, Policy]:
    return {policy.id: policy for policy in release.policies if not policy.id.startswith(GRANTED)}


def _change(policy: Policy, direction: Direction, what: str) -> Change:
    return Change(
        direction=direction,
        kind=KIND,
        name=f"{policy.id} ({policy.layer.value}, owner {policy.owner})",
        what=what,
        file=policy.file,
        line=policy.line,
    )


def more_fires(policy: Policy) -> Direction:
    """What it does when a policy applies to more calls."""
    return Direction.WIDENS if policy.effect == "permit" else Direction.NARROWS


def _told(policy: Policy) -> str:
    actions = "every operation" if policy.actions is None else ", ".join(policy.actions)
    lifted = [f"unless {policy.approval} approve"] if policy.approval else []
    lifted += [f"obliges {text}" for text in policy.obligations]
    return "; ".join([f"{policy.effect}s {actions}", *lifted])


# Where a policy stands and how it is printed is no difference; its text, and with it the limits that it was made of, is
# compared as what it means, by `_fires`.
PLACE: Final = frozenset({"file", "line", "cedar", "limits"})
COMPARED: Final = frozenset({"id", "effect", "approval", "obligations", "actions", "est"})
SAID: Final = frozenset({"say", "owner"})
UNSURE: Final = frozenset({"layer"})


def _differ(was: Policy, now: Policy) -> list[Found]:
    if was.effect != now.effect:
        direction = Direction.WIDENS if now.effect == "permit" else Direction.NARROWS
        return [(direction if was.layer is now.layer else Direction.UNKNOWN, f"{was.effect} → {now.effect}")]
    found: list[Found] = []
    for name in Policy.__struct_fields__:
        old, new = getattr(was, name), getattr(now, name)
        if old != new and name not in PLACE | COMPARED:
            # What it says to the caller and who owns it decides nothing.
            direction = Direction.NEUTRAL if name in SAID else Direction.UNKNOWN
            found.append((direction, f"{name}: {step(old, new)}"))
    if (was.approval, was.obligations) != (now.approval, now.obligations):
        found.append((_lifted(was, now), f"lifted by: {step(_lifts(was), _lifts(now))}"))
    fires = _fires(json.loads(was.est), json.loads(now.est))
    if fires is not None:
        direction = fires[0] if was.effect == "permit" else flipped(fires[0])
        found.append((direction, fires[1]))
    return found


def _lifts(policy: Policy) -> tuple[str, ...]:
    return ((f"approval {policy.approval}",) if policy.approval else ()) + policy.obligations


def _lifted(was: Policy, now: Policy) -> Direction:
    """A forbid that nothing lifts is the strictest; between two that something lifts, who knows."""
    if not _lifts(was):
        return Direction.WIDENS
    return Direction.UNKNOWN if _lifts(now) else Direction.NARROWS


def _fires(was: Mapping[str, Any], now: Mapping[str, Any]) -> Found | None:
    """Whether the policy applies to more calls than before (`widens`), or to fewer; None when nothing of it changed."""
    parts: list[Direction] = []
    texts: list[str] = []
    for name in ("principal", "resource"):
        if was[name] != now[name]:
            parts.append(_scope(was[name], now[name]))
            texts.append(f"{name} changed")
    if was["action"] != now["action"]:
        parts.append(_scope(was["action"], now["action"]))
        texts.append(f"operations: {step(_actions(was['action']), _actions(now['action']))}")
    before, after = _conjuncts(was), _conjuncts(now)
    if before != after:
        # Every condition must hold, so one more applies to fewer calls.
        parts.append(more_is(Direction.NARROWS)(before, after) if set(before) != set(after) else Direction.UNKNOWN)
        texts.append(f"conditions: {len(after - before)} new, {len(before - after)} gone")
    known = {"effect", "principal", "action", "resource", "conditions", "annotations"}
    if {key: was[key] for key in was.keys() - known} != {key: now[key] for key in now.keys() - known}:
        parts.append(Direction.UNKNOWN)
        texts.append("something else of it changed")
    return (together(parts), "; ".join(texts)) if texts else None


def _scope(was: Mapping[str, Any], now: Mapping[str, Any]) -> Direction:
    if was["op"] == "All" or now["op"] == "All":
        return Direction.WIDENS if now["op"] == "All" else Direction.NARROWS
    if not {was["op"], now["op"]} <= {"==", "in"} or _entities(was) == _entities(now):
        return Direction.UNKNOWN
    return more_is(Direction.WIDENS)(_entities(was), _entities(now))


def _entities(scope: Mapping[str, Any]) -> tuple[str, ...]:
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return tuple(sorted(f"{entity['type']}::{entity['id']}" for entity in entities))


def _actions(scope: Mapping[str, Any]) -> tuple[str, ...]:
    return ("every operation",) if scope["op"] == "All" else tuple(name.removeprefix("Action::") for name in _entities(scope))


def _conjuncts(est: Mapping[str, Any]) -> frozenset[str]:
    """The conditions that must all hold, each as canonical text."""
    found: set[str] = set()
    for condition in est["conditions"]:
        if condition["kind"] == "when":
            found |= {f"when {_text(part)}" for part in _split(condition["body"])}
        else:
            found.add(f"unless {_text(condition['body'])}")
    return frozenset(found)


def _split(body: Any) -> list[Any]:
    if isinstance(body, dict) and set(body) == {"&&"}:
        return [*_split(body["&&"]["left"]), *_split(body["&&"]["right"])]
    return [body]


def _text(body: Any) -> str:
    return msgspec.json.encode(body, order="sorted").decode()
