"""A slow twin of the engine: every layer asked apart, with all of its policies and the whole context."""

from __future__ import annotations

import json

import cedarpy

from interlock.core.decision import Facts
from interlock.core.terms import Effect, Layer, Posture
from interlock.policy.encoding import ArgumentEncoder, now_section, resource_attributes, sections
from interlock.policy.errors import ObligationError
from interlock.policy.obligations import parse
from interlock.release.model import Policy, Release

GROUPS = {Effect.READ: "reads", Effect.WRITE: "writes", Effect.DESTRUCTIVE: "destructive", Effect.EGRESS: "egress"}


def decide_plainly(release: Release, facts: Facts) -> str:
    """`deny`, `Allow` or `RequireApproval`."""
    contract = release.contracts[facts.operation]
    context = {
        **sections(facts, contract, release.user_attributes),
        "args": ArgumentEncoder(contract).encode(facts.arguments),
        "now": now_section(facts.now_us),
    }
    assert facts.resource is not None
    groups = [GROUPS[effect] for effect in contract.effects] + [f"tool:{contract.tool}"]
    entities = json.dumps(
        [
            entity("Action", facts.operation, [("Action", group) for group in groups]),
            entity("User", facts.user, [("Role", role) for role in facts.roles]),
            {**entity(facts.resource.type, facts.resource.id, []), "attrs": resource_attributes(contract, facts.resource)},
        ]
    )
    asks = False
    for layer in Layer:
        agent = layer in {Layer.IDENTITY, Layer.CAPABILITY, Layer.GUARD}
        request = {
            "principal": uid("Agent", facts.agent) if agent else uid("User", facts.user),
            "action": uid("Action", facts.operation),
            "resource": uid(facts.resource.type, facts.resource.id),
            "context": json.dumps(context),
        }
        policies = [policy for policy in release.policies if policy.layer is layer]
        fired = [policy for policy in policies if fires(policy, request, entities)]
        if None in [fires(policy, request, entities) for policy in policies]:
            return "deny"
        if layer is not Layer.GUARD and not any(policy.effect == "permit" for policy in fired):
            return "deny"
        for policy in fired:
            if policy.effect == "permit":
                continue
            if not policy.approval and not policy.obligations:
                return "deny"
            if "read-only" in policy.obligations and facts.effects != {Effect.READ}:
                return "deny"
            try:
                [parse(text) for text in policy.obligations]
            except ObligationError:
                return "deny"
            asks = asks or bool(policy.approval)
    if facts.posture is Posture.GUARDED and facts.effects != {Effect.READ}:
        if not release.guarded:
            return "deny"
        asks = True
    return "RequireApproval" if asks else "Allow"


def fires(policy: Policy, request: dict[str, object], entities: str) -> bool | None:
    """Whether the policy holds; None when it errors."""
    text = policy.cedar.replace("forbid", "permit", 1)
    result = cedarpy.is_authorized(request, text, entities)
    return None if result.diagnostics.errors else result.allowed


def uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def entity(kind: str, name: str, parents: list[tuple[str, str]]) -> dict[str, object]:
    return {"uid": uid(kind, name), "attrs": {}, "parents": [uid(*parent) for parent in parents]}
