"""How long one whole decision takes, and whether that depends on how many policies the release holds.

Every call has arguments, an object and a time that no call before it had; users and sessions take turns, so that only what
is truly the same from call to call can be remembered.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any, Final

import cedarpy

from interlock.core.contract import Contract, DecimalShape, LongShape, RecordShape, ResourceRule, StringShape
from interlock.core.decision import Allow, Facts, RequireApproval, ResourceFacts
from interlock.core.terms import Classification, Effect, Layer, Posture
from interlock.policy.engine import Engine
from interlock.release.model import Administration, ApprovalRule, Policy, Release, Task

OPERATIONS: Final = 200
POLICIES: Final = (20, 200, 2_000, 10_000)
CALLS: Final = 4_000
WARM_UP_CALLS: Final = 400
USERS: Final = 500
POLICIES_PER_OPERATION: Final = 10
OWNED = "resource has tenant && resource.tenant == context.session.tenant"
TASK = 'context.session.task == "refund-case" && context.session.environment == "prod"'


def policy(name: str, layer: Layer, text: str, **more: Any) -> Policy:
    """A policy from its Cedar text."""
    est = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    return Policy(
        id=name, layer=layer, owner="platform", effect=est["effect"], actions=None, cedar=text, est=json.dumps(est), **more
    )


def scope(principal: str, operation: str) -> str:
    """The scope of a policy on one operation."""
    return f'({principal}, action == Action::"{operation}", resource)'


def policies_of(operation: str, agent: str, number: int) -> list[Policy]:
    """What one grant with a limit, an approval, a redaction and a rate compiles to, and the odd exception."""
    bot, staff = f'principal == Agent::"{agent}"', 'principal in Role::"Support"'
    at_agent, at_staff = scope(bot, operation), scope(staff, operation)
    limit = f'context.args has amount && context.args.amount.lessThanOrEqual(decimal("{200 + number}.0"))'
    ask = f'context.args has amount && context.args.amount.greaterThan(decimal("{500 + number}.0"))'
    grantee = f'context.agent.id == "{agent}"'
    name = f"{agent}:{number}"
    found = [
        policy(f"{name}:identity", Layer.IDENTITY, f"permit {at_agent};"),
        policy(
            f"{name}:delegation",
            Layer.DELEGATION,
            f"permit {at_staff} when {{ {TASK} && {grantee} && {OWNED} }};",
        ),
        policy(f"{name}:capability", Layer.CAPABILITY, f"permit {at_agent} when {{ {limit} }};"),
        policy(f"{name}:data", Layer.DATA, f"permit {at_staff} when {{ {grantee} && context.data.rank <= 3 }};"),
        policy(f"{name}:ask", Layer.GUARD, f"forbid {at_agent} when {{ {ask} }};", approval="refunds"),
        policy(f"{name}:redact", Layer.DATA, f"forbid {at_staff} when {{ {grantee} }};", obligations=("redact:email",)),
        policy(f"{name}:night", Layer.GUARD, f'forbid {at_agent} when {{ context.session.posture == "guarded" }};'),
        policy(f"{name}:taint", Layer.GUARD, f"forbid {at_agent} when {{ context.session.tainted }};"),
        policy(f"{name}:rate", Layer.GUARD, f"forbid {at_agent};", obligations=("rate:1000/60s",)),
        policy(f"{name}:entities", Layer.GUARD, f"forbid {at_agent} when {{ context.call.entities > 50 }};"),
    ]
    return found[:POLICIES_PER_OPERATION]


def release_of(count: int) -> tuple[Release, list[str]]:
    """A release of `count` policies over 200 operations; the operations that have policies come second."""
    contracts: dict[str, Contract] = {}
    for index in range(OPERATIONS):
        operation = f"tool{index % 20}.operation{index}"
        contracts[operation] = Contract(
            operation=operation,
            tool=f"tool{index % 20}",
            upstream_name=operation,
            effects=frozenset({Effect.WRITE}),
            input_schema="{}",
            arguments=RecordShape(
                {"order_id": StringShape(), "amount": DecimalShape(), "note": StringShape(), "lines": LongShape()},
                frozenset({"order_id", "amount"}),
            ),
            resource=ResourceRule(
                type="Order", id_argument="order_id", read="orders.get", attributes={"tenant": "string", "open": "bool"}
            ),
            classification=Classification.PII,
            reviewed_by="ana",
        )
    names = list(contracts)
    policies: list[Policy] = []
    governed: list[str] = []
    number = 0
    while len(policies) < count:
        operation = names[number % OPERATIONS]
        policies += policies_of(operation, f"bot{number // OPERATIONS}", number)
        if number < OPERATIONS:
            governed.append(operation)
        number += 1
    release = Release(
        name="bench",
        digest="sha256:bench",
        files={},
        owners={},
        user_attributes={},
        administration=Administration(),
        identities=(),
        tasks={"refund-case": Task(name="refund-case", purpose="support", open_to=("Support",), agents=("bot0",))},
        tools={},
        contracts=contracts,
        approvals={"refunds": ApprovalRule(name="refunds", role="Approver")},
        policies=tuple(policies),
        cedar_schema="",
    )
    return release, governed


def facts_of(call: int, operation: str) -> Facts:
    """One call's facts: no two are alike."""
    user = f"user{call % USERS}"
    order = f"A{call}"
    arguments = {"amount": f"{call % 199}.{call % 100:02d}", "lines": call % 7, "note": f"call {call}", "order_id": order}
    return Facts(
        operation=operation,
        arguments=json.dumps(arguments, sort_keys=True, separators=(",", ":")),
        call_hash=f"sha256:{call:064x}",
        effects=frozenset({Effect.WRITE}),
        classification=Classification.PII,
        entities=1,
        agent="bot0",
        user=user,
        tenant="acme",
        environment="prod",
        task="refund-case",
        purpose="support",
        roles=("Support",),
        attributes={},
        session_id=f"ses_{call % USERS}",
        posture=Posture.NORMAL,
        tainted=False,
        confidentiality=0,
        resource=ResourceFacts(type="Order", id=order, attributes={"tenant": "acme", "open": True}),
        now_us=1_700_000_000_000_000 + call * 1_000_003,
    )


def measure(count: int) -> dict[str, Any]:
    """Latency of decisions, in microseconds, with `count` policies loaded."""
    release, governed = release_of(count)
    started = time.perf_counter()
    engine = Engine(release)
    loaded_s = time.perf_counter() - started
    engine.warm()
    warmed_s = time.perf_counter() - started
    took: list[float] = []
    gc.collect()
    for call in range(WARM_UP_CALLS + CALLS):
        facts = facts_of(call, governed[call % len(governed)])
        before = time.perf_counter_ns()
        decision = engine.decide(facts)
        after = time.perf_counter_ns()
        if not isinstance(decision, Allow | RequireApproval):
            raise SystemExit(f"the bench expects an Allow, not {decision}")
        if call >= WARM_UP_CALLS:
            took.append((after - before) / 1000)
    took.sort()
    return {
        "bench": "decision",
        "policies": count,
        "operations": OPERATIONS,
        "p50_us": round(took[len(took) // 2], 1),
        "p99_us": round(took[len(took) * 99 // 100], 1),
        "load_ms": round(loaded_s * 1000, 1),
        "warm_ms": round(warmed_s * 1000, 1),
    }


def run() -> list[dict[str, Any]]:
    """One row for each size of release."""
    return [measure(count) for count in POLICIES]


if __name__ == "__main__":
    for row in run():
        sys.stdout.write(json.dumps(row) + "\n")
