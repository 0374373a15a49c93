"""Putting on record what came to nothing: a decision, or what the store itself refused."""

from __future__ import annotations

from typing import assert_never

from interlock.core.claim import Recorded, SessionEnded, Stale
from interlock.core.event import EventDraft
from interlock.gateway.messages import CallResult, Refusal
from interlock.gateway.ports import ClaimDesk, Standing
from interlock.gateway.refusals import refusal
from interlock.gateway.standing import Beliefs
from interlock.gateway.under_way import Call


class Recording:
    """The record of calls that are not executed. Raises `StoreUnavailableError`: nothing is then known."""

    def __init__(self, desk: ClaimDesk, beliefs: Beliefs) -> None:
        self.desk = desk
        self.beliefs = beliefs

    async def record(
        self, call: Call, standing: Standing, told: Refusal, decided: EventDraft | None, detail: str = ""
    ) -> CallResult | Standing:
        """Record a decision that claims nothing, unless what it was made on has changed: then decide again."""
        told = call.refusing(told)
        events = call.refused(told, decided, detail)
        answer = await self.desk.record(call.record(events, standing))
        match answer:
            case Recorded():
                return told
            case Stale():
                return self.beliefs.correct(call.session.lineage.id, answer)
            case SessionEnded():
                self.beliefs.forget(call.session.lineage.id)
                return refusal(call.id, "session_ended")
            case _:
                assert_never(answer)

    async def tell(self, call: Call, told: Refusal, decided: EventDraft | None = None, *, detail: str = "") -> Refusal:
        """Record a refusal that the store itself gave the reason for; it stands whatever has changed since."""
        told = call.refusing(told)
        await self.desk.record(call.record(call.refused(told, decided, detail), None))
        return told
