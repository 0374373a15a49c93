"""A call that was claimed before is answered from the record, never run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from interlock.core.canonical import digest
from interlock.core.claim import NOT_KEPT, UNSEEN, Duplicate, Recorded, SessionEnded, Stale
from interlock.core.decision import Allow
from interlock.core.event import EventDraft
from interlock.core.ports import Clock
from interlock.gateway.contexts import Contexts
from interlock.gateway.messages import CallResult
from interlock.gateway.outputs import release_output, stored_output, to_caller, worst_labels
from interlock.gateway.ports import Settlements, Standing
from interlock.gateway.reading import ReadProposal
from interlock.gateway.recording import Recording
from interlock.gateway.refusals import of_doubt, refusal
from interlock.gateway.under_way import Call
from interlock.ledger.events import CallReplayed

_WITHOUT_RESULT: Final[Mapping[str | None, str]] = {UNSEEN: "done_unseen", NOT_KEPT: "result_not_kept"}


class Replays:
    """Answers duplicates. A `Standing` answer means: something has changed, decide again."""

    def __init__(self, *, recording: Recording, settlements: Settlements, contexts: Contexts, clock: Clock) -> None:
        self._recording, self._desk, self._beliefs = recording, recording.desk, recording.beliefs
        self._settlements = settlements
        self._contexts = contexts
        self._clock = clock

    async def answer(
        self,
        call: Call,
        read: ReadProposal,
        standing: Standing,
        decision: Allow,
        decided: EventDraft,
        earlier: Duplicate,
    ) -> CallResult | Standing:
        """The same call was claimed before: wait for it, answer with its outcome, or say that it is in doubt."""
        while earlier.claim_state == "claimed":
            left_ms = int((call.wait_until_s - self._clock.monotonic_s()) * 1000)
            if not earlier.owner_alive or left_ms <= 0:
                code = "still_running" if earlier.owner_alive else "in_doubt"
                told = refusal(call.id, code, of=earlier.call_id)
                if code == "in_doubt":
                    told = of_doubt(call.id, read.contract, of=earlier.call_id)
                return await self._recording.tell(call, told, decided)
            if await self._settlements.wait(earlier.claim_id, left_ms):
                return standing  # settled, or its key is free again: decide again on today's facts
            earlier = msgspec.structs.replace(earlier, owner_alive=self._clock.monotonic_s() >= call.wait_until_s)
        if earlier.claim_state == "in_doubt":
            return await self._recording.tell(call, of_doubt(call.id, read.contract, of=earlier.call_id), decided)
        if earlier.outcome is None and earlier.claim_state == "failed" and read.continues is not None:
            return await self._recording.tell(call, refusal(call.id, "answers_late", of=earlier.call_id), decided)
        if earlier.outcome is None or earlier.outcome in _WITHOUT_RESULT:
            done = _WITHOUT_RESULT.get(earlier.outcome, "result_withheld")
            return await self._recording.tell(call, refusal(call.id, done, of=earlier.call_id), decided)
        released = release_output(read.contract, decision, stored_output(earlier.outcome))
        # The lineage may have begun afresh since, and whoever works with it now was not there then.
        worst, operation = worst_labels(read.contract), read.contract.operation
        await self._contexts.labelled(call.session, standing.state, worst, call.id, operation, released)
        replayed = CallReplayed(
            operation=read.contract.operation,
            of_call=earlier.call_id,
            claim_id=earlier.claim_id,
            claimed_at_us=earlier.claimed_at_us,
            released_digest=digest(msgspec.json.encode(released)),
        )
        events = (call.proposed(), decided, call.event(replayed))
        recorded = await self._desk.record(call.record(events, standing))
        match recorded:
            case Recorded():
                return to_caller(call.id, read.contract, decision, released, replayed=earlier)
            case Stale():
                return self._beliefs.correct(call.session.lineage.id, recorded)
            case SessionEnded():
                return refusal(call.id, "session_ended")
            case _:
                assert_never(recorded)
