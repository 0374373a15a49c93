"""Decisions without calls: what would be decided about these facts, and why. Nothing is claimed, read from a tool or run.

Every one is on record before it is answered. What cannot be made into facts is a deny like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.canonical import digest
from interlock.core.claim import LineageState
from interlock.core.decision import Allow, Decision, Deny, Facts, Reason, ResourceFacts
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.terms import Posture, Question
from interlock.core.who import AttributeValue, Lineage, Person, Session
from interlock.gateway.governed import Governed, Governing
from interlock.gateway.histories import Histories
from interlock.gateway.messages import Proposal
from interlock.gateway.plans import Plans
from interlock.gateway.reading import ReadProposal, UnreadableProposalError, read_proposal
from interlock.ledger.drafts import draft
from interlock.ledger.events import DecisionAsked
from interlock.policy.codes import Code
from interlock.policy.engine import ENGINE
from interlock.policy.explain import Explanation
from interlock.policy.history import nothing
from interlock.store.controls import Controls
from interlock.store.records import Records, chain_of
from interlock.store.sessions import Sessions

UNKNOWN_USER: Final = Code.USER_NOT_PERMITTED
_CALM: Final = LineageState(facts_version=0, posture=Posture.NORMAL, tainted=False, confidentiality=0)


class SessionEndedError(Exception):
    """The session that asks has ended."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: one operation with arguments (JSON text), by an agent for a user.

    `resource_attributes` are those of the object the arguments name; None when nobody says: policies that need them say no.
    `roles` None: what the user's newest session with the agent says of them.
    """

    operation: str
    arguments: bytes
    agent: str
    user: str
    tenant: str
    task: str = ""
    roles: tuple[str, ...] | None = None
    attributes: Mapping[str, AttributeValue] = {}
    resource_attributes: Mapping[str, AttributeValue] | None = None
    posture: Posture = Posture.NORMAL
    tainted: bool = False
    confidentiality: int = 0


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as recorded under `decision_id`, and why; `explanation` is None where nobody may look behind it."""

    decision_id: str
    decision: Decision
    explanation: Explanation | None = None


class _Weighed(msgspec.Struct, frozen=True, kw_only=True):
    decision_id: str
    decision: Decision
    facts: Facts | None
    asked: Asked


class Decisions:
    """Decides by the release in force. Raises `StoreUnavailableError`: nothing is then answered."""

    def __init__(
        self,
        *,
        governing: Governing,
        controls: Controls,
        sessions: Sessions,
        records: Records,
        plans: Plans,
        histories: Histories,
        admin: AdminGate,
        environment: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._governing = governing
        self._controls = controls
        self._sessions = sessions
        self._records = records
        self._plans = plans
        self._histories = histories
        self._admin = admin
        self._environment = environment
        self._clock = clock
        self._ids = ids

    async def for_person(self, person: Person, asked: Asked, *, explain: bool, via: str = "api") -> Decided:
        """The decision on facts that a person with the role `decide` puts. Raises `NotPermittedError`."""
        return (await self.many_for_person(person, [asked], explain=explain, via=via))[0]

    async def many_for_person(
        self, person: Person, asked: Sequence[Asked], *, explain: bool = False, via: str = "authzen"
    ) -> tuple[Decided, ...]:
        """As `for_person`, for several; permission for every tenant among them comes first."""
        for tenant in sorted({item.tenant for item in asked}):
            await self._admin.permit(person, "decide", target=asked[0].operation, tenant=tenant)
        governed = await self._governed()
        weighed = [await self._weigh(governed, item) for item in asked]
        await self._record(weighed, via=via, asked_by=person.user, roles=person.roles)
        return tuple(
            Decided(
                decision_id=item.decision_id,
                decision=item.decision,
                explanation=governed.engine.explain(item.facts) if explain and item.facts is not None else None,
            )
            for item in weighed
        )

    async def many_for_agent(self, agent: str, asked: Sequence[Asked], *, via: str = "authzen") -> tuple[Decided, ...]:
        """Decisions for an enforcement point, about its own agent and the tenants that the release lets it ask about.

        Raises:
            NotPermittedError: the agent is no enforcement point, or not of that tenant; that it asked is on record.
        """
        release = await self._admin.release()
        tenants = release.administration.enforcement_points.get(agent, ())
        for item in asked:
            if item.tenant not in tenants or item.agent != agent:
                await self._admin.refuse_agent(agent, "decide", item.operation, item.tenant)
        governed = await self._governed()
        weighed = [await self._weigh(governed, item) for item in asked]
        await self._record(weighed, via=via, asked_by=agent, roles=())
        return tuple(Decided(decision_id=item.decision_id, decision=item.decision) for item in weighed)

    async def for_session(
        self, session: Session, operation: str, arguments: bytes, resource: Mapping[str, AttributeValue] | None
    ) -> Decided:
        """The decision on a call of a live session as things stand for it. Raises `SessionEndedError`."""
        standing = await self._sessions.load(session)
        if standing is None:
            raise SessionEndedError("the session has ended")
        governed = await self._governing.in_force(standing.release_digest, standing.epochs.release)
        lineage = session.lineage
        asked = Asked(
            operation=operation,
            arguments=arguments,
            agent=lineage.agent,
            user=lineage.user,
            tenant=lineage.tenant,
            resource_attributes=resource,
        )
        weighed = await self._decide(governed, session, standing.state, asked, of_session=True)
        event = self._event(weighed, via="session", asked_by=lineage.agent, roles=session.roles)
        if not await self._records.append_to_session(session.session_id, event):
            raise SessionEndedError("the session has ended")
        return Decided(decision_id=weighed.decision_id, decision=weighed.decision)

    async def enforcement_tenants(self, agent: str) -> tuple[str, ...]:
        """The tenants that an agent may ask about; none when it is no enforcement point."""
        return tuple((await self._admin.release()).administration.enforcement_points.get(agent, ()))

    async def only_agent(self) -> str:
        """The agent of this environment when there is exactly one, else nothing."""
        release = await self._admin.release()
        found = {item.agent for item in release.identities if item.environment == self._environment}
        return found.pop() if len(found) == 1 else ""

    async def id_argument(self, operation: str) -> tuple[str, str]:
        """Which argument of an operation names its object, and that object's type; empty when it has none."""
        contract = (await self._admin.release()).contracts.get(operation)
        if contract is None or contract.resource is None:
            return "", ""
        return contract.resource.id_argument, contract.resource.type

    async def _governed(self) -> Governed:
        epochs, release_digest = await self._controls.epochs()
        return await self._governing.in_force(release_digest, epochs.release)

    async def _weigh(self, governed: Governed, asked: Asked) -> _Weighed:
        lineage = Lineage(tenant=asked.tenant, environment=self._environment, agent=asked.agent, user=asked.user)
        state = msgspec.structs.replace(
            _CALM, posture=asked.posture, tainted=asked.tainted, confidentiality=asked.confidentiality
        )
        if asked.roles is not None:
            task = asked.task or _only_task(governed, asked.agent, asked.roles)
            session = Session(
                session_id="", lineage=lineage, task=task, roles=asked.roles, attributes=asked.attributes, expires_at_us=0
            )
            return await self._decide(governed, session, state, asked)
        known = await self._sessions.latest(lineage)
        standing = None if known is None else await self._sessions.load(known)
        if known is None or standing is None:
            reason = Reason(code=UNKNOWN_USER, detail="no live session of this user with this agent, and no roles given")
            return self._refused(governed, asked, Question.FOR_THIS_USER, reason)
        session = msgspec.structs.replace(known, task=asked.task or known.task)
        return await self._decide(governed, session, standing.state, asked)

    async def _decide(
        self, governed: Governed, session: Session, state: LineageState, asked: Asked, *, of_session: bool = False
    ) -> _Weighed:
        contract = governed.contract(asked.operation)
        if contract is None:
            return self._refused(governed, asked, Question.WHICH_TOOL, Reason(code=Code.UNKNOWN_OPERATION))
        try:
            proposal = Proposal(operation=asked.operation, arguments=asked.arguments)
            read = read_proposal(governed, contract, session, proposal, None)
        except UnreadableProposalError as error:
            reason = Reason(code=error.code, say=f"{error}.".capitalize(), field=error.field)
            return self._refused(governed, asked, Question.WHICH_OPERATION, reason)
        resource = _resource(read, asked)
        plan = None
        # Of whoever has no session here nothing is known to have happened.
        history = {fact.name: nothing(fact) for fact in governed.history_wanted(contract)}
        if of_session:
            if governed.wants_plan(contract):
                plan, _ = await self._plans.of(session, state, contract, read.arguments)
            history = dict((await self._histories.of(session, governed, read, state)).facts)
        # Nobody has traced where these arguments came from, and policies are told so.
        now_us = self._clock.wall_us()
        facts = governed.facts(
            session, contract, read.raw, read.call_hash, read.entities, state, resource, None, plan, history, now_us
        )
        return _Weighed(decision_id=self._ids.new("dec"), decision=governed.engine.decide(facts), facts=facts, asked=asked)

    def _refused(self, governed: Governed, asked: Asked, question: Question, reason: Reason) -> _Weighed:
        """What could not be made into facts: no, with the digest of what was asked."""
        decision = Deny(
            release_digest=governed.release.digest,
            facts_digest=digest(msgspec.json.encode(asked, order="sorted")),
            engine=ENGINE,
            question=question,
            reasons=(reason,),
        )
        return _Weighed(decision_id=self._ids.new("dec"), decision=decision, facts=None, asked=asked)

    async def _record(self, weighed: Sequence[_Weighed], *, via: str, asked_by: str, roles: tuple[str, ...]) -> None:
        # INVARIANT: no decision is answered that is not on record, in the chain of the tenant it is about.
        for tenant in sorted({item.asked.tenant for item in weighed}):
            events = [
                self._event(item, via=via, asked_by=asked_by, roles=roles) for item in weighed if item.asked.tenant == tenant
            ]
            await self._records.append(chain_of("decisions", tenant), events)

    def _event(self, weighed: _Weighed, *, via: str, asked_by: str, roles: tuple[str, ...]) -> EventDraft:
        known = weighed.facts if weighed.facts is not None else _plain(weighed.asked)
        body = DecisionAsked(
            decision_id=weighed.decision_id,
            via=via,
            asked_by=asked_by,
            decision=weighed.decision,
            facts=msgspec.Raw(msgspec.json.encode(known, order="deterministic")),
            roles=roles,
        )
        return draft(body, ids=self._ids, call_id=weighed.decision_id)


def allowed(decision: Decision) -> bool:
    """Whether the answer is a plain yes, obligations included."""
    return isinstance(decision, Allow)


def _plain(asked: Asked) -> dict[str, object]:
    """What was asked, when it could not be made into facts: arguments as their digest, since nobody could read them."""
    found: dict[str, object] = msgspec.to_builtins(asked, builtin_types=(bytes,))
    found["arguments"] = digest(asked.arguments)
    return found


def _resource(read: ReadProposal, asked: Asked) -> ResourceFacts | None:
    rule = read.contract.resource
    if rule is None:
        return None
    identifier = read.arguments.get(rule.id_argument)
    name = "" if identifier is None or isinstance(identifier, bool) else str(identifier)
    given = asked.resource_attributes
    # Attributes that the contract does not declare are not shown to policy.
    attributes = None if given is None else {key: value for key, value in given.items() if key in rule.attributes}
    return ResourceFacts(type=rule.type, id=name, attributes=attributes)


def _only_task(governed: Governed, agent: str, roles: tuple[str, ...]) -> str:
    """The one task that the agent may open for these roles; nothing when there is none or a choice."""
    tasks = governed.release.tasks.values()
    fitting = [task.name for task in tasks if agent in task.agents and set(task.open_to) & set(roles)]
    return fitting[0] if len(fitting) == 1 else ""
