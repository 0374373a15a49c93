"""What this process knows of the past calls of lineages: read once, then carried on by what its own claims and endings say.

Others' changes are noticed by the version: a claim that was decided on an older one is stale, and what is new is read then.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.claim import LineageState
from interlock.core.contract import Contract
from interlock.core.history import Kept, PastCall, Recalled, keep
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.gateway.governed import Governed
from interlock.gateway.limits import MAX_CACHED_LINEAGES, MAX_CACHED_PAST_CALLS, MAX_PAST_CALLS
from interlock.gateway.ports import PastShelf
from interlock.gateway.reading import ReadProposal
from interlock.policy.history import Present, recall


class Recollection(msgspec.Struct, frozen=True, kw_only=True):
    """What was recalled for one decision. `version` is what its claim is compared with; None when no history was read."""

    facts: Mapping[str, Recalled] = {}
    version: int | None = None


NONE_READ = Recollection()
# What is older than every window by so much is forgotten; the database's clock, which dates calls, is not this process's.
LATE_US: Final = 600_000_000


class _Log:
    """The calls of one lineage that the facts of one release count."""

    def __init__(self, release_digest: str) -> None:
        self.release_digest = release_digest
        self.version = -1
        self.calls: dict[str, PastCall] = {}
        self.is_complete = True
        self.reading = asyncio.Lock()


class Histories:
    """Recalls. Every method that asks raises `StoreUnavailableError`: the call is then refused."""

    def __init__(self, shelf: PastShelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock
        self._known: OrderedDict[str, _Log] = OrderedDict()
        self._calls = 0

    async def of(self, session: Session, governed: Governed, read: ReadProposal, state: LineageState) -> Recollection:
        """The facts about the past that policies read for this call."""
        wanted = governed.history_wanted(read.contract)
        if not wanted:
            return NONE_READ
        log = await self._current(session, governed, state.history_version)
        present = Present(
            contract=read.contract,
            arguments=read.arguments,
            lineage_id=session.lineage.id,
            session_id=session.session_id,
            at_us=self._clock.wall_us(),
        )
        # A call that goes on with answers stands in the log already, and is the present one.
        goes_on = read.continues.claim_id if read.continues else ""
        calls = tuple(call for call in log.calls.values() if call.claim_id != goes_on) if goes_on else tuple(log.calls.values())
        return Recollection(
            facts={
                fact.name: recall(fact, calls, present, governed.release.contracts, is_complete=log.is_complete)
                for fact in wanted
            },
            version=log.version,
        )

    def forget(self) -> None:
        """Know nothing any more: the database has another past now."""
        self._known.clear()
        self._calls = 0

    def kept(self, governed: Governed, session: Session, contract: Contract, arguments: Mapping[str, JsonValue]) -> str | None:
        """What is to be stored of a call's arguments; None when no fact counts the operation."""
        names = governed.history_kept(contract)
        if names is None:
            return None
        return msgspec.json.encode(keep(contract, arguments, names, session.lineage.id)).decode()

    def claimed(self, session: Session, call: PastCall, version: int) -> None:
        """A counted call of this process was claimed, which made this version."""
        self._take(session.lineage.id, call, version)

    def ended(self, session: Session, claim_id: str, state: str, version: int | None, *, unsent: bool) -> None:
        """A call of this process has ended, which made this version, or none."""
        if version is None:
            return
        log = self._known.get(session.lineage.id)
        known = None if log is None else log.calls.get(claim_id)
        if known is not None:
            self._take(session.lineage.id, msgspec.structs.replace(known, state=state, unsent=unsent), version)

    def _take(self, lineage_id: str, call: PastCall, version: int) -> None:
        log = self._known.get(lineage_id)
        # Only the very next change is known to be the only one that is missing.
        if log is None or log.version + 1 != version:
            return
        self._calls += call.claim_id not in log.calls
        log.calls[call.claim_id] = call
        log.version = version

    async def _current(self, session: Session, governed: Governed, version: int) -> _Log:
        lineage_id = session.lineage.id
        log = self._known.get(lineage_id)
        if log is None or log.release_digest != governed.release.digest or len(log.calls) > 2 * MAX_PAST_CALLS:
            self._forget(lineage_id)
            log = self._known[lineage_id] = _Log(governed.release.digest)
        self._known.move_to_end(lineage_id)
        if log.version < version:
            async with log.reading:
                if log.version < version:
                    await self._read(lineage_id, governed, log)
        self._forget_some(lineage_id, log, governed.history_window_s)
        return log

    def _forget_some(self, lineage_id: str, log: _Log, window_s: int) -> None:
        """Bound the memory: calls that no fact counts any more, and the lineages that were asked for longest ago."""
        if self._known.get(lineage_id) is log:
            before_us = self._clock.wall_us() - window_s * 1_000_000 - LATE_US
            while log.calls and (first := log.calls[next(iter(log.calls))]).at_us < before_us:
                del log.calls[first.claim_id]
                self._calls -= 1
        while len(self._known) > 1 and (self._calls > MAX_CACHED_PAST_CALLS or len(self._known) > MAX_CACHED_LINEAGES):
            self._forget(next(iter(self._known)))

    async def _read(self, lineage_id: str, governed: Governed, log: _Log) -> None:
        if log.version < 0:
            version, found = await self._shelf.whole(
                lineage_id, governed.history_counted, governed.history_window_s, MAX_PAST_CALLS
            )
            log.is_complete = len(found) < MAX_PAST_CALLS
        else:
            version, found = await self._shelf.after(lineage_id, log.version, MAX_PAST_CALLS)
            log.is_complete = log.is_complete and len(found) < MAX_PAST_CALLS
        if version <= log.version:
            return  # carried on meanwhile by what this process did itself
        before = len(log.calls)
        log.calls |= {call.claim_id: call for call in _counted(found, governed.history_counted)}
        log.version = version
        if self._known.get(lineage_id) is log:
            self._calls += len(log.calls) - before

    def _forget(self, lineage_id: str) -> None:
        log = self._known.pop(lineage_id, None)
        if log is not None:
            self._calls -= len(log.calls)


def past_call(
    session: Session, claim_id: str, call_id: str, contract: Contract, remembered: str, claimed_at_us: int
) -> PastCall:
    """A call that has just been claimed, as the history knows it from now on."""
    kept = msgspec.json.decode(remembered, type=Kept)
    return PastCall(
        claim_id=claim_id,
        call_id=call_id,
        session_id=session.session_id,
        operation=contract.operation,
        at_us=claimed_at_us,
        values=kept.v,
        units=kept.u,
    )


def _counted(calls: Iterable[PastCall], operations: frozenset[str]) -> Iterable[PastCall]:
    return (call for call in calls if call.operation in operations)
