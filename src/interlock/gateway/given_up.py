"""Claims whose answer never came: nothing was called for them, and when one is found committed later this process says so."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from interlock.core.claim import (
    ClaimAnswer,
    ClaimRequest,
    NotSettled,
    RecordAnswer,
    RecordRequest,
    SettleAnswer,
    SettleRequest,
)
from interlock.core.ports import Clock, Ids
from interlock.gateway.limits import GIVEN_UP_AT_ONCE, GIVEN_UP_WATCHED_S, MAX_GIVEN_UP
from interlock.gateway.ports import ClaimDesk, Settlements
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallSettled

_log = logging.getLogger(__name__)

CODE: Final = "control_plane_unavailable"
_DETAIL: Final = "not executed: the database did not answer the claim, so it was given up before anything was called"


class _GivenUp(msgspec.Struct):
    """What is needed to settle one claim. `looked_s` is when the database first said that it has no such claim."""

    claim_id: str
    call_id: str
    session_id: str
    lineage_id: str
    operation: str
    looked_s: float | None = None


class GivenUp:
    """A `ClaimDesk` that remembers the claims whose answer it did not get. `round` is a chore: it settles what was committed.

    INVARIANT: whoever got no answer has no claim, so what stands here has not reached its tool, and never will: what is not
    given up is not settled here. A process that dies leaves such a claim in doubt, like any other.
    """

    def __init__(self, desk: ClaimDesk, settlements: Settlements, *, clock: Clock, ids: Ids) -> None:
        self._desk = desk
        self._settlements = settlements
        self._clock = clock
        self._ids = ids
        self._claims: OrderedDict[str, _GivenUp] = OrderedDict()

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._claims)

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """As the desk's own."""
        try:
            return await self._desk.claim(request)
        except BaseException:
            self._note(request)
            raise

    async def record(self, request: RecordRequest) -> RecordAnswer:
        """As the desk's own."""
        return await self._desk.record(request)

    async def settle(self, request: SettleRequest) -> SettleAnswer:
        """As the desk's own."""
        return await self._desk.settle(request)

    async def round(self) -> int:
        """Settle those that turn out to be committed; gives how many. Raises `StoreUnavailableError`."""
        if not self._claims:
            return 0
        asked = tuple(self._claims)
        committed = await self._settlements.committed(asked)
        # Another round may have settled some of them meanwhile: that of a process that leaves goes on beside the chore's.
        found = [given_up for claim_id in committed[:GIVEN_UP_AT_ONCE] if (given_up := self._claims.get(claim_id)) is not None]
        settled = await asyncio.gather(*map(self._settle, found), return_exceptions=True)
        self._leave_alone(asked)
        for told in settled:
            if isinstance(told, BaseException):
                raise told
        return len(settled)

    async def _settle(self, given_up: _GivenUp) -> None:
        body = CallSettled(
            claim_id=given_up.claim_id,
            operation=given_up.operation,
            attempt=1,
            state="failed",
            took_us=0,
            code=CODE,
            detail=_DETAIL,
        )
        answer = await self._desk.settle(
            SettleRequest(
                claim_id=given_up.claim_id,
                session_id=given_up.session_id,
                lineage_id=given_up.lineage_id,
                attempt=1,
                state="failed",
                outcome=None,
                release_key=True,
                events=(draft(body, ids=self._ids, call_id=given_up.call_id),),
            )
        )
        # Also when somebody else has taken it up, as another attempt: that one is not for us to speak of.
        self._claims.pop(given_up.claim_id, None)
        if isinstance(answer, NotSettled):
            return
        about = {"event": "claim.given_up", "claim_id": given_up.claim_id, "operation": given_up.operation}
        _log.warning("a claim that was given up had been committed: it was not executed", extra=about)

    def _leave_alone(self, asked: Sequence[str]) -> None:
        """Watch no longer for what has been asked after for long enough, while the database answered."""
        now_s = self._clock.monotonic_s()
        for claim_id in asked:
            given_up = self._claims.get(claim_id)
            if given_up is None:
                continue
            if given_up.looked_s is None:
                given_up.looked_s = now_s
            elif now_s - given_up.looked_s > GIVEN_UP_WATCHED_S:
                del self._claims[claim_id]

    def _note(self, request: ClaimRequest) -> None:
        if request.continues:
            return  # the claim is another call's, which may have acted; and others may let it go on with the same number
        self._claims[request.claim_id] = _GivenUp(
            claim_id=request.claim_id,
            call_id=request.call_id,
            session_id=request.session_id,
            lineage_id=request.lineage_id,
            operation=request.operation,
        )
        while len(self._claims) > MAX_GIVEN_UP:
            self._claims.popitem(last=False)
