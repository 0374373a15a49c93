"""Decisions without calls: what would be decided, which obligations, which policies said what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.exceptions import HTTPException

from interlock.app.decisions import Asked, Decided
from interlock.app.plane import Plane
from interlock.core.decision import Allow, Decision, Deny, Obligations, RequireApproval
from interlock.core.terms import Posture, Question
from interlock.core.who import Session
from interlock.gateway.refusals import of_deny
from interlock.policy.explain import LayerVoice
from interlock.server.api.common import person_of, read
from interlock.server.api.who import PERSON_OR_SESSION, caller_of, door

_Value = str | int | bool | list[str]


class DecisionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked. With a session token only `operation`, `arguments` and `resource`: the rest is the session's.

    For people with the role `decide`: `agent` may be left out when there is only one, `task` when only one fits, `tenant` for
    one's own. `roles` left out: what the user's newest session says. `resource`: attributes of the object the arguments name;
    nothing is read from a tool, and policies that need what is not given say no.
    """

    operation: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    agent: str = ""
    user: str = ""
    tenant: str = ""
    task: str = ""
    roles: list[str] | None = None
    attributes: dict[str, _Value] = {}
    resource: dict[str, _Value] | None = None
    posture: Posture = Posture.NORMAL
    tainted: bool = False
    confidentiality: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0


class DecisionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The decision. `decision` and `layers` are for people only; to agents a refusal says no more than the gate would."""

    decision_id: str
    outcome: str
    code: str
    say: str
    question: Question | None
    obligations: Obligations | None
    approvals: tuple[str, ...]
    decision: Decision | None = None
    layers: tuple[LayerVoice, ...] = ()
    context: str = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/v1/decisions",
        status_code=200,
        summary="What would be decided, and why: nothing is claimed, read from a tool, or run",
        opt=door(PERSON_OR_SESSION, body=DecisionRequest, once=False),
    )
    async def decide(request: Request[Any, Any, Any]) -> DecisionAnswer:
        caller, body = caller_of(request), await read(request, DecisionRequest)
        resource = None if body.resource is None else _values(body.resource)
        if isinstance(caller, Session):
            alone = DecisionRequest(operation=body.operation, arguments=body.arguments, resource=body.resource)
            if body != alone:
                raise HTTPException(status_code=400, detail="a session token asks about its own session: leave out who asks")
            decided = await plane.desk.decisions.for_session(caller, body.operation, bytes(body.arguments), resource)
            return answer(decided)
        person = await person_of(plane, request)
        asked = Asked(
            operation=body.operation,
            arguments=bytes(body.arguments),
            agent=body.agent or await plane.desk.decisions.only_agent(),
            user=body.user or person.user,
            tenant=body.tenant or person.tenant,
            task=body.task,
            roles=None if body.roles is None else tuple(sorted(set(body.roles))),
            attributes=_values(body.attributes),
            resource_attributes=resource,
            posture=body.posture,
            tainted=body.tainted,
            confidentiality=body.confidentiality,
        )
        return answer(await plane.desk.decisions.for_person(person, asked, explain=True), behind=True)

    return [decide]


def answer(decided: Decided, *, behind: bool = False) -> DecisionAnswer:
    """The decision for a caller; what stands `behind` it only for people who may see policies."""
    code, say, question = told(decided)
    decision, explanation = decided.decision, decided.explanation
    return DecisionAnswer(
        decision_id=decided.decision_id,
        outcome=str(decision.__struct_config__.tag),
        code=code,
        say=say,
        question=question,
        obligations=None if isinstance(decision, Deny) else decision.obligations,
        approvals=tuple(need.rule for need in decision.requirements) if isinstance(decision, RequireApproval) else (),
        decision=decision if behind else None,
        layers=explanation.layers if behind and explanation is not None else (),
        context=explanation.context if behind and explanation is not None else "",
    )


def told(decided: Decided) -> tuple[str, str, Question | None]:
    """Code, sentence and question of a decision, as much as the gate would tell a caller."""
    match decided.decision:
        case Allow():
            return "", "", None
        case RequireApproval() as decision:
            said = " ".join(dict.fromkeys(reason.say for reason in decision.reasons if reason.say))
            return "needs_approval", said, decision.question
        case Deny() as decision:
            refused = of_deny(decided.decision_id, decision)
            own = decision.reasons[0].say if decision.reasons[0].say and decision.reasons[0].say in refused.text else ""
            return refused.code, own, decision.question


def _values(given: Mapping[str, _Value]) -> dict[str, str | int | bool | tuple[str, ...]]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
