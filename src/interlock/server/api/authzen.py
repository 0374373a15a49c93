"""AuthZEN Authorization API 1.0 (OpenID): decisions for anyone else's enforcement point, obligations in the context.

An action is an operation: `tool.operation`, or its bare name with the resource's type as the tool. The resource's id goes into
the argument that names the object, its properties are the object's attributes, and the action's properties are the other
arguments. The subject is the user; what is said of them is either in its properties (`roles` and the attributes that the
release declares), or known from their newest live session with the agent that asks. `context` may name `agent` (for people
with the role `decide`), `tenant` and `task`. What does not become facts is a deny.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.exceptions import HTTPException

from interlock.app.decisions import Asked, Decided, allowed
from interlock.app.plane import Plane
from interlock.core.decision import Deny, Obligations, RequireApproval
from interlock.core.who import AttributeValue, Person
from interlock.server.api.common import person_of, read
from interlock.server.api.decisions import told
from interlock.server.api.oauth import base_of
from interlock.server.api.who import NOBODY, PERSON_OR_AGENT, AgentCaller, caller_of, door
from interlock.server.limits import MAX_EVALUATIONS

_USER: Final = "user"


class Semantic(StrEnum):
    """How a list of evaluations is executed (AuthZEN 1.0, Evaluations semantics)."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Who would do it. Only `user` is known as a type."""

    type: str
    id: Annotated[str, msgspec.Meta(min_length=1)]
    properties: dict[str, Any] = {}


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done: an operation; `properties` are arguments."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    properties: dict[str, Any] = {}


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What it would be done to; `properties` are its attributes. Without a type it is none: the todo scenario sends such."""

    type: str = ""
    id: str = ""
    properties: dict[str, Any] = {}


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One question of many; what is left out is as in the request around it."""

    subject: Subject | None = None
    action: Action | None = None
    resource: Resource | None = None
    context: dict[str, Any] | None = None


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """May this subject do this to this resource? Members that are not known here are ignored, as the specification wants."""

    subject: Subject
    action: Action
    resource: Resource
    context: dict[str, Any] = {}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to execute a list of evaluations."""

    evaluations_semantic: Semantic = Semantic.EXECUTE_ALL


class EvaluationsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Many questions, with defaults. Without `evaluations` it is one question, and answered as such."""

    subject: Subject | None = None
    action: Action | None = None
    resource: Resource | None = None
    context: dict[str, Any] = {}
    evaluations: tuple[Evaluation, ...] = ()
    options: Options = Options()


class DecisionContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes with a decision. `obligations` of a true decision must be met by whoever enforces it, or it counts as false.

    `approvals` are the rules by which people would have to approve; `policies` are told to people only.
    """

    id: str = ""
    code: str = ""
    reason: str = ""
    question: int = 0
    obligations: Obligations | None = None
    approvals: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    error: dict[str, Any] | None = None


class EvaluationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """True or false; anything but a plain yes is false."""

    decision: bool
    context: DecisionContext = DecisionContext()


class EvaluationsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answers in the order of the questions, as many as were executed; `decision` only for a request with one question."""

    evaluations: tuple[EvaluationAnswer, ...] | msgspec.UnsetType = msgspec.UNSET
    decision: bool | msgspec.UnsetType = msgspec.UNSET
    context: DecisionContext | msgspec.UnsetType = msgspec.UNSET


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Where what is (AuthZEN 1.0, PDP metadata). There is no search: what may be found depends on arguments."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
    capabilities: tuple[str, ...] = ()


class _UnclearError(Exception):
    """A question that cannot be put; the message says what is missing."""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/.well-known/authzen-configuration", summary="AuthZEN: where decisions are asked for", opt=door(NOBODY))
    async def configuration(request: Request[Any, Any, Any]) -> Configuration:
        # Behind a proxy it is --public-url: an address without TLS would have tokens sent to it in the clear.
        base = base_of(request)
        return Configuration(
            policy_decision_point=base,
            access_evaluation_endpoint=f"{base}/access/v1/evaluation",
            access_evaluations_endpoint=f"{base}/access/v1/evaluations",
        )

    @post(
        "/access/v1/evaluation",
        status_code=200,
        summary="AuthZEN: one decision",
        opt=door(PERSON_OR_AGENT, body=EvaluationRequest, once=False),
    )
    async def evaluation(request: Request[Any, Any, Any]) -> EvaluationAnswer:
        body = await read(request, EvaluationRequest)
        whole = Evaluation(subject=body.subject, action=body.action, resource=body.resource, context=body.context)
        return (await _answers(plane, request, [whole]))[0]

    @post(
        "/access/v1/evaluations",
        status_code=200,
        summary="AuthZEN: many decisions",
        opt=door(PERSON_OR_AGENT, body=EvaluationsRequest, once=False),
    )
    async def evaluations(request: Request[Any, Any, Any]) -> EvaluationsAnswer:
        body = await read(request, EvaluationsRequest)
        if len(body.evaluations) > MAX_EVALUATIONS:
            raise HTTPException(status_code=400, detail=f"at most {MAX_EVALUATIONS} evaluations at once")
        if not body.evaluations:
            one = (await _answers(plane, request, [_filled(Evaluation(), body)], whole=True))[0]
            return EvaluationsAnswer(decision=one.decision, context=one.context)
        questions = [_filled(item, body) for item in body.evaluations]
        if body.options.evaluations_semantic is Semantic.EXECUTE_ALL:
            return EvaluationsAnswer(evaluations=await _answers(plane, request, questions))
        ends = body.options.evaluations_semantic is Semantic.PERMIT_ON_FIRST_PERMIT
        found: list[EvaluationAnswer] = []
        for question in questions:
            found += await _answers(plane, request, [question])
            if found[-1].decision is ends:
                break
        return EvaluationsAnswer(evaluations=tuple(found))

    return [configuration, evaluation, evaluations]


async def _answers(
    plane: Plane, request: Request[Any, Any, Any], questions: Sequence[Evaluation], *, whole: bool = False
) -> tuple[EvaluationAnswer, ...]:
    """The answers to some questions, each on record. `whole`: a question that cannot be put is an error of the request."""
    put: dict[int, Asked] = {}
    unclear: dict[int, str] = {}
    for number, question in enumerate(questions):
        try:
            put[number] = await _asked(plane, request, question)
        except _UnclearError as error:
            if whole:
                raise HTTPException(status_code=400, detail=str(error)) from error
            unclear[number] = str(error)
    caller = caller_of(request)
    decided: Sequence[Decided] = ()
    if put and isinstance(caller, AgentCaller):
        decided = await plane.desk.decisions.many_for_agent(caller.agent, list(put.values()))
    elif put:
        decided = await plane.desk.decisions.many_for_person(await person_of(plane, request), list(put.values()))
    behind = not isinstance(caller, AgentCaller)
    found = {number: _answer(item, behind=behind) for number, item in zip(put, decided, strict=True)}
    for number, message in unclear.items():
        error_told = DecisionContext(error={"status": 400, "message": message})
        found[number] = EvaluationAnswer(decision=False, context=error_told)
    return tuple(found[number] for number in range(len(questions)))


async def _asked(plane: Plane, request: Request[Any, Any, Any], question: Evaluation) -> Asked:
    subject, action, resource, context = question.subject, question.action, question.resource, question.context or {}
    if subject is None or action is None or resource is None or not resource.type:
        raise _UnclearError("subject, action and resource are needed, here or as defaults")
    if subject.type != _USER:
        raise _UnclearError(f"subjects are of type {_USER!r}")
    operation = action.name if "." in action.name else f"{resource.type}.{action.name}"
    named, kind = await plane.desk.decisions.id_argument(operation)
    if "." in action.name and kind and resource.type not in {kind, operation.partition(".")[0]}:
        raise _UnclearError(f"{operation} acts on resources of type {kind}")
    arguments = dict(action.properties)
    if named:
        if named in arguments:
            raise _UnclearError(f"{named} is the resource's id; leave it out of the action's properties")
        arguments[named] = resource.id
    agent, tenant = await _who_asks(plane, request, context)
    roles = subject.properties.get("roles")
    if roles is not None and not (isinstance(roles, list) and all(isinstance(role, str) for role in roles)):
        raise _UnclearError("roles is a list of texts")
    return Asked(
        operation=operation,
        arguments=msgspec.json.encode(arguments),
        agent=agent,
        user=subject.id,
        tenant=tenant,
        task=_text(context, "task"),
        roles=None if roles is None else tuple(sorted(set(roles))),
        attributes=_attributes({name: value for name, value in subject.properties.items() if name != "roles"}),
        resource_attributes=_attributes(resource.properties) if resource.properties else None,
    )


async def _who_asks(plane: Plane, request: Request[Any, Any, Any], context: Mapping[str, Any]) -> tuple[str, str]:
    """The agent and the tenant that a question is about."""
    caller, tenant = caller_of(request), _text(context, "tenant")
    if isinstance(caller, AgentCaller):
        tenants = await plane.desk.decisions.enforcement_tenants(caller.agent)
        return caller.agent, tenant or (tenants[0] if len(tenants) == 1 else "")
    if not isinstance(caller, Person):
        raise _UnclearError("a person or an enforcement point asks")
    return _text(context, "agent") or await plane.desk.decisions.only_agent(), tenant or caller.tenant


def _filled(question: Evaluation, body: EvaluationsRequest) -> Evaluation:
    return Evaluation(
        subject=question.subject or body.subject,
        action=question.action or body.action,
        resource=question.resource or body.resource,
        context=body.context if question.context is None else question.context,
    )


def _answer(decided: Decided, *, behind: bool) -> EvaluationAnswer:
    code, say, question = told(decided)
    decision = decided.decision
    obligations = None if isinstance(decision, Deny) or decision.obligations == Obligations() else decision.obligations
    context = DecisionContext(
        id=decided.decision_id,
        code=code,
        reason=say,
        question=0 if question is None else int(question),
        obligations=obligations,
        approvals=tuple(need.rule for need in decision.requirements) if isinstance(decision, RequireApproval) else (),
        policies=tuple(policy.id for policy in decision.policies) if behind else (),
    )
    # INVARIANT: only a plain yes is true.
    return EvaluationAnswer(decision=allowed(decision), context=context)


def _attributes(given: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Properties in the types that policies read; of any other type they are left out, and what needs them says no."""
    found: dict[str, AttributeValue] = {}
    for name, value in given.items():
        if isinstance(value, (str, bool, int)):
            found[name] = value
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            found[name] = tuple(value)
    return found


def _text(context: Mapping[str, Any], name: str) -> str:
    value = context.get(name, "")
    if not isinstance(value, str):
        raise _UnclearError(f"{name} is a text")
    return value
