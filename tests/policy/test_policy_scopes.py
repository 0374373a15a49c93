"""An agent's rights are per operation, so reading is not writing, and per environment, so staging is not prod."""

import json

import pytest

from interlock.core.decision import Allow, Deny
from interlock.core.terms import Effect, Question
from interlock.policy.engine import Engine
from interlock.policy.testing import facts_of
from interlock.release.load import from_files
from interlock.release.model import PolicyTest
from tests.support.shop import FILES

AGENTS = """
bot:
  staging: {issuer: interlock-dev, subject: bot@staging}
  prod: {issuer: interlock-dev, subject: bot@prod}
  grants:
    - {on: shop.stock, for: &staff {roles: [Staff], task: selling}}
    - {on: [shop.pay, shop.note, shop.slow, shop.boom, shop.hurried, shop.wild, shop.order], for: *staff, environments: [staging]}
    - {on: shop.person, for: *staff, environments: [staging], data: {max: pii}}
    - {on: shop.refund, for: *staff, environments: [staging]}
reader:
  staging: {issuer: interlock-dev, subject: reader}
  grants:
    - {on: [shop.stock, shop.order], for: *staff}
"""
ARGUMENTS = {"item": "tea", "order_id": "A1", "amount": "1.00", "text": "x", "person_id": 1}
RELEASE = from_files({**FILES, "agents.yaml": AGENTS, "tasks.yaml": FILES["tasks.yaml"].replace("idle", "reader")})
ENGINE = Engine(RELEASE)
CALLABLE = sorted(name for name, contract in RELEASE.contracts.items() if not contract.internal)


def decided(agent, operation, environment):
    contract = RELEASE.contracts[operation]
    arguments = {name: ARGUMENTS[name] for name in contract.arguments.required}
    case = PolicyTest(
        name="x", call=operation, args=json.dumps(arguments), roles=("Staff",), expect="", agent=agent, environment=environment,
        task="selling", resource={"team": "north"} if contract.resource else None,
    )  # fmt: skip
    return ENGINE.decide(facts_of(ENGINE, case))


@pytest.mark.parametrize("operation", CALLABLE)
def test_an_agent_that_may_read_may_not_write_though_the_user_may(operation):
    answer = decided("reader", operation, "staging")
    if operation in {"shop.stock", "shop.order"}:
        assert isinstance(answer, Allow), answer
    else:
        assert isinstance(answer, Deny)
        assert answer.question is Question.MAY_THE_AGENT
    if Effect.WRITE in RELEASE.contracts[operation].effects:
        assert isinstance(answer, Deny)


@pytest.mark.parametrize("operation", CALLABLE)
def test_what_an_agent_may_in_staging_it_may_not_in_prod_unless_it_was_said(operation):
    assert isinstance(decided("bot", operation, "staging"), Allow)
    in_prod = decided("bot", operation, "prod")
    assert isinstance(in_prod, Allow if operation == "shop.stock" else Deny)
