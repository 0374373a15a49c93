"""What is asked of the store before a tool is called, and what is carried to the tool once it is granted."""

from __future__ import annotations

import msgspec

from interlock.core.claim import Claimed, ClaimRequest, Labels
from interlock.core.decision import Allow
from interlock.core.event import EventDraft
from interlock.gateway.asking import Asker, Asking
from interlock.gateway.budgeting import Taken, Taking, Takings
from interlock.gateway.governed import Governed
from interlock.gateway.histories import Histories
from interlock.gateway.internal import scopes_of
from interlock.gateway.limits import SETTLE_MARGIN_MS
from interlock.gateway.outputs import worst_labels
from interlock.gateway.ports import Standing
from interlock.gateway.reading import ReadProposal
from interlock.gateway.under_way import Call
from interlock.gateway.ways import Way
from interlock.gateway.work import Work
from interlock.ledger.asks import ClaimContinued
from interlock.ledger.events import CallClaimed
from interlock.policy.permit import Permit


class Claiming(msgspec.Struct, frozen=True, kw_only=True):
    """One allowed call that asks for its claim. What goes on with answers asks to go on, and takes nothing a second time."""

    call: Call
    read: ReadProposal
    standing: Standing
    governed: Governed
    decision: Allow
    decided: EventDraft
    way: Way
    claim_id: str
    remembered: str | None
    labels: Labels
    taken: Taken

    @classmethod
    def of(
        cls,
        call: Call,
        read: ReadProposal,
        standing: Standing,
        governed: Governed,
        decision: Allow,
        decided: EventDraft,
        way: Way,
        histories: Histories,
        takings: Takings,
        new_id: str,
    ) -> Claiming:
        """One of these; `new_id` names a claim that is made anew.

        Raises `UnreadableProposalError` when the arguments do not say what a budget counts.
        """
        goes_on, contract = read.continues, read.contract
        taking = Taking(contract=contract, arguments=read.arguments, entities=read.entities)
        return cls(
            call=call,
            read=read,
            standing=standing,
            governed=governed,
            decision=decision,
            decided=decided,
            way=way,
            claim_id=goes_on.claim_id if goes_on else new_id,
            remembered=None if goes_on else histories.kept(governed, call.session, contract, read.arguments),
            labels=worst_labels(contract),
            taken=takings.of(governed, call.session, call.proposal.run, taking, frozenset(call.lifted)),
        )

    def request(self) -> ClaimRequest:
        """What the store is asked."""
        call, read, standing = self.call, self.read, self.standing
        contract, session = read.contract, call.session
        approvals = (*self.decision.approvals, *call.lifted.values())
        claimed = CallClaimed(
            claim_id=self.claim_id,
            operation=contract.operation,
            worst_labels=self.labels,
            approvals=approvals,
            reserved=() if read.continues else self.taken.reserved,
        )
        events: tuple[EventDraft, ...] = (call.proposed(), self.decided, call.event(claimed))
        if read.continues:
            goes_on = ClaimContinued(
                claim_id=self.claim_id,
                operation=contract.operation,
                attempt=read.continues.attempt + 1,
                by_call=call.id,
            )
            events = (*events, call.event(goes_on, read.continues.call_id))
        return ClaimRequest(
            claim_id=self.claim_id,
            call_id=call.id,
            session_id=session.session_id,
            lineage_id=session.lineage.id,
            operation=contract.operation,
            call_hash=read.same.same_hash,
            release_digest=standing.release_digest,
            epochs=standing.epochs,
            facts_version=standing.state.facts_version,
            scopes=scopes_of(session, contract),
            idempotency=read.same.idempotency,
            rates=() if read.continues else self.decision.obligations.rates,
            worst_labels=self.labels,
            settle_by_ms=contract.timeout_ms + SETTLE_MARGIN_MS,
            events=events,
            approvals=approvals,
            approved_hash=read.call_hash,
            charges=() if read.continues else self.taken.charges,
            history=self.remembered,
            history_version=call.history_version,
            work=call.work,
            continues=read.continues.attempt if read.continues else 0,
        )

    def work(self, claimed: Claimed, permit: Permit, asking: Asking) -> Work:
        """What the executor is given."""
        call, read, contract = self.call, self.read, self.read.contract
        return Work(
            call_id=call.id,
            session=call.session,
            contract=contract,
            arguments=read.raw,
            call_hash=read.call_hash,
            claimed=claimed,
            permit=permit,
            labels=self.labels,
            extra_log=self.decision.obligations.extra_log,
            may_be_repeated=read.same.idempotency is not None,
            timed=self.taken.timed,
            calls_the_tool=self.way.place is not None,
            earlier=self.way.earlier,
            line=asking.line(Asker.of(call.id, call.session, claimed.state, contract, call.caller, self.governed.canaries)),
            more=read.more(),
            of_work=call.work,
            asked_in=read.continues.attempt if read.continues else 0,
            first_call=read.continues.call_id if read.continues else "",
        )
