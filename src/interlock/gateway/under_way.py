"""One call on its way through the gate, and the events that tell of it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from interlock.core.canonical import canonical, digest
from interlock.core.claim import OfWork, RecordRequest
from interlock.core.contract import Kind
from interlock.core.event import EventDraft
from interlock.core.ports import Ids
from interlock.core.who import Session
from interlock.gateway.messages import NOBODY, Caller, CallResult, Proposal, Refusal, RefusalOutcome, Returned
from interlock.gateway.ports import CalledAs, Standing
from interlock.gateway.reading import ReadProposal
from interlock.gateway.refusals import before_it_asked
from interlock.gateway.telemetry import EndedCall
from interlock.ledger.asks import ClaimContinued
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallClaimed, CallDecided, CallProposed, CallRefused, CallReplayed


class Call:
    """The only mutable thing of the gate, and nobody but the task that carries the call holds it.

    `spent` are approvals that turned out to lift nothing, `lifted` those that let the call go beyond a budget, by its name;
    `room_by_s` is until when it waits for room in a budget; `again_in_s` when it is to be made again after its tool failed,
    `degraded` that it may then only be answered with an earlier answer. `history_version` is what its decision read of the
    past, None when it read none; `contrary`, that it is not what its session's plan says. `operation` is the one it names,
    when the release has it.
    """

    def __init__(
        self, call_id: str, session: Session, proposal: Proposal, wait_until_s: float, ids: Ids, caller: Caller = NOBODY
    ) -> None:
        self.id = call_id
        self.session = session
        self.proposal = proposal
        self.wait_until_s = wait_until_s
        self.caller = caller
        self.abandoned = False
        self.may_have_acted = False
        self.read: ReadProposal | None = None
        self.operation = ""
        self.answer_by_s = wait_until_s
        self.spent: frozenset[str] = frozenset()
        self.lifted: dict[str, str] = {}
        self.room_by_s: float | None = None
        self.retries = 0
        self.again_in_s: float | None = None
        self.degraded = False
        self.history_version: int | None = None
        self.work: OfWork | None = None
        self.contrary = False
        self._ids = ids

    def event(
        self, body: CallProposed | CallDecided | CallClaimed | CallRefused | CallReplayed | ClaimContinued, of: str = ""
    ) -> EventDraft:
        """An event of this call, or of another."""
        return draft(body, ids=self._ids, call_id=of or self.id)

    def refusing(self, told: Refusal) -> Refusal:
        """What the caller is told. INVARIANT: of a call that may have acted before it asked, nobody says that nothing was."""
        return before_it_asked(told) if self.read is not None and self.read.continues is not None else told

    def proposed(self) -> EventDraft:
        """What was asked for, as far as it could be read."""
        read, proposal = self.read, self.proposal
        body = CallProposed(
            operation=proposal.operation[:200],
            arguments=None if read is None else msgspec.Raw(read.raw),
            arguments_digest=digest(proposal.arguments),
            call_hash="" if read is None else read.call_hash,
            key_source="" if read is None or read.same.idempotency is None else read.same.idempotency.source,
            repeat_of=proposal.repeat_of[:200],
            retry=self.retries,
            answers=None if read is None or read.answers is None else msgspec.Raw(canonical(dict(read.answers))),
        )
        return self.event(body)

    def refused(self, told: Refusal, decided: EventDraft | None, detail: str) -> tuple[EventDraft, ...]:
        """A call that came to nothing: asked, decided as far as it came, and what the caller was told."""
        question = told.details.get("question", 0)
        body = CallRefused(
            operation=self.proposal.operation[:200],
            outcome=told.outcome.value,
            code=told.code,
            effect=told.effect.value,
            field=told.field,
            question=question if isinstance(question, int) else 0,
            detail=detail[:500],
        )
        refused = self.event(body)
        return (self.proposed(), refused) if decided is None else (self.proposed(), decided, refused)

    def record(self, events: tuple[EventDraft, ...], standing: Standing | None) -> RecordRequest:
        """A record of events; with a standing, only while it still stands."""
        return RecordRequest(
            call_id=self.id,
            session_id=self.session.session_id,
            lineage_id=self.session.lineage.id,
            epochs=None if standing is None else standing.epochs,
            facts_version=None if standing is None else standing.state.facts_version,
            history_version=None if standing is None else self.history_version,
            work=None if standing is None else self.work,
            events=events,
        )


_ENDS: Final = {
    RefusalOutcome.DENIED: "denied",
    RefusalOutcome.INVALID: "malformed",
    RefusalOutcome.NEEDS_APPROVAL: "asked",
}


def result_of(task: asyncio.Task[CallResult]) -> CallResult | None:
    """What a call that is over came to; None when it was dropped or broke."""
    return None if task.cancelled() or task.exception() is not None else task.result()


def called_as(call: Call, task: asyncio.Task[CallResult]) -> CalledAs:
    """How a call ended, for whoever watches."""
    outcome, result = "other", result_of(task)
    if result is not None:
        if isinstance(result, Returned):
            outcome = "made"
        else:
            outcome = "contradiction" if result.code == "plan_refused" else _ENDS.get(result.outcome, "other")
    operation = call.proposal.operation[:200]
    if call.read is None:
        return CalledAs(call_id=call.id, operation=operation, outcome=outcome, arguments={})
    contract, arguments = call.read.contract, call.read.arguments
    if contract.is_read_only:
        return CalledAs(call_id=call.id, operation=operation, outcome=outcome, arguments=arguments)
    first = contract.targets[0] if contract.targets else ""
    names = first if contract.resource is None else contract.resource.id_argument
    return CalledAs(
        call_id=call.id,
        operation=operation,
        outcome=outcome,
        arguments=arguments,
        object=names,
        targets=contract.targets,
        contrary=call.contrary,
    )


def ended_as(call: Call, result: CallResult | None) -> EndedCall:
    """How a call ended, for telemetry: only names that the release has, and codes of ours."""
    outcome, code = "abandoned", ""
    if result is not None:
        if isinstance(result, Refusal):
            outcome, code = result.outcome.value, result.code
        elif "interlock/replayed" in result.meta:
            outcome = "replayed"
        elif result.asks is not None:
            outcome = "asks"
        else:
            outcome = "tool_error" if result.is_error else "returned"
    session = call.session
    return EndedCall(
        call_id=call.id,
        session_id=session.session_id,
        agent=session.lineage.agent,
        task=session.task,
        way=call.proposal.way,
        operation=call.operation,
        kind=(call.proposal.kind or Kind.TOOL) if call.read is None else call.read.contract.kind,
        outcome=outcome,
        code=code,
    )
