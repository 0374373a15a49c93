"""Calls as they are decided, for people who watch: across all processes on the database, and at no cost to the calls.

Nothing is written for it and nobody is notified. While somebody watches, one task of this process asks the database a few
times a second what has moved. Commits come to light later than the times in them, so it asks again from the beginning of the
oldest transaction that was under way (`Tick.horizon_us`), and knows by call what it has told already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec

from interlock.app.sight import Sight, Sights
from interlock.core.who import Person
from interlock.ledger.summary import UNFINISHED, CallSummary, Standing, summaries
from interlock.store.errors import StoreError
from interlock.store.live import LiveRows

_log = logging.getLogger(__name__)

POLL_MS: Final = 400
MAX_CALLS_A_POLL: Final = 200
MAX_TRACKED_CALLS: Final = 500
MAX_LISTED_CALLS: Final = 100
MAX_SEARCHED_CALLS: Final = 1_000
MAX_WATCHERS: Final = 200
MAX_WATCHERS_PER_PERSON: Final = 12
MAX_QUEUED_NEWS: Final = 16


class TooManyWatchersError(Exception):
    """As many people watch this process as it serves; calls do not wait behind them, but no more can watch."""


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls somebody wants to see. The texts occur in the names; a standing is exact. Empty matches everything."""

    agent: str = ""
    user: str = ""
    operation: str = ""
    standing: str = ""

    def matches(self, call: CallSummary, *, standing_too: bool = True) -> bool:
        """Whether a call is one of them."""
        return (
            self.agent.lower() in call.agent.lower()
            and self.user.lower() in call.user.lower()
            and self.operation.lower() in call.operation.lower()
            and (not standing_too or not self.standing or self.standing == call.standing.value)
        )


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What has moved since the last news. Whoever has read it goes on from `horizon_us`, and has missed nothing before.

    `approvals`: people of this tenant were asked, answered, or an answer was used. `control`: the control plane has changed.
    `trouble`: the database does not answer, so nothing is known of now.
    """

    calls: tuple[CallSummary, ...] = ()
    approvals: bool = False
    control: bool = False
    trouble: bool = False
    horizon_us: int = 0


class Watcher:
    """One person's place. News wait in a queue; who does not fetch them is dropped, and goes on from where they were."""

    def __init__(self, person: Person, sight: Sight) -> None:
        self.person = person
        self.sight = sight
        self._queue: asyncio.Queue[News | None] = asyncio.Queue(MAX_QUEUED_NEWS)
        self._gone = False

    async def next(self, timeout_s: float) -> News | None:
        """The next news, empty ones when the time is up, None when the place is lost."""
        if self._gone and self._queue.empty():
            return None
        try:
            return await asyncio.wait_for(self._queue.get(), timeout_s)
        except TimeoutError:
            return News()

    def tell(self, news: News) -> None:
        """Hand on what this person may see of some news."""
        seen = tuple(call for call in news.calls if self.sight.covers(call.tenant, call.user))
        asked = any(
            (call in seen or call.tenant == self.person.tenant) and (call.approval_id or call.uses) for call in news.calls
        )
        news = msgspec.structs.replace(news, calls=seen, approvals=asked)
        if self._gone or not (seen or news.approvals or news.control or news.trouble):
            return
        try:
            self._queue.put_nowait(news)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        """Take the place away."""
        self._gone = True
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)


class LiveCalls:
    """The calls of the plane as they move."""

    def __init__(self, rows: LiveRows, sights: Sights) -> None:
        self._rows = rows
        self._sights = sights
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._known: OrderedDict[str, tuple[int, bool]] = OrderedDict()  # call: its last step, whether it may still move

    async def sight(self, person: Person) -> Sight:
        """Whose calls a person sees: their own, with the role for traces those of their tenant, or of all."""
        return await self._sights.of(person, "traces")

    async def newest(self, person: Person, wanted: CallFilter) -> tuple[tuple[CallSummary, ...], int]:
        """The newest calls a person sees and wants, newest first, and from when on to watch in order to miss none."""
        sight, tick = await self.sight(person), await self._rows.tick()
        narrow = bool(wanted.operation or wanted.standing)
        ids = await self._rows.newest(
            tenant=sight.tenant,
            user=sight.user,
            agent_has=wanted.agent,
            user_has=wanted.user,
            limit=MAX_SEARCHED_CALLS if narrow else MAX_LISTED_CALLS * 2,
        )
        shown = summaries(await self._rows.steps(ids))
        found = [call for call in shown if sight.covers(call.tenant, call.user) and wanted.matches(call)]
        found.sort(key=lambda call: (call.asked_us, call.call_id), reverse=True)
        return tuple(found[:MAX_LISTED_CALLS]), tick.horizon_us

    async def one(self, person: Person, call_id: str) -> CallSummary | None:
        """One call, or None: there is none, or not for this person."""
        sight = await self.sight(person)
        found = summaries(await self._rows.steps([call_id]))
        return next((call for call in found if sight.covers(call.tenant, call.user)), None)

    @contextlib.asynccontextmanager
    async def watch(self, person: Person) -> AsyncIterator[Watcher]:
        """A place to watch from. Raises `TooManyWatchersError` or `StoreUnavailableError`."""
        watcher = Watcher(person, await self.sight(person))
        same = sum((other.person.tenant, other.person.user) == (person.tenant, person.user) for other in self._watchers)
        if len(self._watchers) >= MAX_WATCHERS or same >= MAX_WATCHERS_PER_PERSON:
            raise TooManyWatchersError("too many pages are open; close one")
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._begun = asyncio.Event()
            self._task = asyncio.create_task(self._poll(), name="live-calls")
        try:
            # Whoever reads now what there is, and is told from here on what moves, misses nothing in between.
            await self._begun.wait()
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def drop_all(self) -> None:
        """Take every place away; whoever still wants to watch comes back and goes on."""
        for watcher in list(self._watchers):
            watcher.drop()

    async def close(self) -> None:
        """Take every place away, and ask the database no more."""
        self.drop_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        since_us, control, healthy = 0, 0, True
        self._known.clear()
        while self._watchers:
            try:
                tick = await self._rows.tick()
                if since_us == 0:
                    await self._begin()
                    since_us, control = tick.horizon_us, tick.control_seq
                calls = await self._moved(since_us)
            except StoreError:
                if healthy:
                    self._tell(News(trouble=True))
                healthy = False
            except Exception:  # noqa: BLE001
                # A defect here must not look like a quiet day: everybody loses their place, comes back, and is told again.
                _log.exception("what moves cannot be told", extra={"event": "page.live_failed"})
                self.drop_all()
                break
            else:
                self._tell(News(calls=calls, control=not healthy or tick.control_seq != control, horizon_us=tick.horizon_us))
                since_us, control, healthy = tick.horizon_us, tick.control_seq, True
            self._begun.set()
            await asyncio.sleep(POLL_MS / 1000)
        self._begun.set()

    async def _begin(self) -> None:
        """Know the calls that may still move: those shown on pages that were just loaded, and all that wait for people."""
        ids = await self._rows.newest(tenant="", user="", agent_has="", user_has="", limit=MAX_LISTED_CALLS)
        waiting = await self._rows.waiting(limit=MAX_LISTED_CALLS)
        self._note(summaries(await self._rows.steps(tuple(dict.fromkeys((*ids, *waiting))))))

    async def _moved(self, since_us: int) -> tuple[CallSummary, ...]:
        known = {call_id: seq for call_id, (seq, _) in self._known.items()}
        moved = await self._rows.moved(since_us, known, limit=MAX_CALLS_A_POLL)
        if not moved:
            self._forget()
            return ()
        steps = await self._rows.steps(moved)
        for step in steps:
            # Also of calls that cannot be told yet: the gateway is looking something up for them.
            self._known[step.call_id] = (step.seq, True)
        found = summaries(steps)
        self._note(found)
        self._forget()
        return tuple(sorted(found, key=lambda call: (call.moved_us, call.call_id)))

    def _note(self, calls: Iterable[CallSummary]) -> None:
        for call in calls:
            self._known[call.call_id] = (call.last_seq, call.standing in UNFINISHED)
            self._known.move_to_end(call.call_id)

    def _forget(self) -> None:
        finished = [call_id for call_id, (_, may_move) in self._known.items() if not may_move]
        for call_id in finished[: max(0, len(self._known) - MAX_TRACKED_CALLS)]:
            del self._known[call_id]
        while len(self._known) > MAX_TRACKED_CALLS:
            self._known.popitem(last=False)

    def _tell(self, news: News) -> None:
        for watcher in list(self._watchers):
            watcher.tell(news)


STANDINGS: Final = tuple(standing.value for standing in Standing)
