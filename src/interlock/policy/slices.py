"""Which policies can have a say about one operation, so that the cost of a call does not grow with the release.

For each operation and layer there are two sets: all policies, and the permits alone (which answer for a call whose forbids
have all been lifted). Capability and guard share a third, because they share a principal: one evaluation then answers both,
and is taken apart only when a forbid fires. A set is parsed when it is first asked: most calls are decided by what
`pinned.py` makes of the policies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import cedarpy
import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import PolicyRef
from interlock.core.terms import Effect, Layer
from interlock.policy.errors import ObligationError, UnusableReleaseError
from interlock.policy.obligations import Demand, parse
from interlock.policy.reads import Reads, Scope, Step, entity_types_of, reads_of, scope_of, unite
from interlock.release.model import Policy, Release

USER_LAYERS: Final = frozenset({Layer.DELEGATION, Layer.DATA})
STANDING: Final = frozenset({"agent", "user", "session", "data"})
"""The parts of the context that are the same for every call of a session to an operation, until its labels or posture move."""
GUARD_PERMIT_ID: Final = "interlock:guard"
EFFECT_GROUPS: Final = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.DESTRUCTIVE: "destructive",
    Effect.EGRESS: "egress",
}

_GUARD_PERMIT: Final = (
    '{"effect":"permit","principal":{"op":"All"},"action":{"op":"All"},"resource":{"op":"All"},"conditions":[]}'
)


class Rule:
    """A policy of the release as the engine holds it. `demands` is None when an obligation of it is unknown.

    `is_accepted`: Cedar has parsed it once.
    """

    __slots__ = ("demands", "est", "is_accepted", "is_forbid", "is_liftable", "policy", "ref", "scope", "unknown")

    def __init__(self, policy: Policy) -> None:
        est = _tree(policy.id, policy.est)
        if est.get("effect") not in ("permit", "forbid") or est["effect"] != policy.effect:
            raise UnusableReleaseError(f"policy {policy.id!r} says it is a {policy.effect!r}, its text says otherwise")
        if policy.layer is Layer.GUARD and policy.effect == "permit":
            raise UnusableReleaseError(f"policy {policy.id!r} is a permit; the guard layer holds forbids only")
        self.policy = policy
        self.est = policy.est
        self.scope: Scope = scope_of(est)
        self.is_accepted = False
        self.is_forbid = policy.effect == "forbid"
        self.is_liftable = bool(policy.approval or policy.obligations)
        self.ref = PolicyRef(id=policy.id, layer=policy.layer, effect=policy.effect, owner=policy.owner)
        self.demands: tuple[Demand, ...] | None = ()
        self.unknown = ""
        try:
            self.demands = tuple(parse(text) for text in policy.obligations)
        except ObligationError as error:
            self.demands, self.unknown = None, str(error)

    def reads(self) -> Reads:
        """What the policy reads. Decoded on demand: only the slices that are used are analysed."""
        return reads_of(_tree(self.policy.id, self.policy.est))


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What policies have to be shown: the parts of the context that stand and those that move, and the call's object."""

    standing: tuple[Step, ...]
    moving: tuple[Step, ...]
    uses_resource: bool
    is_volatile: bool
    names_users: bool


class Handle:
    """Policies to be evaluated together. `number` tells handles of one engine apart.

    `as_user`: the principal is the user with their roles, else the agent. Looked through and parsed when they are first asked.
    """

    __slots__ = ("__weakref__", "_needs", "_parsed", "as_user", "forbids", "guard_permit", "number", "permits", "texts")

    def __init__(
        self,
        number: int,
        texts: Mapping[str, str],
        *,
        as_user: bool,
        forbids: frozenset[str] = frozenset(),
        guard_permit: bool = False,
    ) -> None:
        """`texts` are the JSON texts of syntax trees by the ids of the policies; `guard_permit` adds the guard's one permit."""
        self.number = number
        self.as_user = as_user
        self.guard_permit = guard_permit
        self.forbids = forbids
        self.texts = texts
        self.permits = frozenset(texts) - forbids
        self._needs: Needs | None = None
        self._parsed: cedarpy.PolicySet | None = None

    @classmethod
    def of(cls, number: int, rules: Sequence[Rule], *, guard_permit: bool = False) -> Handle:
        """Policies of layers that share a principal, as they were written."""
        return cls(
            number,
            {rule.policy.id: rule.est for rule in rules},
            as_user=any(rule.policy.layer in USER_LAYERS for rule in rules),
            forbids=frozenset(rule.policy.id for rule in rules if rule.is_forbid),
            guard_permit=guard_permit,
        )

    @property
    def policies(self) -> cedarpy.PolicySet:
        """The parsed policies. Raises `UnusableReleaseError` when Cedar does not accept one of them."""
        if self._parsed is None:
            self._parsed = parse_set(self.texts, guard_permit=self.guard_permit)
        return self._parsed

    @property
    def needs(self) -> Needs:
        """What they have to be shown. Raises `UnusableReleaseError` for what is no policy."""
        if self._needs is None:
            ests = [_tree(name, text) for name, text in self.texts.items()]
            reads = unite(map(reads_of, ests))
            plan = reads.plan()
            self._needs = Needs(
                standing=tuple(step for step in plan if step[0] in STANDING),
                moving=tuple(step for step in plan if step[0] not in STANDING),
                uses_resource=bool(reads.resource),
                is_volatile=reads.is_volatile,
                names_users=self.as_user and "User" in entity_types_of(ests),
            )
        return self._needs


class LayerSlice:
    """The policies of one layer for one operation. `full` is None when there are none, `permits` likewise."""

    __slots__ = ("forbid_resource_reads", "full", "layer", "permits", "rules")

    def __init__(self, layer: Layer, rules: tuple[Rule, ...], handles: Handles) -> None:
        self.layer = layer
        self.rules = rules
        permits = [rule for rule in rules if not rule.is_forbid]
        forbids = [rule for rule in rules if rule.is_forbid]
        self.forbid_resource_reads = unite(rule.reads() for rule in forbids).resource
        self.permits = Handle.of(handles.next(), permits) if permits else None
        self.full = self.permits
        if forbids:
            self.full = Handle.of(handles.next(), rules, guard_permit=layer is Layer.GUARD)


class OperationSlices:
    """Everything policy can say about one operation when one agent calls it."""

    __slots__ = ("action_id", "capability_and_guard", "entities", "layers", "number", "resource_type")

    def __init__(
        self, *, contract: Contract, parents: Iterable[str], layers: dict[Layer, LayerSlice], handles: Handles
    ) -> None:
        self.number = handles.next()
        self.action_id = contract.operation
        self.resource_type = contract.resource.type if contract.resource is not None else "Tool"
        self.layers = layers
        self.entities = cedarpy.Entities.from_json_str(_action_entity(contract.operation, parents))
        capability, guard = layers[Layer.CAPABILITY], layers[Layer.GUARD]
        self.capability_and_guard = capability.full
        if guard.full is not None and capability.permits is not None:
            self.capability_and_guard = Handle.of(handles.next(), (*capability.rules, *guard.rules))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them, in the order of the layers."""
        return tuple(rule for piece in self.layers.values() for rule in piece.rules)


class Handles:
    """Counts handles, and keeps the conditions that operations share, for as long as one of them needs them."""

    __slots__ = ("_numbers", "_shared")

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._shared: WeakValueDictionary[tuple[str, ...], Handle] = WeakValueDictionary()

    def next(self) -> int:
        """The next number, from 1."""
        return next(self._numbers)

    def shared(self, texts: Iterable[str], *, as_user: bool) -> Handle:
        """A handle on these policies, which are called `0`, `1` and so on: the same one for the same texts."""
        key = ("user" if as_user else "agent", *texts)
        found = self._shared.get(key)
        if found is None:
            named = {str(index): text for index, text in enumerate(key[1:])}
            found = self._shared[key] = Handle(self.next(), named, as_user=as_user)
        return found


class Slices:
    """The policies of a release, indexed. A slice is built when it is first needed and kept.

    Their number is bounded by operations times agents that policies name.
    """

    def __init__(self, release: Release) -> None:
        self._contracts = release.contracts
        self.handles = Handles()
        self.rules: dict[str, Rule] = {}
        self._by_action: dict[str, list[Rule]] = {}
        self._everywhere: list[Rule] = []
        self.named_agents: set[str] = set()
        self._built: dict[tuple[str, frozenset[Effect], str], OperationSlices] = {}
        self._built_layers: dict[tuple[str, frozenset[Effect], Layer], LayerSlice] = {}
        for policy in release.policies:
            if policy.id in self.rules or policy.id == GUARD_PERMIT_ID:
                raise UnusableReleaseError(f"two policies are called {policy.id!r}; give each its own @id")
            rule = self.rules[policy.id] = Rule(policy)
            if rule.scope.agent is not None:
                self.named_agents.add(rule.scope.agent)
            if rule.scope.actions is None:
                self._everywhere.append(rule)
            else:
                for action in rule.scope.actions:
                    self._by_action.setdefault(action, []).append(rule)

    def of(self, contract: Contract, effects: frozenset[Effect], agent: str) -> OperationSlices:
        """The slices of an operation for an agent.

        Args:
            contract: a contract of the release.
            effects: what the call may do; effects beyond the contract's only add forbids.
            agent: who calls. Agents that no policy names share one slice.
        """
        key = (contract.operation, effects, agent if agent in self.named_agents else "")
        built = self._built.get(key)
        if built is None:
            built = self._built[key] = self._build(contract, effects, key[2])
        return built

    def _build(self, contract: Contract, effects: frozenset[Effect], agent: str) -> OperationSlices:
        own = {contract.operation, f"tool:{contract.tool}"}
        reviewed = own | {EFFECT_GROUPS[effect] for effect in contract.effects}
        possible = reviewed | {EFFECT_GROUPS[effect] for effect in effects}
        found: dict[str, Rule] = {rule.policy.id: rule for rule in self._everywhere}
        for action in possible:
            for rule in self._by_action.get(action, ()):
                if rule.is_forbid or action in reviewed:
                    found[rule.policy.id] = rule
        layers: dict[Layer, LayerSlice] = {}
        for layer in Layer:
            shared = (contract.operation, effects, layer)
            if layer in USER_LAYERS and shared in self._built_layers:
                layers[layer] = self._built_layers[shared]
                continue
            rules = tuple(
                found[name]
                for name in sorted(found)
                if found[name].policy.layer is layer and (layer in USER_LAYERS or found[name].scope.agent in (None, agent))
            )
            layers[layer] = LayerSlice(layer, rules, self.handles)
            if layer in USER_LAYERS:
                self._built_layers[shared] = layers[layer]
        parents = sorted(possible - {contract.operation})
        return OperationSlices(contract=contract, parents=parents, layers=layers, handles=self.handles)


def parse_set(ests: Mapping[str, str], *, guard_permit: bool = False) -> cedarpy.PolicySet:
    """Policies, as the JSON texts of their syntax trees by id, as a Cedar policy set that keeps their ids.

    `guard_permit` adds the guard layer's one permit.

    Raises:
        UnusableReleaseError: Cedar does not accept one of them.
    """
    members = [f"{msgspec.json.encode(name).decode()}:{est}" for name, est in ests.items()]
    if guard_permit:
        members.append(f"{msgspec.json.encode(GUARD_PERMIT_ID).decode()}:{_GUARD_PERMIT}")
    text = '{"templates":{},"templateLinks":[],"staticPolicies":{' + ",".join(members) + "}}"
    try:
        return cedarpy.PolicySet.from_json_str(text)
    except ValueError as error:
        names = ", ".join(list(ests)[:3])
        raise UnusableReleaseError(f"Cedar does not accept the policies {names}…: {error}") from error


def _tree(name: str, text: str) -> dict[str, Any]:
    try:
        est: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UnusableReleaseError(f"policy {name!r} has no readable syntax tree: {error}") from error
    return est


def _action_entity(operation: str, parents: Iterable[str]) -> str:
    entity = {
        "uid": {"type": "Action", "id": operation},
        "attrs": {},
        "parents": [{"type": "Action", "id": parent} for parent in parents],
    }
    return msgspec.json.encode([entity]).decode()
