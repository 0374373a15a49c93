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

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

import msgspec

from interlock.policy.reads import entity_types_of, paths_of, reads_of
from interlock.policy.slices import STANDING, USER_LAYERS, Handle, Handles, OperationSlices, Rule, parse_set

PINNED_MAX_CONDITIONS: Final = 1_500
"""Over all standings that are remembered. One takes about 7 KB."""
APART_MAX_CONDITIONS: Final = 3_000
"""Over all operations that are kept taken apart; what they share counts once. One takes about 3 KB."""
APART_MAX_POLICIES: Final = 1_000_000
"""Over all operations that are kept taken apart, each policy as often as it is referred to. A reference takes 8 bytes."""

Est: TypeAlias = dict[str, Any]
Answers: TypeAlias = tuple[tuple[str, ...], ...]
"""The names of the standing conditions that hold, for each set of them."""

_ANYTHING: Final[Est] = {"op": "All"}
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
        try:
            self._known.move_to_end(key)
        except KeyError:  # another thread has just dropped it
            return known
        return known

    def __len__(self) -> int:
        """How many operations are pinned, each for one standing."""
        return len(self._known)


def _size(pinned: Pinned) -> int:
    return 1 + sum(len(part.policies) for part in pinned.parts)


class _Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A standing condition, asked by itself as the permit `text`; or a moving one, which is the expression `text`."""

    text: str
    stands: bool
    as_user: bool = False
    is_volatile: bool = False


class _Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A policy taken apart: its steps in their order, and the scope on the object where that moves, both as JSON texts."""

    name: str
    resource: str
    steps: tuple[_Step, ...]
    as_user: bool


_NEVER: Final = _Step(text='{"Value":false}', stands=False)


class Apart:
    """The policies of an operation taken apart into what stands and what moves. Made once for an operation and an agent."""

    __slots__ = ("_handles", "number", "standing", "taken")

    def __init__(self, number: int, taken: tuple[_Taken, ...], handles: Handles) -> None:
        """The same `number` must mean the same policies."""
        self.number = number
        self.taken = taken
        self._handles = handles
        asked: dict[bool, dict[str, None]] = {False: {}, True: {}}
        for policy in taken:
            for step in policy.steps:
                if step.stands:
                    asked[step.as_user][step.text] = None
        self.standing = tuple(handles.shared(texts, as_user=as_user) for as_user, texts in asked.items() if texts)

    def pinned(self, answers: Answers) -> Pinned:
        """See `Pins.of`."""
        held = {
            (handle.as_user, handle.texts[name]) for handle, names in zip(self.standing, answers, strict=True) for name in names
        }
        certain: set[str] = set()
        left: dict[tuple[bool, bool], dict[str, list[str]]] = {}
        for taken in self.taken:
            rest = _left(taken, held)
            if rest is None:
                continue
            if not rest and not taken.resource:
                certain.add(taken.name)
                continue
            resource = msgspec.Raw(taken.resource) if taken.resource else _ANYTHING
            text = _permit(resource=resource, conditions=[msgspec.Raw(step.text) for step in rest])
            is_volatile = bool(taken.resource) or any(step.is_volatile for step in rest)
            left.setdefault((is_volatile, taken.as_user), {}).setdefault(text, []).append(taken.name)
        parts = []
        for (_, as_user), texts in left.items():
            parts.append(
                Part(
                    conditions=self._handles.shared(texts, as_user=as_user),
                    policies={str(index): tuple(names) for index, names in enumerate(texts.values())},
                )
            )
        return Pinned(certain=frozenset(certain), parts=tuple(parts))


class Aparts:
    """Each policy taken apart once, when it is first needed, and of the operations' those that were used most recently.

    Operations share their policies and standing conditions, which count once.
    """

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._taken: dict[tuple[Rule, bool], _Taken | None] = {}
        self._known: OrderedDict[OperationSlices, Apart | None] = OrderedDict()
        self._users: Counter[Handle] = Counter()
        self.policies = 0
        self.conditions = 0

    def of(self, slices: OperationSlices) -> Apart | None:
        """An operation's policies taken apart; None where they cannot be, and are asked as they were written.

        Raises:
            UnusableReleaseError: Cedar does not accept a policy.
        """
        try:
            known = self._known[slices]
        except KeyError:
            return self._put(slices, self._made(slices))
        try:
            self._known.move_to_end(slices)
        except KeyError:  # another thread has just dropped it
            return known
        return known

    def __len__(self) -> int:
        """How many operations are kept, each for an agent."""
        return len(self._known)

    def _made(self, slices: OperationSlices) -> Apart | None:
        rules = slices.rules
        # Each is a policy to Cedar, whatever becomes of its parts.
        parse_set({rule.policy.id: rule.est for rule in rules if not rule.is_accepted})
        for rule in rules:
            rule.is_accepted = True
        taken: list[_Taken] = []
        for rule in rules:
            one = self._take(rule, slices.action_id)
            if one is None:
                return None
            taken.append(one)
        return Apart(slices.number, tuple(taken), self._handles)

    def _take(self, rule: Rule, operation: str) -> _Taken | None:
        """A policy does not differ from operation to operation but in whether it names it."""
        key = (rule, rule.scope.actions is not None and operation in rule.scope.actions)
        try:
            return self._taken[key]
        except KeyError:
            pass
        try:
            taken: _Taken | None = _taken(rule, is_named=key[1])
        except UnpinnableError:
            taken = None
        return self._taken.setdefault(key, taken)

    def _put(self, slices: OperationSlices, apart: Apart | None) -> Apart | None:
        self._known[slices] = apart
        self._count(apart, 1)
        while len(self._known) > 1 and (self.policies > APART_MAX_POLICIES or self.conditions > APART_MAX_CONDITIONS):
            self._count(self._known.popitem(last=False)[1], -1)
        return apart

    def _count(self, apart: Apart | None, by: int) -> None:
        if apart is None:
            return
        self.policies += by * len(apart.taken)
        for handle in apart.standing:
            users = self._users[handle] + by
            if users == (by > 0):  # the first, or no longer any
                self.conditions += by * len(handle.texts)
            self._users[handle] = users
            if not users:
                del self._users[handle]


def _left(taken: _Taken, held: AbstractSet[tuple[bool, str]]) -> list[_Step] | None:
    """The conditions that are left of a policy; None when it can neither hold nor err any more."""
    rest: list[_Step] = []
    for step in taken.steps:
        if not step.stands:
            rest.append(step)
        elif (step.as_user, step.text) not in held:
            # What stands before it may err, and so it stays.
            return [*rest, _NEVER] if rest else None
    return rest


def _taken(rule: Rule, *, is_named: bool) -> _Taken:
    """Take one policy apart, for operations that its scope names or for others.

    What stands is asked together with all that stands before it, for that may be what keeps it from an error.
    """
    est: Est = msgspec.json.decode(rule.est)
    is_user = rule.policy.layer in USER_LAYERS
    principal, action, resource = (est[name] for name in ("principal", "action", "resource"))
    if rule.scope.actions is not None and (action["op"] == "in" or is_named):
        action = _ANYTHING  # it is among the operation's policies because this is so; one that `==` a group never holds
    stands = resource.get("op") == "All" or (resource.get("op") == "is" and "in" not in resource)
    scope = {"principal": principal, "action": action, "resource": resource if stands else _ANYTHING}
    steps: list[_Step] = []
    stood: list[Est] = []
    is_new = any(item != _ANYTHING for item in scope.values())
    as_user = False

    def ask() -> None:
        about_who = principal != _ANYTHING or any(map(_is_about_who, stood))
        text = _permit(**scope, conditions=stood)
        steps.append(_Step(text=sys.intern(text), stands=True, as_user=is_user and about_who))

    for part in _conjuncts(est):
        if _stands(part):
            stood.append(part)
            is_new = True
            continue
        if is_new:
            ask()
            is_new = False
        as_user = as_user or (is_user and _is_about_who(part))
        is_volatile = reads_of({"resource": _ANYTHING, "conditions": [{"body": part}]}).is_volatile
        steps.append(_Step(text=sys.intern(_text(part)), stands=False, is_volatile=is_volatile))
    if is_new:
        ask()
    return _Taken(name=rule.policy.id, resource="" if stands else _text(resource), steps=tuple(steps), as_user=as_user)


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
    *,
    conditions: Sequence[Est | msgspec.Raw],
    principal: Est = _ANYTHING,
    action: Est = _ANYTHING,
    resource: Est | msgspec.Raw = _ANYTHING,
) -> str:
    """The JSON text of a permit, whose answer is whether the conditions hold."""
    return _text(
        {
            "effect": "permit",
            "principal": principal,
            "action": action,
            "resource": resource,
            "conditions": [{"kind": "when", "body": part} for part in conditions],
        }
    )


def _text(est: Est) -> str:
    return msgspec.json.encode(est).decode()
