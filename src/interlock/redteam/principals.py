"""Who could make a call at all: the best case for the attacker, found by asking the release's own engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.contract import Contract
from interlock.core.decision import Allow, Decision, Deny, RequireApproval
from interlock.core.terms import Origin, Question
from interlock.core.who import AttributeValue
from interlock.policy.engine import Engine
from interlock.policy.errors import PolicyError
from interlock.policy.testing import facts_of
from interlock.redteam.model import Principal
from interlock.redteam.values import baseline, hints
from interlock.release.model import PolicyTest, Release

VICTIM: Final = "someone"
GROUP: Final = "alpha"
DEFAULT_TENANT: Final = "some-tenant"
_ROLE: Final = re.compile(r'Role::"([^"]+)"')
_OWNER: Final = re.compile(r"owner|user|created_by|author|assignee", re.IGNORECASE)
_RANK: Final = {"allow": 0, "ask": 1, "deny": 2}


class Casting:
    """Finds principals in one release and environment."""

    def __init__(self, engine: Engine, environment: str) -> None:
        self._engine = engine
        self._release = engine.release
        self._environment = environment

    @property
    def release(self) -> Release:
        """The release that is attacked."""
        return self._release

    @property
    def engine(self) -> Engine:
        """The engine that says who may do what."""
        return self._engine

    def agents(self) -> tuple[str, ...]:
        """The agents that have an identity here."""
        return tuple(dict.fromkeys(item.agent for item in self._release.identities if item.environment == self._environment))

    def best(self, contract: Contract) -> Principal | None:
        """Whoever may make this call most freely when the user asks for it; None when no arguments can be made up."""
        return min(self._candidates(contract), key=lambda found: (_RANK[found.expected], -found.question), default=None)

    def waiting(self, contract: Contract) -> Principal | None:
        """Whoever may make this call once a person has said yes; None when nothing here is put to people."""
        return next((found for found in self._candidates(contract) if found.expected == "ask"), None)

    def is_granted(self, contract: Contract, principal: Principal) -> bool:
        """Whether any agent here may run the operation at all; when not, there is only that one thing to try."""
        for agent in self.agents():
            decision = self.decide(msgspec.structs.replace(principal, agent=agent), contract)
            if not isinstance(decision, Deny) or decision.question is not Question.MAY_THE_AGENT:
                return True
        return False

    def as_well(self, principal: Principal, contract: Contract) -> Principal | None:
        """The same agent for the same user making another call; None when they may not."""
        found = [
            self._judged(msgspec.structs.replace(principal, arguments=arguments, resource=resource), contract)
            for arguments in self._arguments(contract)
            for resource in _resources(contract, principal.tenant, principal.attributes)
        ]
        return next((item for item in found if item.expected == "allow"), None)

    def _candidates(self, contract: Contract) -> Iterator[Principal]:
        yield from self._from_tests(contract)
        for arguments in self._arguments(contract):
            for agent, task, roles in self._who():
                tenant = next(iter(self._release.administration.operated_by), DEFAULT_TENANT)
                attributes = _attributes(self._release.user_attributes)
                for resource in _resources(contract, tenant, attributes):
                    found = Principal(
                        agent=agent,
                        environment=self._environment,
                        task=task,
                        tenant=tenant,
                        roles=roles,
                        attributes=attributes,
                        arguments=arguments,
                        resource=resource,
                        expected="deny",
                    )
                    judged = self._judged(found, contract)
                    yield judged
                    if judged.expected == "allow":
                        return

    def _arguments(self, contract: Contract) -> Iterator[Mapping[str, JsonValue]]:
        for test in self._release.tests:
            if test.call == contract.operation and not test.expect.startswith("deny"):
                yield json.loads(test.args)
        made = baseline(contract, hints(self._release.policies, contract.operation))
        if made is not None:
            yield made

    def _from_tests(self, contract: Contract) -> Iterator[Principal]:
        """What the release's own tests say is allowed is the likeliest good case."""
        for test in self._release.tests:
            if test.call != contract.operation or test.expect.startswith("deny"):
                continue
            if test.environment not in {"", self._environment} or test.agent not in {"", *self.agents()}:
                continue
            try:
                facts = facts_of(self._engine, msgspec.structs.replace(test, environment=self._environment))
            except (PolicyError, ValueError):
                continue
            if facts.agent not in self.agents():
                continue
            resource = {} if facts.resource is None else dict(facts.resource.attributes or {})
            found = Principal(
                agent=facts.agent,
                environment=self._environment,
                task=facts.task,
                tenant=facts.tenant,
                roles=facts.roles,
                attributes=facts.attributes,
                arguments=json.loads(facts.arguments),
                resource={name: VICTIM if value == test.user else value for name, value in resource.items()},
                expected="deny",
            )
            yield self._judged(found, contract)

    def _who(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        for agent in self.agents():
            for task in self._release.tasks.values():
                if agent not in task.agents:
                    continue
                for role in task.open_to:
                    yield agent, task.name, (role,)
                everything = {role for policy in self._release.policies for role in _ROLE.findall(policy.cedar)}
                yield agent, task.name, tuple(sorted({*task.open_to, *everything}))

    def _judged(self, principal: Principal, contract: Contract) -> Principal:
        decision = self.decide(principal, contract)
        question = int(decision.question) if isinstance(decision, Deny) else 0
        return msgspec.structs.replace(principal, expected=_word(decision), question=question)

    def decide(self, principal: Principal, contract: Contract) -> Decision | None:
        """What the engine says when the user asks for this, first thing in a session; None when it cannot be asked."""
        test = PolicyTest(
            name="best case",
            call=contract.operation,
            args=json.dumps(principal.arguments),
            roles=principal.roles,
            expect="allow",
            agent=principal.agent,
            user=VICTIM,
            tenant=principal.tenant,
            environment=principal.environment,
            task=principal.task,
            attributes=dict(principal.attributes),
            resource=None if contract.resource is None else dict(principal.resource),
            provenance=dict.fromkeys((*contract.targets, *contract.content), Origin.USER),
        )
        try:
            return self._engine.decide(facts_of(self._engine, test))
        except (PolicyError, ValueError):
            return None


def _word(decision: Decision | None) -> str:
    match decision:
        case Allow():
            return "allow"
        case RequireApproval():
            return "ask"
        case Deny() | None:
            return "deny"


def _attributes(declared: Mapping[str, str]) -> dict[str, AttributeValue]:
    values: dict[str, AttributeValue] = {"set": (GROUP,), "string": GROUP, "long": 1, "bool": True}
    return {name: values[kind] for name, kind in declared.items() if kind in values}


def _resources(
    contract: Contract, tenant: str, attributes: Mapping[str, AttributeValue]
) -> Iterable[Mapping[str, AttributeValue]]:
    """Objects that may be this user's: of their tenant, of a group that they are in, or their own."""
    if contract.resource is None:
        return ({},)
    groups = [value[0] for value in attributes.values() if isinstance(value, tuple) and value]
    group = groups[0] if groups else GROUP
    made: list[dict[str, AttributeValue]] = []
    for number, flag in ((1, False), (0, True)):
        one: dict[str, AttributeValue] = {}
        for name, kind in contract.resource.attributes.items():
            text = tenant if name == "tenant" else VICTIM if _OWNER.search(name) else group
            by_kind: dict[str, AttributeValue] = {
                "string": text, "set": (group,), "long": number, "bool": flag, "decimal": f"{number * 1000}.00",
                "datetime": f"{9998 if number else 2000}-01-01T00:00:00Z",
            }  # fmt: skip
            one[name] = by_kind.get(kind, text)
        made.append(one)
    return made
