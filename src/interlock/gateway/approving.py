"""Putting a call to people: what they have said of it, asking them, and waiting for their answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from interlock.core.approval import Approval, ApprovalRequest, ApprovalState, Requested
from interlock.core.claim import OverBudget
from interlock.core.decision import Facts, Lift, RequireApproval, Requirement
from interlock.core.ports import Clock, Ids
from interlock.core.who import Session
from interlock.gateway.limits import APPROVAL_POLL_MS, MAX_APPROVAL_WAIT_MS, MAX_OPEN_APPROVALS_PER_LINEAGE
from interlock.gateway.ports import ApprovalDesk
from interlock.ledger.drafts import draft
from interlock.ledger.events import ApprovalRequested

_LIFTING = (ApprovalState.APPROVED, ApprovalState.USED)


class TooManyOpenError(Exception):
    """The lineage has asked too much of people already; nothing more is put to them now."""


class Approving:
    """What people have said of calls, and asking them. Raises `StoreUnavailableError`: the call is then refused."""

    def __init__(self, desk: ApprovalDesk, *, clock: Clock, ids: Ids) -> None:
        self._desk = desk
        self._clock = clock
        self._ids = ids

    async def said(self, session: Session, facts: Facts, release_digest: str) -> tuple[Approval, ...]:
        """What people have said of this very call, in this lineage, under this release.

        A yes that nobody has used is left out when the object is no longer what was shown. A used one only lets the call be
        answered from the record, and a no stands: a changed object is no way around it.
        """
        seen = shown_digest(facts)
        return tuple(
            item
            for item in await self._desk.for_call(session.lineage.id, facts.call_hash, release_digest)
            if item.state is not ApprovalState.APPROVED or item.evidence_digest == seen
        )

    async def ask(
        self, session: Session, call_id: str, facts: Facts, decision: RequireApproval, over: OverBudget | None = None
    ) -> tuple[Requested, ...]:
        """Put the call to people, one request a rule; one that is open already is found again. Raises `TooManyOpenError`.

        `over` is the budget that was hit, if one was: its numbers are evidence.
        """
        by_rule: dict[str, list[Requirement]] = defaultdict(list)
        for requirement in decision.requirements:
            by_rule[requirement.rule].append(requirement)
        asked = []
        for requirements in by_rule.values():
            request = self._request(session, call_id, facts, decision, requirements, over)
            body = ApprovalRequested(
                approval_id=request.approval_id,
                operation=request.operation,
                call_hash=request.call_hash,
                rule=request.rule,
                role=request.role,
                policy_ids=request.policy_ids,
                release_digest=request.release_digest,
                holds_s=request.holds_s,
                evidence_digest=request.evidence_digest,
            )
            event = draft(body, ids=self._ids, call_id=call_id)
            requested = await self._desk.request(request, event, most_open=MAX_OPEN_APPROVALS_PER_LINEAGE)
            if requested is None:
                raise TooManyOpenError
            asked.append(requested)
        return tuple(asked)

    async def wait(self, asked: Iterable[Requested], until_s: float) -> bool:
        """True as soon as one of the requests is no longer open; False when the time is up."""
        waiting = [request.approval_id for request in asked]
        until_s = min(until_s, self._clock.monotonic_s() + MAX_APPROVAL_WAIT_MS / 1000)
        while self._clock.monotonic_s() < until_s:
            states = await self._desk.states(waiting)
            if any(states.get(name) is not ApprovalState.OPEN for name in waiting):
                return True
            await asyncio.sleep(APPROVAL_POLL_MS / 1000)
        return False

    def _request(
        self,
        session: Session,
        call_id: str,
        facts: Facts,
        decision: RequireApproval,
        requirements: list[Requirement],
        over: OverBudget | None,
    ) -> ApprovalRequest:
        first = requirements[0]
        policy_ids = tuple(sorted({item.policy_id for item in requirements}))
        said = [reason.say for reason in decision.reasons if reason.say and reason.policy_id in policy_ids]
        evidence = {
            "purpose": facts.purpose,
            "posture": facts.posture,
            "tainted": facts.tainted,
            "effects": sorted(facts.effects),
            "resource": None if facts.resource is None else msgspec.to_builtins(facts.resource),
        }
        if over is not None:
            evidence["budget"] = msgspec.to_builtins(over)
        return ApprovalRequest(
            approval_id=self._ids.new("apr"),
            session_id=session.session_id,
            lineage_id=session.lineage.id,
            call_id=call_id,
            operation=facts.operation,
            call_hash=facts.call_hash,
            release_digest=decision.release_digest,
            rule=first.rule,
            role=first.role,
            policy_ids=policy_ids,
            arguments=facts.arguments,
            show=first.show,
            evidence=msgspec.json.encode(evidence).decode(),
            say=" ".join(dict.fromkeys(said)),
            holds_s=first.holds_s,
            evidence_digest=shown_digest(facts),
        )


def shown_digest(facts: Facts) -> str:
    """SHA-256 of the object as policy reads it and people are shown it; empty when the operation is about none.

    Only the attributes that the contract declares are in it, and sets have no order: whatever else changes is harmless.
    """
    if facts.resource is None:
        return ""
    attributes = facts.resource.attributes
    ordered = (
        None
        if attributes is None
        else {name: sorted(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
    )
    shown = {"type": facts.resource.type, "id": facts.resource.id, "attributes": ordered}
    return hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()


def lifts(said: Iterable[Approval], spent: frozenset[str]) -> tuple[Lift, ...]:
    """The approvals among what people said, as facts; those in `spent` are known to lift nothing.

    One that was used still lifts, so that its call can be answered from the record: no claim can use it again.
    """
    return tuple(
        Lift(approval_id=item.approval_id, rule=item.rule, policy_ids=item.policy_ids)
        for item in said
        if item.state in _LIFTING and item.approval_id not in spent
    )


def denial(said: Iterable[Approval], decision: RequireApproval) -> Approval | None:
    """The answer of a person who said no to what the decision asks for, if somebody did and it still holds."""
    asked = {(item.rule, item.policy_id) for item in decision.requirements}
    for item in said:
        if item.state is ApprovalState.DENIED and any((item.rule, policy) in asked for policy in item.policy_ids):
            return item
    return None
