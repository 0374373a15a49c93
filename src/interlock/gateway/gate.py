"""The gate. Every tool call of every caller and protocol goes through `Gate.call`, and through nothing else.

propose, gather facts, decide, mint a permit, claim (the decision recorded with it), invoke, settle, obligations, release.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import assert_never

import msgspec

from interlock.core.approval import Approval
from interlock.core.budget import Budget
from interlock.core.changes import Changes
from interlock.core.claim import (
    ApprovalGone,
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    Duplicate,
    Halted,
    KeyReused,
    NotClaimed,
    NotSettled,
    OverBudget,
    OverRate,
    SessionEnded,
    Stale,
)
from interlock.core.context import Item
from interlock.core.contract import Kind
from interlock.core.decision import Allow, Deny, Facts, RequireApproval
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.terms import Question
from interlock.core.who import Session
from interlock.gateway.approving import Approving, TooManyOpenError, denial, lifts
from interlock.gateway.asking import Asking
from interlock.gateway.budgeting import Takings, given_for, question
from interlock.gateway.calls import Calls, is_ended
from interlock.gateway.claiming import Claiming
from interlock.gateway.contexts import Contexts
from interlock.gateway.deciding import Deciding
from interlock.gateway.execution import Executor
from interlock.gateway.given_up import GivenUp
from interlock.gateway.governed import Governed, Governing
from interlock.gateway.histories import Histories, past_call
from interlock.gateway.holding import Holding
from interlock.gateway.internal import InternalCalls
from interlock.gateway.lease import Lease
from interlock.gateway.limits import (
    BUDGET_POLL_FIRST_MS,
    BUDGET_POLL_MOST_MS,
    BUDGET_WAIT_MS,
    CLAIM_WAIT_MS,
    LEASE_WAIT_MS,
    MAX_CALLS_IN_FLIGHT,
    MAX_FREE_DECISION_ROUNDS,
    MAX_ORDERED_DECISION_ROUNDS,
    PERMIT_HOLDS_S,
)
from interlock.gateway.messages import NOBODY, Caller, CallResult, Found, Proposal, Refusal, VisibleOperation
from interlock.gateway.offering import Offering
from interlock.gateway.ordering import Turns
from interlock.gateway.outputs import release_output
from interlock.gateway.plans import PlanRefusedError, Plans
from interlock.gateway.ports import ApprovalDesk, ClaimDesk, DoubtDesk, Settlements, Standing, Standings, Watch
from interlock.gateway.reading import ReadProposal, UnreadableProposalError, read_proposal
from interlock.gateway.reconciling import Reconciler
from interlock.gateway.recording import Recording
from interlock.gateway.refusals import StoppedError, of_approval, of_budget, of_denial, of_deny, of_halt, of_shut, refusal
from interlock.gateway.released import Released
from interlock.gateway.replaying import Replays
from interlock.gateway.resources import Resources
from interlock.gateway.sealing import Seals
from interlock.gateway.stability import Shut, Stability
from interlock.gateway.standing import Beliefs
from interlock.gateway.streams import OpenStreams
from interlock.gateway.telemetry import Path, Telemetry, TimedDesk, Untold, follow
from interlock.gateway.under_way import Call, called_as, ended_as, result_of
from interlock.gateway.ways import Way, Ways
from interlock.gateway.work import Work
from interlock.ledger.events import CallDecided
from interlock.policy.permit import mint
from interlock.store.errors import StoreUnavailableError
from interlock.tools.directory import Connectors
from interlock.tools.port import PauseGuard

_log = logging.getLogger(__name__)


class Gate:
    """The one way to a tool. `call` never raises for what callers, tools or the database do: it answers with a `Refusal`."""

    def __init__(
        self,
        *,
        desk: ClaimDesk,
        doubts: DoubtDesk,
        session_of: Callable[[str], Awaitable[Session | None]],
        standings: Standings,
        settlements: Settlements,
        approvals: ApprovalDesk,
        contexts: Contexts,
        plans: Plans,
        watch: Watch,
        histories: Histories,
        governing: Governing,
        connectors: Connectors,
        lease: Lease,
        guard: PauseGuard | None = None,
        stability: Stability,
        telemetry: Telemetry | None = None,
        seals: Seals,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.given_up = GivenUp(TimedDesk(desk, clock), settlements, clock=clock, ids=ids)
        self._desk = desk = self.given_up
        self._lease = lease
        self._governing = governing
        self._beliefs = Beliefs(standings)
        self.streams = OpenStreams(standings)
        self._telemetry = Untold() if telemetry is None else telemetry
        self._clock = clock
        self._ids = ids
        self._executor = Executor(
            desk=desk, doubts=doubts, lease=lease, connectors=connectors, guard=guard, clock=clock, ids=ids
        )
        self._ways = Ways(stability=stability, settlements=settlements, clock=clock)
        internal = InternalCalls(
            desk=desk, lease=lease, beliefs=self._beliefs, executor=self._executor, stability=stability, clock=clock, ids=ids
        )
        self.reconciler = Reconciler(internal, doubts=doubts, session_of=session_of, clock=clock, ids=ids)
        self._offering = Offering(beliefs=self._beliefs, governing=governing, lease=lease, clock=clock)
        self._seals = seals
        self._holding = Holding(seals, ids, self.streams)
        self._asking = Asking(desk=desk, contexts=contexts, watch=watch, ids=ids)
        self._approving = Approving(approvals, clock=clock, ids=ids)
        self._contexts = contexts
        self._plans = plans
        self._watch = watch
        self._histories = histories
        self._takings = Takings()
        resources = Resources(call=internal, clock=clock, ids=ids)
        self._deciding = Deciding(
            lease=lease, contexts=contexts, plans=plans, histories=histories, resources=resources, clock=clock
        )
        self._recording = Recording(desk, self._beliefs)
        self._replays = Replays(recording=self._recording, settlements=settlements, contexts=contexts, clock=clock)
        self._turns, self.changes = Turns(), Changes()
        self.quarantined: frozenset[str] = frozenset()  # what listings leave out; what stops a call is the claim
        self.calls = Calls(clock)

    async def call(self, session: Session, proposal: Proposal, caller: Caller = NOBODY) -> CallResult:
        """Decide one proposal and, if it may be, execute it once; `caller` is what can be done meanwhile.

        When the caller goes away, a call that is not yet claimed is dropped; one that is claimed goes on and settles. So it is
        when the process leaves and has no more time: then the caller is told to repeat the call.
        """
        if caller.offers and caller.ask is None:
            return await self._holding.call(session, proposal, caller, self._call)
        return await self._call(session, proposal, caller, self._ids.new("call"))

    async def _call(self, session: Session, proposal: Proposal, caller: Caller, call_id: str) -> CallResult:
        wait_until_s = self._clock.monotonic_s() + CLAIM_WAIT_MS / 1000
        call = Call(call_id, session, proposal, wait_until_s, self._ids, caller)
        call.answer_by_s = self._clock.monotonic_s() + proposal.wait_ms / 1000
        path = self._telemetry.began(call.id, proposal)
        if len(self.calls) >= MAX_CALLS_IN_FLIGHT:
            told = refusal(call.id, "overloaded")
            self._telemetry.ended(path, ended_as(call, told))
            return told
        return await self.calls.carry(call, self._through(call, path), lambda done: self._ended(call, path, done))

    async def visible(self, session: Session) -> tuple[VisibleOperation, ...]:
        """See `Offering.visible`."""
        return await self._offering.visible(session, self.quarantined)

    async def find(self, session: Session, kind: Kind, name: str, tool: str | None = None) -> Found | None:
        """See `Offering.find`."""
        return await self._offering.find(session, kind, name, tool)

    def _ended(self, call: Call, path: Path, done: asyncio.Task[CallResult]) -> None:
        self._watch.called(call.session, called_as(call, done))
        self._telemetry.ended(path, ended_as(call, result_of(done)))

    async def _through(self, call: Call, path: Path) -> CallResult:
        follow(path)
        try:
            try:
                if call.proposal.plan:
                    await self._plans.holds(call.session, call.proposal.plan)
                return await self._with_retries(call)
            except PlanRefusedError as refused:
                return await self._recording.tell(call, refusal(call.id, "plan_refused", say=str(refused)), detail=refused.why)
            except StoppedError as stopped:
                if stopped.over is None:
                    told = refusal(call.id, stopped.code, say=stopped.say, retry_after_ms=stopped.after_ms)
                else:
                    told = of_budget(call.id, *stopped.over)
                return await self._recording.tell(call, told)
        except StoreUnavailableError:
            pass
        except asyncio.CancelledError:
            if call.abandoned or is_ended():
                raise
            # Something that it waited for was cancelled, and not the call: its caller waits for an answer.
            _log.exception("a call failed inside the gate", extra={"event": "call.broke", "call_id": call.id})
        except Exception:  # noqa: BLE001  # whatever breaks in here, the caller gets a refusal and the operator a traceback
            _log.exception("a call failed inside the gate", extra={"event": "call.broke", "call_id": call.id})
        # INVARIANT: once a call that can change something is claimed, nobody is told that nothing was changed.
        if not call.may_have_acted:
            return refusal(call.id, "control_plane_unavailable")
        self.calls.not_recorded(call)
        return refusal(call.id, "not_recorded")

    async def _with_retries(self, call: Call) -> CallResult:
        """Each retry is a call of its own: decided, claimed, counted and recorded like the first."""
        while True:
            answer = await self._decide_until_current(call)
            if isinstance(answer, Refusal):
                answer = call.refusing(answer)
            if call.again_in_s is None or call.abandoned:
                return answer
            pause_s, call.again_in_s = call.again_in_s, None
            await asyncio.sleep(pause_s)

    async def _decide_until_current(self, call: Call) -> CallResult:
        standing = await self._beliefs.of(call.session)
        if standing is None:
            return refusal(call.id, "session_ended")
        answer: CallResult | Standing = standing
        for _ in range(MAX_FREE_DECISION_ROUNDS):
            answer = await self._round(call, standing)
            if not isinstance(answer, Standing):
                return answer
            standing = answer
        async with self._turns.of(call.session.lineage.id):
            for _ in range(MAX_ORDERED_DECISION_ROUNDS):
                answer = await self._round(call, standing)
                if not isinstance(answer, Standing):
                    return answer
                standing = answer
        return refusal(call.id, "contended")

    async def _round(self, call: Call, standing: Standing) -> CallResult | Standing:
        """Decide once on where things stand. A `Standing` answer means: it has moved, decide again on this one."""
        if not await self._lease.ready(LEASE_WAIT_MS, epoch=standing.epochs.control):
            return await self._recording.tell(call, refusal(call.id, "control_plane_unavailable"), detail="no lease")
        governed = await self._governing.in_force(standing.release_digest, standing.epochs.release)
        named = call.proposal.operation
        contract = governed.contract(named) if call.session.may_use(named) else None
        if contract is None or call.proposal.kind not in {None, contract.kind}:
            told = refusal(call.id, "unknown_operation", question=int(Question.WHICH_TOOL))
            return await self._recording.record(call, standing, told, None)
        call.operation = contract.operation
        if call.read is None or call.read.contract is not contract:
            try:
                call.read = read_proposal(governed, contract, call.session, call.proposal, self._seals)
            except UnreadableProposalError as error:
                told = refusal(call.id, error.code, say=f"{error}.".capitalize(), field=error.field)
                return await self._recording.record(call, standing, told, None)
        # What asked before may have acted before: nobody is told that nothing was changed, from here on.
        call.may_have_acted = call.may_have_acted or call.read.continues is not None
        facts, decision = await self._deciding.on(call, governed, call.read, standing)
        said: tuple[Approval, ...] = ()
        if isinstance(decision, RequireApproval):
            said = await self._approving.said(call.session, facts, governed.release.digest)
            # Decided afresh, with what people said among the facts.
            facts = msgspec.structs.replace(facts, approvals=lifts(said, call.spent))
            decision = governed.engine.decide(facts)
        decided = call.event(
            CallDecided(
                decision=decision,
                facts=msgspec.Raw(msgspec.json.encode(facts, order="deterministic")),
                epochs=standing.epochs,
                facts_version=standing.state.facts_version,
            ),
        )
        match decision:
            case Deny():
                if facts.canaries:
                    await self._watch.sent_off(call.session, call.id, facts.operation, facts.canaries)
                detail = "; ".join(f"{reason.policy_id} {reason.detail}".strip() for reason in decision.reasons)
                return await self._recording.record(call, standing, of_deny(call.id, decision), decided, detail)
            case RequireApproval():
                return await self._ask(call, standing, facts, decision, decided, denial(said, decision))
            case Allow():
                try:
                    return await self._claim(call, call.read, standing, governed, facts, decision, decided)
                except UnreadableProposalError as error:
                    told = refusal(call.id, error.code, say=f"{error}.".capitalize(), field=error.field)
                    return await self._recording.record(call, standing, told, decided)
            case _:
                assert_never(decision)

    async def _ask(
        self,
        call: Call,
        standing: Standing,
        facts: Facts,
        decision: RequireApproval,
        decided: EventDraft,
        denied: Approval | None,
        over: tuple[Budget, OverBudget] | None = None,
    ) -> CallResult | Standing:
        """Put the call to people, and wait for them as long as the caller would rather wait than come back."""
        if denied is not None:
            return await self._recording.record(
                call, standing, of_denial(call.id, denied), decided, detail=f"by {denied.answered_by}"
            )
        # People are never asked on a mere belief: what they would answer lifts nothing under another release.
        now = await self._beliefs.renewed(call.session)
        if now is None:
            return refusal(call.id, "session_ended")
        if now.epochs != standing.epochs:
            return now
        try:
            asked = await self._approving.ask(call.session, call.id, facts, decision, None if over is None else over[1])
        except TooManyOpenError:
            return await self._recording.record(call, standing, refusal(call.id, "approvals_waiting"), decided)
        if await self._approving.wait(asked, call.answer_by_s):
            return standing  # somebody has answered: decide again
        if over is not None:
            return await self._recording.record(call, standing, of_budget(call.id, *over, asked), decided)
        return await self._recording.record(call, standing, of_approval(call.id, decision, asked), decided)

    async def _claim(
        self,
        call: Call,
        read: ReadProposal,
        standing: Standing,
        governed: Governed,
        facts: Facts,
        decision: Allow,
        decided: EventDraft,
    ) -> CallResult | Standing:
        """Claim where the tool may be called, or where an earlier answer will do; else refuse before anything is claimed."""
        way = await self._ways.find(call, read, decision)
        if isinstance(way, Shut):
            return await self._recording.record(call, standing, of_shut(call.id, way), decided, way.detail)
        with way.held():
            return await self._claim_now(call, read, standing, governed, facts, decision, decided, way)

    async def _claim_now(
        self,
        call: Call,
        read: ReadProposal,
        standing: Standing,
        governed: Governed,
        facts: Facts,
        decision: Allow,
        decided: EventDraft,
        way: Way,
    ) -> CallResult | Standing:
        if not self._lease.is_valid() and not await self._lease.ready(LEASE_WAIT_MS):
            return await self._recording.tell(call, refusal(call.id, "control_plane_unavailable"), decided, detail="no lease")
        new_id, histories, takings = self._ids.new("clm"), self._histories, self._takings
        claiming = Claiming.of(call, read, standing, governed, decision, decided, way, histories, takings, new_id)
        request = claiming.request()
        permit = mint(
            decision,
            call_hash=read.call_hash,
            claim_id=request.claim_id,
            expires_monotonic_s=self._clock.monotonic_s() + PERMIT_HOLDS_S,
            control_epoch=standing.epochs.control,
            scopes=request.scopes,
        )
        answer = await self._take(call, request)
        if not isinstance(answer, Claimed):
            return await self._not_claimed(claiming, facts, answer)
        contract, session = read.contract, call.session
        call.may_have_acted = not contract.is_read_only
        self._beliefs.advance(session.lineage.id, answer.state)
        if request.history is not None and answer.history_n is not None:
            past = past_call(session, request.claim_id, call.id, contract, request.history, answer.claimed_at_us)
            histories.claimed(session, past, answer.history_n)
        return await self._execute(call, claiming.work(answer, permit, self._asking), decision, way)

    async def _not_claimed(self, claiming: Claiming, facts: Facts, answer: NotClaimed) -> CallResult | Standing:
        call, standing, decided = claiming.call, claiming.standing, claiming.decided
        lineage = call.session.lineage.id
        match answer:
            case Stale():
                return self._beliefs.correct(lineage, answer)
            case Duplicate():
                # It was made before: whatever keeps that from being told, nobody is told now that nothing was changed.
                call.may_have_acted = call.may_have_acted or not claiming.read.contract.is_read_only
                return await self._replays.answer(call, claiming.read, standing, claiming.decision, decided, answer)
            case KeyReused():
                return await self._recording.tell(call, refusal(call.id, "idempotency_key_reused"))
            case Halted():
                self._beliefs.forget(lineage)
                return await self._recording.tell(call, of_halt(call.id, answer.scope), decided, detail=answer.reason)
            case OverRate():
                told = refusal(call.id, "rate_limited", retry_after_ms=answer.retry_after_ms)
                return await self._recording.tell(
                    call, told, decided, detail=f"{answer.rate.limit} in {answer.rate.window_s} s"
                )
            case OverBudget():
                return await self._over_budget(claiming, facts, answer)
            case ApprovalGone():
                call.spent |= {answer.approval_id}
                call.lifted = {name: given for name, given in call.lifted.items() if given != answer.approval_id}
                return standing  # decide again without it: people are asked anew
            case SessionEnded():
                self._beliefs.forget(lineage)
                return refusal(call.id, "session_ended")
            case _:
                assert_never(answer)

    async def _take(self, call: Call, request: ClaimRequest) -> ClaimAnswer:
        """Claim; when calls in flight may give back what is lacking, wait for them for a bounded time."""
        pause_ms = BUDGET_POLL_FIRST_MS
        while True:
            if call.abandoned:
                raise asyncio.CancelledError
            answer = await self._desk.claim(request)
            now_s = self._clock.monotonic_s()
            if not isinstance(answer, OverBudget) or not answer.may_free or now_s >= (call.room_by_s or math.inf):
                return answer
            if call.room_by_s is None:
                call.room_by_s = now_s + BUDGET_WAIT_MS / 1000
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(2 * pause_ms, BUDGET_POLL_MOST_MS)

    async def _over_budget(self, claiming: Claiming, facts: Facts, over: OverBudget) -> CallResult | Standing:
        """A hit stops the call; where the budget names a rule, people may let this very call go beyond it."""
        call, standing, governed = claiming.call, claiming.standing, claiming.governed
        decision, decided = claiming.decision, claiming.decided
        budget = governed.budget(over.charge)
        rule = governed.release.approvals.get(budget.rule)
        detail = (
            f"{over.charge.about or budget.per}: {over.used} used, {over.charge.amount} asked for, limit {over.charge.limit}"
        )
        if rule is None:
            return await self._recording.tell(
                call, of_budget(call.id, budget, over), decided, detail=f"{budget.name}: {detail}"
            )
        said = await self._approving.said(call.session, facts, decision.release_digest)
        given = given_for(said, budget, call.spent)
        if given:
            call.lifted[budget.name] = given
            return standing
        needed = question(decision, budget, rule, over)
        return await self._ask(call, standing, facts, needed, decided, denial(said, needed), (budget, over))

    async def _execute(self, call: Call, work: Work, decision: Allow, way: Way) -> CallResult:
        async def taken_up(released: Released) -> Item | None:
            state, operation = work.claimed.state, work.contract.operation
            await self._contexts.labelled(work.session, state, work.labels, call.id, operation, released)
            choices = await self._plans.choices(work.session, state, operation)
            return await self._contexts.entering(work.session, work.contract, call.id, released, work.arguments, choices)

        ending = await self._executor.run(
            work, lambda raw: release_output(work.contract, decision, raw, call.caller.offers), taken_up=taken_up
        )
        if way.place is not None:
            way.place.leave(ending.answered)
        if isinstance(ending.settled, NotSettled):
            # Somebody else (a reaper, a person) has spoken about this claim since: what we hold may not be released.
            return refusal(call.id, "not_recorded")
        self._beliefs.advance(work.session.lineage.id, ending.settled.state)
        n = ending.settled.history_n
        self._histories.ended(work.session, work.claimed.claim_id, ending.state, n, unsent=ending.unsent)
        await self._contexts.returned(work.session, work.contract, call.id, ending.released)
        return self._seals.sealed(self._ways.ended(call, work, decision, ending), work)
