"""How an allowed call may go: to its tool, to what the tool answered before, or nowhere now; and what follows a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from interlock.core.decision import Allow
from interlock.core.ports import Clock
from interlock.gateway.earlier import Earlier, EarlierAnswers, earlier_key
from interlock.gateway.execution import Ending
from interlock.gateway.messages import CallResult
from interlock.gateway.outputs import Stale, to_caller
from interlock.gateway.ports import Settlements
from interlock.gateway.reading import ReadProposal
from interlock.gateway.refusals import of_doubt, refusal
from interlock.gateway.stability import UNSTABLE, Place, Shut, Stability
from interlock.gateway.under_way import Call
from interlock.gateway.work import Work

_FAILURES = frozenset({"tool_failed", "tool_unavailable"})


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """With a `place` the tool is called; with `earlier` that is the answer; with neither the claim only tells of another."""

    place: Place | None = None
    earlier: Earlier | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The place is given back at the end, whatever happened; a verdict given before stands."""
        try:
            yield
        finally:
            if self.place is not None:
                self.place.leave(None)


class Ways:
    """Asked before a claim is made, and told how it ended."""

    def __init__(self, *, stability: Stability, settlements: Settlements, clock: Clock) -> None:
        self._stability = stability
        self._settlements = settlements
        self._earlier = EarlierAnswers(clock)
        self._clock = clock

    async def find(self, call: Call, read: ReadProposal, decision: Allow) -> Way | Shut:
        """The way of this call; `Shut` refuses it before anything is claimed. Raises `StoreUnavailableError`."""
        if call.degraded:
            entered: Place | Shut = Shut(code=UNSTABLE, after_ms=0, detail="it failed")
        else:
            entered = await self._stability.enter(read.contract, retry=call.retries > 0)
        if not isinstance(entered, Shut):
            return Way(place=entered)
        earlier = self._earlier.find(
            earlier_key(call.session, decision, read.contract.operation, read.call_hash), read.contract
        )
        if earlier is not None:
            return Way(earlier=earlier)
        same = read.same.idempotency
        # INVARIANT: of a write that was sent before and may have been done, nobody is told that nothing was changed.
        if same is not None and await self._settlements.is_known(same.key, same.window_s):
            return Way()
        return entered

    def ended(self, call: Call, work: Work, decision: Allow, ending: Ending) -> CallResult:
        """What the caller is told of a settled call; or, with `call.again_in_s`, when and how it is made again."""
        contract = work.contract
        key = earlier_key(work.session, decision, contract.operation, work.call_hash)
        if ending.code:
            if ending.code in _FAILURES and work.earlier is None:
                call.again_in_s = self._stability.retry_in_s(contract, call.retries)
                if call.again_in_s is not None:
                    call.retries += 1
                elif self._earlier.find(key, contract) is not None:
                    call.degraded, call.again_in_s = True, 0.0
            if ending.code == "ask_refused" and ending.state == "in_doubt":
                return refusal(call.id, "asked_in_doubt")
            return of_doubt(call.id, contract) if ending.code == "in_doubt" else refusal(call.id, ending.code)
        if work.earlier is None:
            self._earlier.keep(key, contract, call.id, ending.released)
            return to_caller(call.id, contract, decision, ending.released)
        age_ms = int((self._clock.monotonic_s() - work.earlier.at_s) * 1000)
        stale = Stale(of_call=work.earlier.call_id, at_us=work.earlier.at_us, age_ms=age_ms)
        return to_caller(call.id, contract, decision, ending.released, stale=stale)
