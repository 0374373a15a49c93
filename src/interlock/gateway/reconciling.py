"""Calls in doubt, found out: by the tool's own key, by a reading, or by a person. Nothing else is ever sent again.

Every process does this for its environment; whoever takes a doubt first has it. No clock but this process's own decides when
enough time has passed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from interlock.core.canonical import canonical
from interlock.core.claim import UNSEEN, Claimed, Labels, SettleRequest
from interlock.core.contract import KEY, Contract
from interlock.core.decision import Allow
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.terms import Posture
from interlock.core.who import Session
from interlock.gateway.evidence import Told, judge
from interlock.gateway.governed import Governed
from interlock.gateway.internal import InternalCalls, scopes_of
from interlock.gateway.keys import call_hash
from interlock.gateway.limits import (
    ANSWERS_WITHIN_S,
    DOUBTS_AT_ONCE,
    GIVEN_UP_SAID_S,
    LOOK_HOLD_MARGIN_S,
    LOOK_PAUSE_MOST_S,
    MAX_DOUBTS_WATCHED,
    MAX_LOOKS,
    PERMIT_HOLDS_S,
    SETTLE_MARGIN_MS,
)
from interlock.gateway.outputs import worst_labels
from interlock.gateway.ports import DoubtDesk, Standing
from interlock.gateway.refusals import StoppedError
from interlock.gateway.released import RawOutput, Released
from interlock.gateway.stability import Place, Shut
from interlock.gateway.work import Work
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallSettled, ClaimRetried, DoubtAsked, DoubtResolved
from interlock.policy.permit import mint
from interlock.store.doubts import Doubt

_log = logging.getLogger(__name__)

_ENGINE: Final = "contract: sent again with the tool's own key"


class _Proposed(msgspec.Struct, frozen=True):
    arguments: msgspec.Raw
    call_hash: str


class Reconciler:
    """Looks into the doubts of one environment. `round` is a chore: it is called again and again."""

    def __init__(
        self,
        internal: InternalCalls,
        *,
        doubts: DoubtDesk,
        session_of: Callable[[str], Awaitable[Session | None]],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._internal = internal
        self._desk, self._beliefs, self._executor = internal.desk, internal.beliefs, internal.executor
        self._lease, self._stability = internal.lease, internal.stability
        self._doubts = doubts
        self._session_of = session_of
        self._clock = clock
        self._ids = ids
        self._seen: dict[tuple[str, int], float] = {}

    async def round(self, governed: Governed | None) -> int:
        """Look into whatever is due by this release; gives how many were looked into. Raises `StoreUnavailableError`."""
        now_s = self._clock.monotonic_s()
        found = await self._doubts.to_look_into(MAX_DOUBTS_WATCHED)
        self._seen = {(item.claim_id, item.attempt): self._seen.get((item.claim_id, item.attempt), now_s) for item in found}
        if governed is None or not self._lease.is_valid():
            return 0
        due = []
        for doubt in found:
            contract = governed.release.contracts.get(doubt.operation)
            if now_s - self._seen[doubt.claim_id, doubt.attempt] >= self._wait_s(doubt, contract, governed):
                due.append((doubt, contract))
        answers = await asyncio.gather(
            *(self._look(doubt, contract, governed) for doubt, contract in due[:DOUBTS_AT_ONCE]), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                _log.error("a doubt could not be looked into", exc_info=answer, extra={"event": "doubt.not_looked_into"})
        return len(answers)

    def _wait_s(self, doubt: Doubt, contract: Contract | None, governed: Governed) -> float:
        """How long after it was first seen in doubt, on our own clock.

        INVARIANT: "not found" is only asked for when the attempt can no longer begin, and what it began has had its time:
        a permit ends on its owner's clock, whether that process is dead, paused or only thought to be gone. One whose tool
        waits for answers is left alone, for a time.
        """
        answers_s = ANSWERS_WITHIN_S if doubt.awaits else 0.0
        over_s = PERMIT_HOLDS_S if doubt.orphaned else 0.0
        if contract is None or contract.is_read_only:
            return answers_s
        if self._again(doubt, contract, governed):
            # Who was told that it was not made is not told a lie, while its process lives to say so.
            return answers_s + (GIVEN_UP_SAID_S if doubt.orphaned else 0.0)
        if contract.evidence is None:
            return over_s + answers_s
        sent_s = contract.timeout_ms / 1000 if doubt.orphaned else 0.0
        return over_s + sent_s + contract.settles_within_s + answers_s

    def _again(self, doubt: Doubt, contract: Contract, governed: Governed) -> bool:
        unchanged = doubt.release_digest == governed.release.digest
        return contract.may_be_sent_again and unchanged and doubt.looks < MAX_LOOKS

    async def _look(self, doubt: Doubt, contract: Contract | None, governed: Governed) -> None:
        hold_s = LOOK_HOLD_MARGIN_S
        for operation in filter(None, (contract, governed.release.contracts.get(contract.verify or "") if contract else None)):
            hold_s += operation.timeout_ms / 1000
        looks = await self._doubts.look(doubt, hold_s)
        if looks is None:
            return
        if contract is None:
            await self._ask(doubt, "the release in force does not have this operation")
            return
        if contract.is_read_only:
            await self._settle(doubt, contract, "failed", how="reads", why="it only reads, so nothing is in doubt")
            return
        proposed = _proposed(doubt)
        if proposed is None:
            await self._ask(doubt, "what was asked for has been forgotten")
            return
        session = await self._session_of(doubt.session_id)
        if session is None:
            await self._ask(doubt, "its session is over, and nothing is read or sent in a session that is over")
            return
        try:
            if self._again(doubt, contract, governed) and await self._sent_again(doubt, contract, session, proposed):
                return
            await self._read(doubt, contract, session, proposed, governed, looks)
        except StoppedError as stopped:
            if stopped.code == "session_ended":
                await self._ask(doubt, "its session is over, and nothing is read or sent in a session that is over")
            else:
                await self._doubts.look_again_after(doubt, 1.0, counts=False)

    async def _sent_again(self, doubt: Doubt, contract: Contract, session: Session, proposed: _Proposed) -> bool:
        """Send it again with the key it was sent with, if it may start now: as another attempt, which alone settles."""
        standing: Standing | None = await self._beliefs.of(session)
        if standing is None or self._lease.in_force(standing.state, scopes_of(session, contract)).posture is not Posture.NORMAL:
            return False
        entered = await self._stability.enter(contract, retry=True)
        if isinstance(entered, Shut):
            raise StoppedError(entered.code, after_ms=entered.after_ms)
        try:
            return await self._in_place(doubt, contract, session, proposed, standing, entered)
        finally:
            entered.leave(None)

    async def _in_place(
        self, doubt: Doubt, contract: Contract, session: Session, proposed: _Proposed, standing: Standing, place: Place
    ) -> bool:
        retried = ClaimRetried(claim_id=doubt.claim_id, operation=doubt.operation, attempt=doubt.attempt + 1)
        attempt = await self._doubts.attempt_again(
            doubt,
            settle_by_ms=contract.timeout_ms + SETTLE_MARGIN_MS,
            control_epoch=standing.epochs.control,
            release_digest=doubt.release_digest,
            event=draft(retried, ids=self._ids, call_id=doubt.call_id),
        )
        if attempt is None:
            self._beliefs.forget(session.lineage.id)
            return False
        arguments = bytes(proposed.arguments)
        hashed = call_hash(contract.operation, arguments)
        permit = mint(
            Allow(release_digest=doubt.release_digest, facts_digest="", engine=_ENGINE),
            call_hash=hashed,
            claim_id=doubt.claim_id,
            expires_monotonic_s=self._clock.monotonic_s() + PERMIT_HOLDS_S,
            control_epoch=standing.epochs.control,
            scopes=scopes_of(session, contract),
        )
        work = Work(
            call_id=doubt.call_id,
            session=session,
            contract=contract,
            arguments=arguments,
            call_hash=hashed,
            claimed=Claimed(claim_id=doubt.claim_id, attempt=attempt, state=standing.state),
            permit=permit,
            labels=worst_labels(contract),
            may_be_repeated=doubt.keyed,
            sent_before=True,
        )
        # Its caller is gone: what the tool says is kept for the repeated call, and filtered when that one asks.
        ending = await self._executor.run(work, lambda _: Released())
        place.leave(ending.answered)
        return True

    async def _read(
        self, doubt: Doubt, contract: Contract, session: Session, proposed: _Proposed, governed: Governed, looks: int
    ) -> None:
        evidence = contract.evidence
        reader = None if evidence is None else governed.release.contracts.get(evidence.read)
        if evidence is None or reader is None:
            where = f"; look at {contract.verify}" if contract.verify else ""
            await self._ask(doubt, f"the contract does not say how to find out{where}")
            return
        if self._clock.monotonic_s() - self._seen[doubt.claim_id, doubt.attempt] < self._wait_s(
            msgspec.structs.replace(doubt, looks=MAX_LOOKS), contract, governed
        ):
            # It could not be sent again, and it is too young to be read.
            await self._doubts.look_again_after(doubt, 1.0, counts=True)
            return
        given = msgspec.json.decode(proposed.arguments, type=dict[str, Any])
        asked = {}
        for name in reader.arguments.fields:
            source = evidence.arguments.get(name, name)
            value = doubt.claim_id if source == KEY else given.get(source)
            if value is not None:
                asked[name] = value
        raw = await self._internal(session, reader, canonical(asked), doubt.call_id, _nothing_more)
        if raw is None:
            if looks < MAX_LOOKS:
                await self._doubts.look_again_after(doubt, min(LOOK_PAUSE_MOST_S, 2.0**looks), counts=True)
            else:
                await self._ask(doubt, f"{evidence.read} has given no answer {looks} times")
            return
        reading = judge(evidence, given, doubt.claim_id, raw)
        if reading.told is Told.UNCLEAR:
            await self._ask(doubt, reading.why)
            return
        state = "succeeded" if reading.told is Told.DONE else "failed"
        await self._settle(doubt, contract, state, how="reading", why=reading.why, nothing_happened=state == "failed")

    async def _settle(
        self, doubt: Doubt, contract: Contract, state: str, *, how: str, why: str, nothing_happened: bool = False
    ) -> None:
        await self._desk.settle(
            settlement(
                doubt,
                DoubtResolved(claim_id=doubt.claim_id, operation=contract.operation, state=state, how=how, why=why),
                nothing_happened=nothing_happened,
                ids=self._ids,
            )
        )

    async def _ask(self, doubt: Doubt, why: str) -> None:
        body = DoubtAsked(claim_id=doubt.claim_id, operation=doubt.operation, why=why)
        await self._doubts.ask_people(doubt, why, draft(body, ids=self._ids, call_id=doubt.call_id))


def settlement(doubt: Doubt, body: DoubtResolved, *, nothing_happened: bool, ids: Ids) -> SettleRequest:
    """The settlement of a doubt whose tool's answer nobody has: by a reading, or by a person.

    `nothing_happened` frees the idempotency key and gives back what was reserved.
    """
    settled = CallSettled(
        claim_id=doubt.claim_id,
        operation=doubt.operation,
        attempt=doubt.attempt,
        state=body.state,
        took_us=0,
        code="" if body.state == "succeeded" else "not_done",
        detail=body.why[:500],
    )
    return SettleRequest(
        claim_id=doubt.claim_id,
        session_id=doubt.session_id,
        lineage_id=doubt.lineage_id,
        attempt=doubt.attempt,
        state=body.state,
        outcome=UNSEEN if body.state == "succeeded" and doubt.keyed else None,
        release_key=nothing_happened,
        labels=Labels(),
        events=tuple(draft(item, ids=ids, call_id=doubt.call_id) for item in (body, settled)),
    )


def _nothing_more(_: RawOutput | None) -> list[EventDraft]:
    return []


def _proposed(doubt: Doubt) -> _Proposed | None:
    """The bytes that were sent; None when they are not on record as they were."""
    try:
        found = msgspec.json.decode(doubt.proposed or "{}", type=_Proposed)
    except msgspec.MsgspecError:
        return None
    return found if call_hash(doubt.operation, bytes(found.arguments)) == found.call_hash else None
