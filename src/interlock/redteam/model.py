"""The words of a red-team run: attacks, their attempts, what became of each, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.who import AttributeValue


class Outcome(StrEnum):
    """What became of an attempt or an attack, from good to bad; of several attempts the worst counts.

    `human`: it only reached a person, who must say no. `broken`: the kit itself could not try it, which proves nothing.
    """

    STOPPED = "stopped"
    HUMAN = "human"
    BROKEN = "broken"
    OPEN = "open"


class Family(StrEnum):
    """Kinds of attack."""

    HIJACK = "hijack"
    MEMORY = "memory"
    CONTENT = "content"
    CHAIN = "chain"
    DEPUTY = "deputy"
    TOKEN = "token"  # noqa: S105  # a kind of attack, no secret
    LISTING = "listing"
    LOOP = "loop"
    REPEAT = "repeat"
    APPROVAL = "approval"
    DELEGATION = "delegation"
    ROGUE = "rogue"


class StoppedBy(StrEnum):
    """What kept an attempt from running."""

    IDENTITY = "identity"
    CONTRACT = "contract"
    GRANT = "grant"
    POLICY = "policy"
    PROVENANCE = "provenance"
    CHAIN = "chain"
    PLAN = "plan"
    POSTURE = "posture"
    BUDGET = "budget"
    APPROVAL = "approval"
    PIN = "pin"
    IDEMPOTENCY = "idempotency"
    KILL = "kill"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who the hijacked agent is and acts for, and what it would have to send: the best that the release lets anybody do.

    `arguments` go through when the user asks for them; `resource` are the object's attributes that make them. `expected` is
    `allow` or `ask` then; with `deny` nobody at all was found who may make this call, and `question` is the last of the seven
    that anybody came to.
    """

    agent: str
    environment: str
    task: str
    tenant: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    arguments: Mapping[str, JsonValue]
    resource: Mapping[str, AttributeValue]
    expected: str
    question: int = 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try, and what became of it. `by` is what stopped it or asked people, `rules` the policies, budgets or controls.

    `code` is what the agent was told, `call_id` where the trace tells the rest, `detail` more for operators.
    """

    name: str
    outcome: Outcome
    operation: str = ""
    arguments: str = ""
    by: StoppedBy | None = None
    code: str = ""
    rules: tuple[str, ...] = ()
    call_id: str = ""
    detail: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One attack with all its attempts. `advice` says how an open one is closed; `note` what to know about the result."""

    id: str
    family: Family
    risk: str
    title: str
    story: str
    agent: str
    environment: str
    operation: str
    outcome: Outcome
    attempts: tuple[Attempt, ...]
    advice: str = ""
    note: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was tried on one release. `real_calls` is always 0: the tools were recorders."""

    release: str
    digest: str
    environments: tuple[str, ...]
    findings: tuple[Finding, ...]
    untried: tuple[str, ...] = ()
    recorded_calls: int = 0
    real_calls: int = 0

    def count(self, outcome: Outcome) -> int:
        """How many attacks ended so."""
        return sum(finding.outcome is outcome for finding in self.findings)

    @property
    def is_closed(self) -> bool:
        """Whether every attack was tried and none is open."""
        return not self.count(Outcome.OPEN) and not self.count(Outcome.BROKEN)


_ORDER = tuple(Outcome)


def worst(attempts: tuple[Attempt, ...]) -> Outcome:
    """The worst of several outcomes; of none, `broken`: what was not tried is not stopped."""
    return max((attempt.outcome for attempt in attempts), key=_ORDER.index, default=Outcome.BROKEN)


def found(
    family: Family,
    risk: str,
    principal: Principal,
    title: str,
    story: str,
    attempts: tuple[Attempt, ...],
    *,
    operation: str = "",
    advice: str = "this is no matter of the release: report it as a defect of Interlock",
) -> Finding:
    """What became of attempts by a principal, on one operation or on none. `advice` is given when one of them is open."""
    outcome = worst(attempts)
    return Finding(
        id=f"{family.value}:{principal.environment}:{principal.agent}" + (f":{operation}" if operation else ""),
        family=family,
        risk=risk,
        title=title,
        story=story,
        agent=principal.agent,
        environment=principal.environment,
        operation=operation,
        outcome=outcome,
        attempts=attempts,
        advice=advice if outcome is Outcome.OPEN else "",
    )
