"""Runs the tests that a release carries: a request and its facts on one side, what must be decided on the other.

What a test leaves out is filled in so that the release itself answers: the one agent and task that fit, `prod` where the
agent runs there, a fixed Monday at noon. A test that fits nothing fails and says what to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from interlock.core.budget import units_of
from interlock.core.canonical import JsonValue, canonical, digest, parse_strict
from interlock.core.contract import Contract
from interlock.core.decision import Allow, Decision, Deny, Facts, Obligations, RequireApproval, ResourceFacts, Traced
from interlock.core.history import Form, Recalled
from interlock.core.plan import Planned
from interlock.core.terms import Layer, Posture
from interlock.core.who import AttributeValue
from interlock.policy.encoding import MAX_ARGUMENT_BYTES
from interlock.policy.engine import Engine
from interlock.policy.errors import ObligationError, PolicyError
from interlock.policy.explain import Explanation
from interlock.policy.history import nothing, shown
from interlock.policy.obligations import NONE, fill, meet, parse
from interlock.release.model import PolicyTest, Release

DEFAULT_NOW_US: Final = 1_767_614_400_000_000  # Monday, 2026-01-05 12:00 UTC
DEFAULT_TENANT: Final = "some-tenant"
DEFAULT_ENVIRONMENT: Final = "prod"
SESSION_KEYS: Final = frozenset({"posture", "tainted", "confidentiality", "id", "now"})


class PolicyTestError(PolicyError):
    """A test cannot be run as it is written; the message says what to add or correct."""


class PolicyTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one test. `why` says, line by line, how the decision differs; empty when it passed."""

    name: str
    place: str
    passed: bool
    expected: str
    got: str
    why: str = ""


def run_tests(release: Release) -> tuple[PolicyTestResult, ...]:
    """Run every test of a release.

    Raises:
        UnusableReleaseError: the release cannot decide anything.
    """
    engine = Engine(release)
    return tuple(run_test(engine, test) for test in release.tests)


def explanations(engine: Engine, tests: Iterable[PolicyTest]) -> Iterator[Explanation]:
    """What every policy had to say about each test; tests that cannot be run as they are written are left out."""
    for test in tests:
        try:
            facts = facts_of(engine, test)
        except (PolicyError, ValueError):
            continue
        yield engine.explain(facts)


def run_test(engine: Engine, test: PolicyTest) -> PolicyTestResult:
    """Run one test. Never raises for how the test is written: then it fails and says why."""
    place = f"{test.file}:{test.line}" if test.file else ""
    try:
        facts = facts_of(engine, test)
        decision = engine.decide(facts)
        differences = _differences(test, facts, decision)
    except (PolicyError, ValueError) as error:
        return PolicyTestResult(name=test.name, place=place, passed=False, expected=test.expect, got="not run", why=str(error))
    if differences:
        differences.append(engine.explain(facts).text())
    return PolicyTestResult(
        name=test.name,
        place=place,
        passed=not differences,
        expected=test.expect,
        got=_told(decision),
        why="\n".join(differences),
    )


def render(results: tuple[PolicyTestResult, ...]) -> str:
    """The results for a person: a line for each test, the differences below it, the count last."""
    lines: list[str] = []
    for result in results:
        lines.append(f"{'pass' if result.passed else 'FAIL'}  {result.name}" + (f"  ({result.place})" if result.place else ""))
        lines += [f"      {line}" for line in result.why.splitlines()]
    failed = sum(not result.passed for result in results)
    lines.append(f"{len(results)} tests, {failed} failed" if failed else f"{len(results)} tests, all passed")
    return "\n".join(lines)


def facts_of(engine: Engine, test: PolicyTest) -> Facts:
    """The facts a test describes, with what it leaves out filled in.

    Raises:
        PolicyTestError: the release leaves open what is meant, or the test names what it does not have.
    """
    release = engine.release
    contract = release.contracts.get(test.call)
    if contract is None:
        raise PolicyTestError(f"there is no operation {test.call!r} in this release")
    if unknown := set(test.session) - SESSION_KEYS:
        raise PolicyTestError(f"session may hold {', '.join(sorted(SESSION_KEYS))}, not {', '.join(sorted(unknown))}")
    arguments = parse_strict(test.args, max_bytes=MAX_ARGUMENT_BYTES)
    agent = test.agent or _agent(engine, contract)
    task = test.task or _task(release, agent, test.roles)
    text = canonical(arguments)
    entities = contract.entities_in(arguments) if isinstance(arguments, dict) else None
    if entities is None:
        raise PolicyTestError(f"the arguments do not say how many entities {test.call} affects")
    return Facts(
        operation=test.call,
        arguments=text.decode(),
        call_hash=digest(test.call.encode() + b"\n" + text),
        effects=contract.effects,
        classification=contract.classification,
        entities=entities,
        agent=agent,
        user=test.user,
        tenant=test.tenant or DEFAULT_TENANT,
        environment=test.environment or _environment(release, agent),
        task=task,
        purpose=release.tasks[task].purpose if task in release.tasks else "",
        roles=test.roles,
        attributes={name: _attribute_value(name, value) for name, value in test.attributes.items()},
        session_id=str(test.session.get("id", "ses_test")),
        posture=Posture(str(test.session.get("posture", Posture.NORMAL.value))),
        tainted=test.session.get("tainted", False) is True,
        confidentiality=_rank(test.session.get("confidentiality", 0)),
        resource=_resource(contract, arguments, test.resource),
        now_us=_time(test.session.get("now")),
        provenance={name: Traced(origin=origin) for name, origin in test.provenance.items()},
        plan=_plan(test.plan),
        history=_history(release, test.history),
    )


def _plan(given: Mapping[str, bool] | None) -> Planned | None:
    """How a call stands to its plan: what is said of one thing holds for all that it implies."""
    if given is None:
        return None
    if unknown := set(given) - {"operation", "agrees", "fixed"}:
        raise PolicyTestError(f"plan may hold operation, agrees and fixed, not {', '.join(sorted(unknown))}")
    fixed = given.get("fixed", False)
    agrees = given.get("agrees", fixed)
    operation = given.get("operation", agrees)
    if (fixed and not agrees) or (agrees and not operation):
        raise PolicyTestError("a call whose targets are fixed agrees with the plan, and one that agrees is in it")
    return Planned(sealed=True, operation=operation, agrees=agrees, fixed=fixed)


def _history(release: Release, given: Mapping[str, bool | int | str]) -> dict[str, Recalled]:
    """What the declared facts say: nothing has happened, but for what the test says."""
    known = {fact.name: fact for fact in release.history}
    if unknown := set(given) - known.keys():
        raise PolicyTestError(f"history.yaml declares no {', '.join(sorted(unknown))}")
    found = {name: nothing(fact) for name, fact in known.items()}
    for name, value in given.items():
        amount = units_of(value) if known[name].form is Form.SUM else None
        fits = amount is not None if known[name].form is Form.SUM else type(value) is type(found[name].value)
        if not fits:
            raise PolicyTestError(f"history {name}: {value!r} is not what a {known[name].form} says")
        found[name] = Recalled(value=value if amount is None else shown(amount))
    return found


def _agent(engine: Engine, contract: Contract) -> str:
    known = sorted({identity.agent for identity in engine.release.identities})
    if len(known) == 1:
        return known[0]
    named = _agents_named_for(engine, contract)
    if len(named) == 1:
        return named[0]
    raise PolicyTestError(f"say which agent calls {contract.operation} (agent: …); known are {', '.join(known) or 'none'}")


def _agents_named_for(engine: Engine, contract: Contract) -> list[str]:
    """The agents that a permit of the identity layer lets run the operation."""
    slices = engine.prepared.slices
    return sorted(
        agent
        for agent in slices.named_agents
        if any(
            rule.scope.agent == agent and not rule.is_forbid
            for rule in slices.of(contract, contract.effects, agent).layers[Layer.IDENTITY].rules
        )
    )


def _task(release: Release, agent: str, roles: tuple[str, ...]) -> str:
    fitting = sorted(name for name, task in release.tasks.items() if agent in task.agents and set(task.open_to) & set(roles))
    if len(fitting) > 1:
        raise PolicyTestError(f"say which task this is (task: …); {', '.join(fitting)} would fit")
    if fitting:
        return fitting[0]
    return min((name for name, task in release.tasks.items() if agent in task.agents), default="")


def _environment(release: Release, agent: str) -> str:
    places = {identity.environment for identity in release.identities if identity.agent == agent}
    return DEFAULT_ENVIRONMENT if DEFAULT_ENVIRONMENT in places or not places else min(places)


def _attribute_value(name: str, value: object) -> AttributeValue:
    if isinstance(value, str | int | bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise PolicyTestError(f"{name!r} must be a text, a whole number, true, false or a list of texts")


def _rank(value: object) -> int:
    if type(value) is int:
        return value
    raise PolicyTestError("session confidentiality must be a whole number")


def _time(value: object) -> int:
    if value is None:
        return DEFAULT_NOW_US
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


def _resource(contract: Contract, arguments: JsonValue, given: Mapping[str, Any] | None) -> ResourceFacts | None:
    if contract.resource is None:
        if given is not None:
            raise PolicyTestError(f"{contract.operation} has no resource in its contract; leave resource out")
        return None
    found = arguments.get(contract.resource.id_argument) if isinstance(arguments, dict) else None
    name = str((given or {}).get("id", "" if found is None else found))
    attributes = None
    if given is not None:
        attributes = {
            key: _attribute_value(key, value)
            for key, value in given.items()
            if value is not None and (key != "id" or "id" in contract.resource.attributes)
        }
    return ResourceFacts(type=contract.resource.type, id=name, attributes=attributes)


def _differences(test: PolicyTest, facts: Facts, decision: Decision) -> list[str]:
    found: list[str] = []
    if not _is_as_expected(test.expect, decision):
        found += [f"- expected  {test.expect}", f"+ got       {_told(decision)}"]
    if test.obligations is not None:
        demanded = NONE if isinstance(decision, Deny) else decision.obligations
        found += _obligation_differences(test.obligations, facts, demanded)
    return found


def _is_as_expected(expect: str, decision: Decision) -> bool:
    verb, _, rest = expect.strip().partition(" ")
    rest = rest.strip()
    match decision:
        case Allow():
            return verb == "allow" and not rest
        case RequireApproval(requirements=requirements):
            return verb == "ask" and {rule.strip() for rule in rest.split(",")} == {need.rule for need in requirements}
        case Deny(question=question, reasons=reasons):
            wanted = {str(question.value), *(reason.code for reason in reasons)}
            return verb == "deny" and (not rest or rest in wanted)


def _obligation_differences(wanted: tuple[str, ...], facts: Facts, got: Obligations) -> list[str]:
    expected = NONE
    try:
        for text in wanted:
            expected = meet(expected, fill(parse(text), facts))
    except ObligationError as error:
        raise PolicyTestError(str(error)) from error
    if expected == got:
        return []
    return [f"- obliged   {_plain(expected)}", f"+ got       {_plain(got)}"]


def _plain(obligations: Obligations) -> str:
    return msgspec.json.encode(obligations, order="sorted").decode()


def _told(decision: Decision) -> str:
    match decision:
        case Allow():
            return "allow"
        case RequireApproval(requirements=requirements):
            return "ask " + ", ".join(sorted({need.rule for need in requirements}))
        case Deny(question=question, reasons=reasons):
            return f"deny {question.value} ({', '.join(reason.code for reason in reasons)})"
