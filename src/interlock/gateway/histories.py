"""What this process knows of the past calls of lineages: read once, then carried on by what its own claims and endings say.

Others' changes are noticed by the version: a claim that was decided on an older one is stale, and what is new is read then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.claim import LineageState, OfWork
from interlock.core.contract import Contract
from interlock.core.history import Kept, PastCall, Recalled, Span, keep
from interlock.core.ports import Clock
from interlock.core.recent import Recent
from interlock.core.who import Session
from interlock.gateway.governed import Governed
from interlock.gateway.limits import MAX_CACHED_LINEAGES, MAX_CACHED_PAST_CALLS, MAX_PAST_CALLS
from interlock.gateway.ports import PastShelf
from interlock.gateway.reading import ReadProposal
from interlock.policy.history import Present, recall


class Recollection(msgspec.Struct, frozen=True, kw_only=True):
    """What was recalled for one decision. `version` is what its claim is compared with; None when no history was read.

    `work_version` is the same for the lineage that the work came from, where that is another and its past was read.
    """

    facts: Mapping[str, Recalled] = {}
    version: int | None = None
    work_version: int | None = None


NONE_READ = Recollection()
# What is older than every window by so much is forgotten; the database's clock, which dates calls, is not this process's.
LATE_US: Final = 600_000_000


class _Log:
    """The calls of one lineage, and of what came of its sessions, that the facts of one release count."""

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
        self._known: Recent[str, _Log] = Recent(
            MAX_CACHED_LINEAGES, most_size=MAX_CACHED_PAST_CALLS, size=lambda log: len(log.calls)
        )

    async def of(self, session: Session, governed: Governed, read: ReadProposal, state: LineageState) -> Recollection:
        """The facts about the past that policies read for this call."""
        wanted = governed.history_wanted(read.contract)
        if not wanted:
            return NONE_READ
        log, above = await self._current(session.lineage.id, governed, state.history_version), None
        if any(fact.per is Span.WORK for fact in wanted) and session.work != session.lineage:
            above = await self._current(session.work.id, governed, None)
        # From here on nothing is waited for: what is recalled and the versions belong together.
        own = of_work = tuple(log.calls.values())
        is_whole = log.is_complete
        if above is not None:
            # What this lineage did for the work stands in both; taken is what can be compared with what others did for it.
            of_work = tuple({**log.calls, **above.calls}.values())
            is_whole = is_whole and above.is_complete
        present = Present(
            contract=read.contract,
            arguments=read.arguments,
            lineage_id=session.lineage.id,
            session_id=session.session_id,
            at_us=self._clock.wall_us(),
        )
        # A call that goes on with answers stands in the log already, and is the present one.
        goes_on = read.continues.claim_id if read.continues else ""
        contracts, facts = governed.release.contracts, {}
        for fact in wanted:
            calls, is_complete = (own, log.is_complete) if fact.per is not Span.WORK else (of_work, is_whole)
            earlier = [call for call in calls if call.claim_id != goes_on] if goes_on else calls
            facts[fact.name] = recall(fact, earlier, present, contracts, is_complete=is_complete)
        return Recollection(facts=facts, version=log.version, work_version=None if above is None else above.version)

    def forget(self) -> None:
        """Know nothing any more: the database has another past now."""
        self._known.clear()

    def kept(self, governed: Governed, session: Session, contract: Contract, arguments: Mapping[str, JsonValue]) -> str | None:
        """What is to be stored of a call's arguments; None when no fact counts the operation."""
        names = governed.history_kept(contract)
        if names is None:
            return None
        work = session.work.id if contract.operation in governed.work_counted and session.work != session.lineage else ""
        return msgspec.json.encode(keep(contract, arguments, names, session.lineage.id, work)).decode()

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
        log.calls[call.claim_id] = call
        log.version = version
        self._known.put(lineage_id, log)

    async def _current(self, lineage_id: str, governed: Governed, version: int | None) -> _Log:
        """What is known of a lineage's past, as of a version at least; with None as of now, whoever made it."""
        log = self._known.get(lineage_id)
        if log is None or log.release_digest != governed.release.digest or len(log.calls) > 2 * MAX_PAST_CALLS:
            log = _Log(governed.release.digest)
            self._known.put(lineage_id, log)
        if version is None or log.version < version:
            async with log.reading:
                if version is None or log.version < version:
                    await self._read(lineage_id, governed, log)
        self._forget_some(lineage_id, log, governed.history_window_s)
        return log

    def _forget_some(self, lineage_id: str, log: _Log, window_s: int) -> None:
        """Bound the memory: calls that no fact counts any more, and the lineages that were asked for longest ago."""
        if self._known.get(lineage_id) is log:
            before_us = self._clock.wall_us() - window_s * 1_000_000 - LATE_US
            while log.calls and (first := log.calls[next(iter(log.calls))]).at_us < before_us:
                del log.calls[first.claim_id]
            self._known.put(lineage_id, log)

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
        log.calls |= {call.claim_id: call for call in _counted(found, governed.history_counted)}
        log.version = version


def of_work(session: Session, governed: Governed, contract: Contract, version: int | None) -> OfWork | None:
    """What a call of this contract has to do with the past of the work; None where that is the lineage's own.

    `version` is what its decision read of that past.
    """
    if session.work == session.lineage:
        return None
    return OfWork(lineage_id=session.work.id, counts=contract.operation in governed.work_counted, version=version)


def past_call(
    session: Session, claim_id: str, call_id: str, contract: Contract, remembered: str, claimed_at_us: int
) -> PastCall:
    """A call that has just been claimed, as the history knows it from now on."""
    kept = msgspec.json.decode(remembered, type=Kept)
    return PastCall(
        claim_id=claim_id,
        call_id=call_id,
        session_id=session.session_id,
        lineage_id=session.lineage.id,
        keyed_by=session.lineage.id,
        operation=contract.operation,
        at_us=claimed_at_us,
        values=kept.v,
        units=kept.u,
    )


def _counted(calls: Iterable[PastCall], operations: frozenset[str]) -> Iterable[PastCall]:
    return (call for call in calls if call.operation in operations)
