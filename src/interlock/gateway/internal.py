"""Calls of the gateway's own, to learn facts: claimed, recorded and settled like any other, and only ever reads."""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

import msgspec

from interlock.core.budget import Budget, Charge, Reserved
from interlock.core.canonical import digest
from interlock.core.claim import (
    ApprovalGone,
    Claimed,
    ClaimRequest,
    Duplicate,
    Halted,
    KeyReused,
    Labels,
    OverBudget,
    OverRate,
    SessionEnded,
    Stale,
)
from interlock.core.contract import Contract
from interlock.core.decision import Allow
from interlock.core.ports import Clock, Ids
from interlock.core.terms import QUARANTINE
from interlock.core.who import Lineage, Parent, Session
from interlock.gateway.budgeting import lookup_charges
from interlock.gateway.execution import Executor, MoreEvents
from interlock.gateway.keys import call_hash
from interlock.gateway.lease import Lease
from interlock.gateway.limits import (
    LEASE_WAIT_MS,
    MAX_CACHED_SCOPES,
    MAX_ORDERED_DECISION_ROUNDS,
    PERMIT_HOLDS_S,
    SETTLE_MARGIN_MS,
)
from interlock.gateway.ports import ClaimDesk, Standing
from interlock.gateway.refusals import StoppedError, say_of_shut
from interlock.gateway.released import RawOutput, Released
from interlock.gateway.stability import Place, Shut, Stability
from interlock.gateway.standing import Beliefs
from interlock.gateway.work import Work
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallClaimed, CallProposed
from interlock.policy.permit import mint

_ENGINE = "contract: internal read"


class InternalCalls:
    """Implements `resources.InternalCall`."""

    def __init__(
        self,
        *,
        desk: ClaimDesk,
        lease: Lease,
        beliefs: Beliefs,
        executor: Executor,
        stability: Stability,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.desk = desk
        self.stability = stability
        self.lease = lease
        self.beliefs = beliefs
        self.executor = executor
        self._clock = clock
        self._ids = ids

    async def __call__(
        self,
        session: Session,
        contract: Contract,
        arguments: bytes,
        call_id: str,
        more_events: MoreEvents,
        budgets: tuple[Budget, ...] = (),
    ) -> RawOutput | None:
        """The raw output, or None when the tool gave none. Raises `StoppedError` when execution is stopped.

        `budgets` are those that count it: of a caller who has it made, and none for what is read to find out about a doubt.
        """
        charges = lookup_charges(budgets, session, contract)
        hashed = call_hash(contract.operation, arguments)
        for _ in range(MAX_ORDERED_DECISION_ROUNDS):
            standing = await self.beliefs.of(session)
            if standing is None:
                raise StoppedError("session_ended")
            if not self.lease.is_valid() and not await self.lease.ready(LEASE_WAIT_MS):
                raise StoppedError("control_plane_unavailable")
            entered = await self.stability.enter(contract)
            if isinstance(entered, Shut):
                raise StoppedError(entered.code, say=say_of_shut(entered), after_ms=entered.after_ms)
            try:
                claim_id = self._ids.new("clm")
                request = self._request(session, contract, arguments, hashed, call_id, claim_id, standing, charges)
                answer = await self.desk.claim(request)
                if isinstance(answer, Claimed):
                    return await self._run(
                        session, contract, arguments, hashed, call_id, answer, standing, more_events, entered
                    )
            finally:
                entered.leave(None)
            match answer:
                case Stale():
                    self.beliefs.correct(session.lineage.id, answer)
                case Halted():
                    self.beliefs.forget(session.lineage.id)
                    raise StoppedError("quarantined" if answer.scope.startswith(f"{QUARANTINE}:") else "halted")
                case SessionEnded():
                    raise StoppedError("session_ended")
                case OverBudget():
                    over = next(budget for budget in budgets if budget.name == answer.charge.budget)
                    raise StoppedError("over_budget", over=(over, answer))
                case Duplicate() | KeyReused() | OverRate() | ApprovalGone():
                    return None  # cannot happen without a key, a rate or an approval; then nothing was learnt
                case _:
                    assert_never(answer)
        raise StoppedError("contended")

    async def _run(
        self,
        session: Session,
        contract: Contract,
        arguments: bytes,
        hashed: str,
        call_id: str,
        claimed: Claimed,
        standing: Standing,
        more_events: MoreEvents,
        place: Place,
    ) -> RawOutput | None:
        grounds = Allow(release_digest=standing.release_digest, facts_digest="", engine=_ENGINE)
        permit = mint(
            grounds,
            call_hash=hashed,
            claim_id=claimed.claim_id,
            expires_monotonic_s=self._clock.monotonic_s() + PERMIT_HOLDS_S,
            control_epoch=standing.epochs.control,
            scopes=scopes_of(session, contract),
        )
        work = Work(
            call_id=call_id,
            session=session,
            contract=contract,
            arguments=arguments,
            call_hash=hashed,
            claimed=claimed,
            permit=permit,
            labels=Labels(),
        )
        learnt: list[RawOutput] = []

        def keep_inside(raw: RawOutput) -> Released:
            # What is learnt for policy is never released to a caller, so the ledger records it as facts, not as output.
            learnt.append(raw)
            return Released()

        ending = await self.executor.run(work, keep_inside, more_events)
        place.leave(ending.answered)
        if ending.code in {"halted", "quarantined", "control_plane_unavailable"}:
            raise StoppedError(ending.code)
        return learnt[0] if learnt else None

    def _request(
        self,
        session: Session,
        contract: Contract,
        arguments: bytes,
        hashed: str,
        call_id: str,
        claim_id: str,
        standing: Standing,
        charges: tuple[Charge, ...],
    ) -> ClaimRequest:
        proposed = CallProposed(
            operation=contract.operation,
            arguments=msgspec.Raw(arguments),
            arguments_digest=digest(arguments),
            call_hash=hashed,
        )
        claimed = CallClaimed(
            claim_id=claim_id,
            operation=contract.operation,
            worst_labels=Labels(),
            reserved=tuple(Reserved(budget=charge.budget, amount=str(charge.amount)) for charge in charges),
        )
        return ClaimRequest(
            claim_id=claim_id,
            call_id=call_id,
            session_id=session.session_id,
            lineage_id=session.lineage.id,
            operation=contract.operation,
            call_hash=hashed,
            release_digest=standing.release_digest,
            epochs=standing.epochs,
            facts_version=standing.state.facts_version,
            scopes=scopes_of(session, contract),
            idempotency=None,
            settle_by_ms=contract.timeout_ms + SETTLE_MARGIN_MS,
            charges=charges,
            events=(
                draft(proposed, ids=self._ids, call_id=call_id),
                draft(claimed, ids=self._ids, call_id=call_id),
            ),
        )


def scopes_of(session: Session, contract: Contract) -> tuple[str, ...]:
    """Every control scope that can stop a call of this contract in this session."""
    return _scopes_of(session.lineage, session.session_id, session.parents, contract.tool, contract.operation)


def session_scopes(session: Session) -> tuple[str, ...]:
    """Every control scope that can stop this session whatever it calls."""
    return _session_scopes(session.lineage, session.session_id, session.parents)


@lru_cache(MAX_CACHED_SCOPES)
def _scopes_of(lineage: Lineage, session_id: str, parents: tuple[Parent, ...], tool: str, operation: str) -> tuple[str, ...]:
    quarantine = f"{QUARANTINE}:{lineage.environment}/{operation}"
    return (*_session_scopes(lineage, session_id, parents), f"tool:{tool}", f"operation:{operation}", quarantine)


def _session_scopes(lineage: Lineage, session_id: str, parents: tuple[Parent, ...]) -> tuple[str, ...]:
    return (
        "fleet",
        f"tenant:{lineage.tenant}",
        f"environment:{lineage.environment}",
        *dict.fromkeys(f"agent:{agent}" for agent in (lineage.agent, *(parent.agent for parent in parents))),
        f"user:{lineage.tenant}/{lineage.user}",
        f"session:{session_id}",
        *(f"session:{parent.session_id}" for parent in parents),
    )
