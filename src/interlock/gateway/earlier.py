"""What reads answered before, for when their tool is unstable: to the same lineage, obligations and release only."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import Allow
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.gateway.released import Released

MAX_ANSWERS: Final = 2_000
MAX_ANSWER_BYTES: Final = 256 * 1024
# As JSON text; the objects that are kept take five to ten times as much.
MAX_ALL_ANSWERS_BYTES: Final = 4 * 1024 * 1024
_LOOKED_AT: Final = 2


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier call released: which one, and when, on this process's clock and by the wall clock."""

    released: Released
    call_id: str
    at_s: float
    at_us: int


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


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    earlier: Earlier
    size: int
    until_s: float


class EarlierAnswers:
    """Kept in this process only, and only as they were released. With each that comes two old ones are looked at."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[EarlierKey, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, key: EarlierKey, contract: Contract, call_id: str, released: Released) -> None:
        """Keep what was just released, where the contract has it kept."""
        if not contract.degrade.cache_s or not contract.is_read_only or released.is_error or released.withheld:
            return
        size = len(msgspec.json.encode(released))
        self._drop(key)
        now_s, now_us = self._clock.monotonic_s(), self._clock.wall_us()
        self._drop_some(now_s)
        if size > MAX_ANSWER_BYTES:
            return
        earlier = Earlier(released=released, call_id=call_id, at_s=now_s, at_us=now_us)
        self._kept[key] = _Kept(earlier=earlier, size=size, until_s=now_s + contract.degrade.cache_s)
        self._bytes += size
        while self._bytes > MAX_ALL_ANSWERS_BYTES or len(self._kept) > MAX_ANSWERS:
            self._drop(next(iter(self._kept)))

    def find(self, key: EarlierKey, contract: Contract) -> Earlier | None:
        """What was released under this key no longer ago than the contract says."""
        found = self._kept.get(key)
        if found is None:
            return None
        if self._clock.monotonic_s() - found.earlier.at_s > contract.degrade.cache_s:
            self._drop(key)
            return None
        return found.earlier

    def _drop_some(self, now_s: float) -> None:
        """Rid the memory of what is over, a little at a time: an answer is asked for again only when its tool is unstable."""
        for _ in range(min(_LOOKED_AT, len(self._kept))):
            oldest = next(iter(self._kept))
            if self._kept[oldest].until_s < now_s:
                self._drop(oldest)
            else:
                self._kept.move_to_end(oldest)

    def _drop(self, key: EarlierKey) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found.size
