"""The policies of an operation for one standing: those that hold whatever comes, and the conditions that are left to ask.

Who calls, for whom, in which task, under which posture stays from call to call, and most of what policies ask is just that.
So each policy is taken apart: the parts of its condition that only read what stands are asked of Cedar once for a standing.
Where one is false the policy cannot hold and is left out; where all are true and nothing else is left, it holds; of the others
the rest of the condition is left, each different one once, whichever policies of whichever layers share it. One call of Cedar
then says which of them hold, and thereby which policies of all layers do.

It changes no answer: Cedar itself evaluates every part, in the order in which they were written, and what the conditions of a
policy do not share with each other they do not see. Any error leaves everything to the policies as they were written.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from interlock.policy.reads import entity_types_of, paths_of, reads_of
from interlock.policy.slices import STANDING, USER_LAYERS, Handle, Handles, Rule, parse_set

PINNED_MAX_CONDITIONS: Final = 1_500
"""Over all standings that are remembered. One takes about 7 KB."""

Est: TypeAlias = dict[str, Any]
Answers: TypeAlias = tuple[tuple[str, ...], ...]
"""The names of the standing conditions that hold, for each set of them."""

_ANYTHING: Final[Est] = {"op": "All"}
_NEVER: Final[Est] = {"Value": False}
_WHO: Final = frozenset({"User", "Role"})
_NO_OBJECTS: Final = frozenset({"Action", "Agent", "Tool", *_WHO})
"""Types of entities that are there, or not, whether or not a policy beside reads the object."""


class UnpinnableError(Exception):
    """A policy reads something in a way that cannot be taken apart; the operation is decided by its policies as written."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some conditions as a set, and by their names the policies that hold where they do."""

    conditions: Handle
    policies: Mapping[str, tuple[str, ...]]


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """`certain` are the policies that hold whatever comes; of those named in `parts` the conditions decide."""

    certain: frozenset[str]
    parts: tuple[Part, ...]


class Pins:
    """What was pinned most recently, of all operations together bounded by the number of conditions."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, Answers], Pinned] = OrderedDict()
        self._conditions = 0

    def of(self, apart: Apart, answers: Answers) -> Pinned:
        """What an operation's policies come to where just these standing conditions hold.

        Raises:
            UnusableReleaseError: Cedar does not accept what is left of a policy.
        """
        key = (apart.number, answers)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = apart.pinned(answers)
            self._conditions += _size(known)
            while self._conditions > PINNED_MAX_CONDITIONS and len(self._known) > 1:
                self._conditions -= _size(self._known.popitem(last=False)[1])
            return known
        with contextlib.suppress(KeyError):  # another thread has just dropped it
            self._known.move_to_end(key)
        return known

    def __len__(self) -> int:
        """How many operations are pinned, each for one standing."""
        return len(self._known)


def _size(pinned: Pinned) -> int:
    return 1 + sum(len(part.policies) for part in pinned.parts)


class _Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A policy taken apart. A step is the place of a standing condition, or a moving condition; in their order."""

    name: str
    scope: Est
    steps: tuple[tuple[int, str] | Est, ...]
    as_user: bool


class Apart:
    """The policies of an operation taken apart into what stands and what moves. Made once for an operation and an agent."""

    __slots__ = ("_handles", "_taken", "number", "standing")

    def __init__(self, rules: Sequence[Rule], operation: str, handles: Handles) -> None:
        """Raises `UnpinnableError` for policies that cannot be taken apart, `UnusableReleaseError` for such as are none."""
        # Each is a policy to Cedar, whatever becomes of its parts.
        parse_set({rule.policy.id: rule.est for rule in rules if not rule.is_accepted})
        for rule in rules:
            rule.is_accepted = True
        self.number = handles.next()
        self._handles = handles
        asked: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._taken = [_taken(rule, operation, asked) for rule in rules]
        self.standing = tuple(handles.shared(texts, as_user=bool(kind)) for kind, texts in enumerate(asked) if texts)

    def pinned(self, answers: Answers) -> Pinned:
        """See `Pins.of`."""
        held: dict[bool, frozenset[str]] = {
            handle.as_user: frozenset(names) for handle, names in zip(self.standing, answers, strict=True)
        }
        certain: set[str] = set()
        left: dict[tuple[bool, bool], dict[str, list[str]]] = {}
        for taken in self._taken:
            rest = _left(taken, held)
            if rest is None:
                continue
            if not rest and taken.scope == _ANYTHING:
                certain.add(taken.name)
                continue
            made = _permit(resource=taken.scope, conditions=rest)
            is_volatile = reads_of(made).is_volatile
            left.setdefault((is_volatile, taken.as_user), {}).setdefault(_text(made), []).append(taken.name)
        parts = []
        for (_, as_user), texts in left.items():
            parts.append(
                Part(
                    conditions=self._handles.shared(texts, as_user=as_user),
                    policies={str(index): tuple(names) for index, names in enumerate(texts.values())},
                )
            )
        return Pinned(certain=frozenset(certain), parts=tuple(parts))


def _left(taken: _Taken, held: Mapping[bool, frozenset[str]]) -> list[Est] | None:
    """The conditions that are left of a policy; None when it can neither hold nor err any more."""
    rest: list[Est] = []
    for step in taken.steps:
        if isinstance(step, dict):
            rest.append(step)
            continue
        kind, name = step
        if name not in held[bool(kind)]:
            # What stands before it may err, and so it stays.
            return [*rest, _NEVER] if rest else None
    return rest


def _taken(rule: Rule, operation: str, asked: tuple[dict[str, str], dict[str, str]]) -> _Taken:
    """Take one policy apart. What is standing is added to `asked`, once for those that ask the same."""
    est: Est = msgspec.json.decode(rule.est)
    is_user = rule.policy.layer in USER_LAYERS
    principal, action, resource = (est[name] for name in ("principal", "action", "resource"))
    if rule.scope.actions is not None and (action["op"] == "in" or action["entity"]["id"] == operation):
        action = _ANYTHING  # it is among the operation's policies because this is so; one that `==` a group never holds
    stands = resource.get("op") == "All" or (resource.get("op") == "is" and "in" not in resource)
    scope = {"principal": principal, "action": action, "resource": resource if stands else _ANYTHING}
    steps: list[tuple[int, str] | Est] = []
    run: list[Est] = []
    as_user = False

    def ask() -> None:
        """Add what has run up as one standing condition, the scope with the first."""
        wide = all(item == _ANYTHING for item in scope.values())
        if run or not wide:
            made = _permit(**scope, conditions=run)
            about_who = scope["principal"] != _ANYTHING or any(map(_is_about_who, run))
            kind = int(is_user and about_who)
            text = _text(made)
            steps.append((kind, asked[kind].setdefault(text, str(len(asked[kind])))))
            run.clear()
        scope.update(dict.fromkeys(scope, _ANYTHING))

    for part in _conjuncts(est):
        if _stands(part):
            run.append(part)
            continue
        ask()
        if is_user and _is_about_who(part):
            as_user = True
        steps.append(part)
    ask()
    return _Taken(name=rule.policy.id, scope=_ANYTHING if stands else resource, steps=tuple(steps), as_user=as_user)


def _conjuncts(est: Est) -> Iterator[Est]:
    """What must all hold, in the order in which Cedar looks at it."""
    for condition in est["conditions"]:
        if condition["kind"] not in ("when", "unless"):
            raise UnpinnableError
        if condition["kind"] == "unless":
            yield {"!": {"arg": condition["body"]}}
            continue
        pending = [condition["body"]]
        while pending:
            part = pending.pop()
            if part.keys() == {"&&"}:
                pending += [part["&&"]["right"], part["&&"]["left"]]
            else:
                yield part


def _stands(part: Est) -> bool:
    """Whether a condition reads nothing but what stands. One that names objects of a type must read the object."""
    paths = paths_of(part)
    others = entity_types_of(part) - _NO_OBJECTS
    if others and not any(path[0] == "resource" for path in paths):
        raise UnpinnableError
    return all(
        path[0] in ("principal", "action") or (path[0] == "context" and path[1:2] and path[1] in STANDING) for path in paths
    )


def _is_about_who(part: Est) -> bool:
    """Whether it matters to a condition who the principal is, and in which roles."""
    return any(path[0] == "principal" for path in paths_of(part)) or bool(entity_types_of(part) & _WHO)


def _permit(
    *, conditions: Sequence[Est], principal: Est = _ANYTHING, action: Est = _ANYTHING, resource: Est = _ANYTHING
) -> Est:
    """A permit, whose answer is whether the conditions hold."""
    return {
        "effect": "permit",
        "principal": principal,
        "action": action,
        "resource": resource,
        "conditions": [{"kind": "when", "body": part} for part in conditions],
    }


def _text(est: Est) -> str:
    return msgspec.json.encode(est).decode()
