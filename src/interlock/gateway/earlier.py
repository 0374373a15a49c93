"""What reads answered before, for when their tool is unstable: to the same lineage, obligations and release only."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import Allow
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.gateway.execution import Earlier, Released

MAX_ANSWERS: Final = 10_000
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_ALL_ANSWERS_BYTES: Final = 64 * 1024 * 1024


class EarlierKey(msgspec.Struct, frozen=True, kw_only=True):
    """INVARIANT: an answer is found again only where all of this is the same: nobody else's, none of another release."""

    release_digest: str
    lineage_id: str
    task: str
    operation: str
    call_hash: str
    obligations: bytes


def earlier_key(session: Session, decision: Allow, operation: str, call_hash: str) -> EarlierKey:
    """Under which an answer is kept."""
    return EarlierKey(
        release_digest=decision.release_digest,
        lineage_id=session.lineage.id,
        task=session.task,
        operation=operation,
        call_hash=call_hash,
        obligations=msgspec.json.encode(decision.obligations, order="deterministic"),
    )


class EarlierAnswers:
    """Kept in this process only, and only as they were released."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[EarlierKey, tuple[Earlier, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, key: EarlierKey, contract: Contract, call_id: str, released: Released) -> None:
        """Keep what was just released, where the contract has it kept."""
        if not contract.degrade.cache_s or not contract.is_read_only or released.is_error or released.withheld:
            return
        size = len(msgspec.json.encode(released))
        self._drop(key)
        if size > MAX_ANSWER_BYTES:
            return
        now_s, now_us = self._clock.monotonic_s(), self._clock.wall_us()
        self._kept[key] = (Earlier(released=released, call_id=call_id, at_s=now_s, at_us=now_us), size)
        self._bytes += size
        while self._bytes > MAX_ALL_ANSWERS_BYTES or len(self._kept) > MAX_ANSWERS:
            self._drop(next(iter(self._kept)))

    def find(self, key: EarlierKey, contract: Contract) -> Earlier | None:
        """What was released under this key no longer ago than the contract says."""
        found = self._kept.get(key)
        if found is None:
            return None
        if self._clock.monotonic_s() - found[0].at_s > contract.degrade.cache_s:
            self._drop(key)
            return None
        return found[0]

    def _drop(self, key: EarlierKey) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
