"""What is kept of policies that are taken apart: each once, and of operations and agents a bounded number."""

from __future__ import annotations

from unittest.mock import patch

import msgspec
import pytest

from interlock.core.decision import Allow, Deny, Facts
from interlock.policy import pinned
from interlock.policy.engine import Engine
from interlock.policy.prepared import Prepared
from tests.policy import world
from tests.policy.world import forbid, policy, refund

AGENTS = [f"bot{number}" for number in range(6)]
OPERATIONS = [msgspec.structs.replace(world.REFUND, operation=f"payments.refund{number}") for number in range(8)]


def many() -> tuple[Engine, list[Facts]]:
    """Agents and operations with policies of their own and shared ones, and a call of each agent to each operation."""
    names = ", ".join(f'Action::"{contract.operation}"' for contract in OPERATIONS)
    made = [
        *(item for item in world.permits() if item.id not in {"identity", "capability"}),
        policy("identity", "permit (principal, action, resource);", "identity"),
        policy("capability", f"permit (principal, action in [{names}], resource);", "capability"),
        forbid("data", 'context.user has team && context.user.team == "south" && context.call.entities > 0', "south"),
    ]
    for number, (agent, contract) in enumerate(zip(AGENTS, OPERATIONS, strict=False)):
        at = f'(principal == Agent::"{agent}", action == Action::"{contract.operation}", resource)'
        made.append(policy("guard", f"forbid {at} when {{ context.session.tainted }};", f"own{number}"))
        at = f'(principal, action == Action::"{contract.operation}", resource)'
        made.append(policy("data", f'forbid {at} when {{ context.user.team == "t{number}" }};', f"team{number}"))
    engine = Engine(world.release(*made, contracts={contract.operation: contract for contract in OPERATIONS}))
    calls = [refund(operation=contract.operation, agent=agent, tainted=True) for agent in AGENTS for contract in OPERATIONS]
    return engine, calls


def test_each_policy_is_taken_apart_once_however_many_agents_call_however_many_operations() -> None:
    engine, calls = many()
    with patch.object(pinned, "_taken", wraps=pinned._taken) as taken:
        for one in calls:
            engine.decide(one)
    aparts = engine.prepared.aparts
    assert len(aparts) == len(calls)
    assert taken.call_count == len(engine.release.policies)
    assert aparts.policies > 5 * taken.call_count  # each is kept once, and referred to
    # The standing conditions of the agents' layers, of the own policies, and of the users' layers of each operation.
    assert aparts.conditions <= 2 * len(engine.release.policies) + 3 * len(OPERATIONS)


@pytest.mark.parametrize(("name", "bound"), [("APART_MAX_POLICIES", 40), ("APART_MAX_CONDITIONS", 12)])
def test_what_is_kept_taken_apart_is_bounded_whoever_probes_whatever_operations(name: str, bound: int) -> None:
    engine, calls = many()
    with patch.object(Prepared, "apart", return_value=None):  # as they were written
        expected = [engine.decide(one) for one in calls]
    assert {type(decision) for decision in expected} == {Allow, Deny}
    aparts = engine.prepared.aparts
    with patch.object(pinned, name, bound):
        for _ in range(2):
            for one, decision in zip(calls, expected, strict=True):
                assert engine.decide(one) == decision
                assert getattr(aparts, name.removeprefix("APART_MAX_").lower()) <= bound
        assert 0 < len(aparts) < len(calls)
        assert len(engine.prepared.slices.handles._shared) <= 12 + len(engine.prepared.pins)
