"""What a policy reads, learnt from its syntax tree, so that each evaluation is given that much and no more.

The analysis only ever errs on the side of more: an expression it cannot follow counts as reading everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from interlock.policy.errors import UnusableReleaseError

CONTEXT_KEYS: Final = frozenset(
    {"args", "agent", "user", "session", "data", "call", "now", "origins", "provenance", "plan", "history"}
)
MAX_EXPRESSION_LEVELS: Final = 200
WHOLE: Final = "*"
"""Stands for every attribute; a Cedar attribute of this name is simply covered by it."""

Paths: TypeAlias = frozenset[tuple[str, ...]]
Step: TypeAlias = tuple[str, tuple[str, ...] | None]
"""A key of the context, and which of the attributes below it are shown; None for all of them."""


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy, or several together, may read.

    `context` maps a top-level key to the attributes read below it; `WHOLE` among them means all of it. `resource` holds the
    attributes read of the resource, `WHOLE` when its identity matters.
    """

    context: Mapping[str, frozenset[str]] = {}
    resource: frozenset[str] = frozenset()

    @property
    def is_volatile(self) -> bool:
        """Whether it differs from call to call, so that remembering an answer is of no use."""
        return bool(self.resource) or "args" in self.context or "now" in self.context

    def plan(self) -> tuple[Step, ...]:
        """The projection of the context: each key with the attributes to keep, None for all of them. In a fixed order."""
        return tuple(
            (key, None if WHOLE in below or key == "now" else tuple(sorted(below)))
            for key, below in sorted(self.context.items())
        )


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """For whom and what a policy speaks at all. `actions` is None for every action, `agent` for more than one agent."""

    actions: frozenset[str] | None
    agent: str | None


def unite(several: Iterable[Reads]) -> Reads:
    """What policies read together."""
    context: dict[str, frozenset[str]] = {}
    resource: frozenset[str] = frozenset()
    for reads in several:
        resource |= reads.resource
        for key, below in reads.context.items():
            context[key] = context.get(key, frozenset()) | below
    return Reads(context=context, resource=resource)


def scope_of(est: Mapping[str, Any]) -> Scope:
    """The scope of a policy. What it does not understand counts as every action and any agent: Cedar then decides."""
    action, principal = est.get("action", {}), est.get("principal", {})
    agent: str | None = None
    if principal.get("op") == "==":
        entity = principal.get("entity", {})
        if entity.get("type") == "Agent":
            agent = entity.get("id")
    return Scope(actions=_actions(action), agent=agent)


def _actions(action: Mapping[str, Any]) -> frozenset[str] | None:
    named = [action["entity"]] if "entity" in action else action.get("entities")
    if action.get("op") not in ("==", "in") or named is None:
        return None
    if any(entity.get("type") != "Action" for entity in named):
        return None
    return frozenset(entity["id"] for entity in named)


def reads_of(est: Mapping[str, Any]) -> Reads:
    """What the conditions and the resource scope of a policy read.

    Raises:
        UnusableReleaseError: an expression is nested deeper than `MAX_EXPRESSION_LEVELS`.
    """
    found: set[tuple[str, ...]] = set()
    for condition in est.get("conditions", ()):
        _walk(condition["body"], found, 0)
    scope = est.get("resource", {})
    if scope.get("op") not in ("All", "is") or "in" in scope:
        found.add(("resource",))
    return _gather(found)


def paths_of(expression: Any) -> Paths:
    """Everything that an expression reads, each path beginning at its variable: `("context", "args", "amount")`."""
    found: set[tuple[str, ...]] = set()
    _walk(expression, found, 0)
    return frozenset(found)


def entity_types_of(node: Any) -> frozenset[str]:
    """The types of the entities that an expression or a scope names. Errs on the side of more."""
    found: set[str] = set()
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.keys() == {"type", "id"}:
                found.add(str(item["type"]))
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return frozenset(found)


def argument_paths(expression: Any) -> Paths:
    """The paths below `context.args` that an expression reads, such as `("args", "amount")`."""
    return frozenset(path[1:] for path in paths_of(expression) if path[:2] == ("context", "args"))


def reads_other_than_arguments(expression: Any) -> bool:
    """Whether an expression reads anything besides `context.args`."""
    return any(path[:2] != ("context", "args") for path in paths_of(expression))


def _gather(found: set[tuple[str, ...]]) -> Reads:
    context: dict[str, frozenset[str]] = {}
    resource: set[str] = set()
    for path in found:
        if path == ("context",):
            for key in CONTEXT_KEYS:
                context[key] = frozenset({WHOLE})
        elif path[0] == "context" and path[1] in CONTEXT_KEYS:
            context[path[1]] = context.get(path[1], frozenset()) | frozenset(path[2:3])
        elif path[0] == "resource":
            resource.add(path[1] if len(path) > 1 else WHOLE)
    return Reads(context=context, resource=frozenset(resource))


def _walk(node: Any, found: set[tuple[str, ...]], level: int) -> None:
    if level > MAX_EXPRESSION_LEVELS:
        raise UnusableReleaseError(f"a policy is nested deeper than {MAX_EXPRESSION_LEVELS} levels; split it")
    if isinstance(node, list):
        for item in node:
            _walk(item, found, level + 1)
        return
    if not isinstance(node, dict) or "Value" in node:
        return
    if "Var" in node:
        found.add((str(node["Var"]),))
        return
    if "Record" in node:
        for item in node["Record"].values():
            _walk(item, found, level + 1)
        return
    path = access(node)
    if path is not None:
        found.add(path)
        return
    for item in node.values():
        _walk(item, found, level + 1)


def access(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The path that an attribute access or test reads; None when the node is neither or does not start at a variable.

    `context.user` used as a value gives `("context", "user", "*")`; `context has user` only needs `("context", "user")`.
    """
    if len(node) != 1:
        return None
    kind = next(iter(node))
    if kind not in (".", "has"):
        return None
    path = _chain(node[kind])
    if path is None:
        return None
    if kind == "." and len(path) == 2 and path[0] == "context":  # noqa: PLR2004 a variable and one attribute
        return (*path, WHOLE)
    return path


def _chain(step: Any) -> tuple[str, ...] | None:
    if not isinstance(step, dict) or not isinstance(step.get("attr"), str):
        return None
    left = step.get("left")
    if not isinstance(left, dict) or len(left) != 1:
        return None
    if "Var" in left:
        return (str(left["Var"]), step["attr"])
    inner = _chain(left["."]) if "." in left else None
    return None if inner is None else (*inner, step["attr"])
