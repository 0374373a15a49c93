"""A small release built by hand: one agent, two operations, and whatever policies a test adds."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import msgspec

from interlock.core.contract import (
    BoolShape,
    Contract,
    DecimalShape,
    LongShape,
    OpaqueShape,
    RecordShape,
    ResourceRule,
    SetShape,
    StringShape,
)
from interlock.core.decision import Facts, ResourceFacts
from interlock.core.terms import Classification, Effect, Layer, Posture
from interlock.policy.engine import Engine
from interlock.release.model import Administration, AgentIdentity, ApprovalRule, Policy, PolicyTest, Release, Task

REFUND = Contract(
    operation="payments.refund",
    tool="payments",
    upstream_name="refund",
    effects=frozenset({Effect.WRITE}),
    input_schema="{}",
    arguments=RecordShape(
        {
            "order_id": StringShape(),
            "amount": DecimalShape(),
            "currency": StringShape(),
            "lines": SetShape(LongShape()),
            "urgent": BoolShape(),
            "count": LongShape(),
            "address": RecordShape({"city": StringShape(), "zip": StringShape()}, frozenset({"city"})),
            "anything": OpaqueShape(),
        },
        frozenset({"order_id", "amount"}),
    ),
    resource=ResourceRule(
        type="Order",
        id_argument="order_id",
        read="orders.get",
        attributes={"tenant": "string", "refunded": "bool", "total": "decimal", "tags": "set", "lines": "long"},
    ),
    classification=Classification.CONFIDENTIAL,
    reviewed_by="ana",
)
SEARCH = Contract(
    operation="docs.search",
    tool="docs",
    upstream_name="search",
    effects=frozenset({Effect.READ}),
    input_schema="{}",
    arguments=RecordShape({"query": StringShape()}, frozenset({"query"})),
    reviewed_by="ana",
)

ORDER = ResourceFacts(
    type="Order",
    id="A1",
    attributes={"tenant": "acme", "refunded": False, "total": "100.00", "tags": ("vip",), "lines": 3},
)


def policy(layer: Layer | str, text: str, name: str = "", **more: Any) -> Policy:
    est = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    layer = Layer(layer)
    return Policy(
        id=name or f"{layer}:{text[:40]}",
        layer=layer,
        owner="platform",
        effect=est["effect"],
        actions=None,
        cedar=text,
        est=json.dumps(est),
        **more,
    )


def permits() -> tuple[Policy, ...]:
    """One permit for each layer that needs one, the way a grant would compile."""
    return (
        policy("identity", 'permit (principal == Agent::"bot", action, resource);', "identity"),
        policy(
            "delegation",
            'permit (principal in Role::"Support", action, resource) when {'
            ' context.session.environment == "prod" && context.session.task == "refund-case" };',
            "delegation",
        ),
        policy("capability", 'permit (principal == Agent::"bot", action, resource);', "capability"),
        policy("data", 'permit (principal in Role::"Support", action, resource) when { context.data.rank <= 2 };', "data"),
    )


def forbid(layer: str, condition: str = "true", name: str = "no", **more: Any) -> Policy:
    return policy(layer, f"forbid (principal, action, resource) when {{ {condition} }};", name, **more)


def release(*policies: Policy, tests: tuple[PolicyTest, ...] = (), **more: Any) -> Release:
    values: dict[str, Any] = {
        "name": "world",
        "digest": "sha256:world",
        "files": {},
        "owners": {},
        "user_attributes": {"limit": "long", "team": "string", "sites": "set", "senior": "bool"},
        "administration": Administration(),
        "identities": (AgentIdentity(agent="bot", environment="prod", issuer="dev", subject="bot"),),
        "tasks": {"refund-case": Task(name="refund-case", purpose="support", open_to=("Support",), agents=("bot",))},
        "tools": {},
        "contracts": {contract.operation: contract for contract in (REFUND, SEARCH)},
        "approvals": {
            "refunds": ApprovalRule(name="refunds", role="RefundApprover", show=("order_id",)),
            "mail": ApprovalRule(name="mail", role="MailApprover"),
        },
        "policies": policies,
        "cedar_schema": "",
        "tests": tests,
    }
    return Release(**{**values, **more})


def engine(*more: Policy, **changes: Any) -> Engine:
    """An engine whose release allows everything, but for what the extra policies say."""
    return Engine(release(*permits(), *more, **changes))


REFUND_FACTS = Facts(
    operation="payments.refund",
    arguments='{"amount":80,"order_id":"A1"}',
    call_hash="sha256:" + "0" * 64,
    effects=frozenset({Effect.WRITE}),
    classification=Classification.CONFIDENTIAL,
    entities=1,
    agent="bot",
    user="sam",
    tenant="acme",
    environment="prod",
    task="refund-case",
    purpose="support",
    roles=("Support",),
    attributes={"limit": 100, "team": "north", "sites": ("ams", "ber")},
    session_id="ses_1",
    posture=Posture.NORMAL,
    tainted=False,
    confidentiality=0,
    resource=ORDER,
    now_us=1_767_614_400_123_456,
)
SEARCH_FACTS = msgspec.structs.replace(
    REFUND_FACTS,
    operation="docs.search",
    arguments='{"query":"tea"}',
    effects=frozenset({Effect.READ}),
    classification=Classification.INTERNAL,
    resource=None,
)


def refund(arguments: str | None = None, **changes: Any) -> Facts:
    if arguments is not None:
        changes["arguments"] = arguments
    return msgspec.structs.replace(REFUND_FACTS, **changes)


def search(**changes: Any) -> Facts:
    return msgspec.structs.replace(SEARCH_FACTS, **changes)
