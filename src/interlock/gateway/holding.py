"""Calls whose tool asks while it runs (MCP 2025-11-25), for callers that are asked by an answer and come back (2026-07-28).

The call goes on in a task of its own; what the tool asks is the answer to the caller's request, and the caller's next request
brings the tool's answer. INVARIANT: that next request makes no call: it is taken only by the process that holds the call, and
refused on record by every other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from interlock.core.canonical import AmbiguousJsonError, JsonValue, canonical, parse_strict
from interlock.core.ports import Ids
from interlock.core.who import Session
from interlock.gateway.asking import read_answers
from interlock.gateway.limits import MAX_ARGUMENT_BYTES, MAX_HELD_CALLS, MAX_HELD_CALLS_PER_SESSION
from interlock.gateway.messages import Asked, Caller, CallResult, Effected, Proposal, Returned
from interlock.gateway.sealing import Sealed, Seals
from interlock.gateway.streams import OpenStreams

Make: TypeAlias = Callable[[Session, Proposal, Caller, str], Awaitable[CallResult]]
_Question: TypeAlias = tuple[Mapping[str, Any], asyncio.Future[Mapping[str, Any] | None]]


class _Held:
    """One call, and who waits for it now, if anybody does."""

    def __init__(self, call_id: str, session: Session, caller: Caller, hold: Callable[[_Held], bool]) -> None:
        self.call_id = call_id
        self.session = session
        self.caller = caller
        self.rounds = 0
        self.is_waited_for = True
        self.open: dict[str, _Question] = {}
        self.news = asyncio.Event()
        self.task: asyncio.Task[CallResult] | None = None
        self.let_go: Callable[[], None] | None = None
        self._asked = 0
        self._hold = hold
        self._is_over = False

    def with_questions(self) -> Caller:
        """The caller, as the call has it: what is asked is kept here, and progress goes to whoever waits."""
        progress = None if self.caller.progress is None else self._progress
        return msgspec.structs.replace(self.caller, ask=self._ask, progress=progress)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        # A caller that is gone answers nothing, though the call may go on and its tool may ask.
        if self._is_over or not self._hold(self):
            return None
        self._asked += 1
        key = f"ask-{self._asked}"
        answer: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()
        self.open[key] = ({"method": method, "params": params}, answer)
        self.news.set()
        try:
            return await answer
        finally:
            self.open.pop(key, None)

    def _progress(self, done: float, total: float | None) -> None:
        if self.is_waited_for and self.caller.progress is not None:
            self.caller.progress(done, total)

    def answered(self, answers: Mapping[str, JsonValue]) -> None:
        """The caller has come back. What was asked and is not among the answers is not answered."""
        for key, (_, answer) in list(self.open.items()):
            found = answers.get(key)
            if not answer.done():
                answer.set_result(found if isinstance(found, dict) else None)
        self.open.clear()

    def ended(self) -> None:
        """Nobody answers any more."""
        self._is_over = True
        self.answered({})
        self.news.set()


class Holding:
    """The held calls of one process. One whose session is over is held no longer: its tool is told that nobody answers."""

    def __init__(self, seals: Seals, ids: Ids, streams: OpenStreams) -> None:
        self._streams = streams
        self._seals = seals
        self._ids = ids
        self._held: dict[str, _Held] = {}

    async def call(self, session: Session, proposal: Proposal, caller: Caller, make: Make) -> CallResult:
        """Make a call, or bring the answers to one that is held; its result, or what its tool asks now.

        When the caller goes away meanwhile, so does the call, as far as it may; between two requests nobody needs to be there.
        """
        raw = _canonical(proposal)
        found = None if raw is None else self._answered(session, proposal, raw)
        if found is None:
            found = _Held(self._ids.new("call"), session, caller, self._hold)
            work = make(session, proposal, found.with_questions(), found.call_id)
            found.task = asyncio.ensure_future(work)
            found.task.add_done_callback(lambda _: self._ended(found))
        else:
            found.caller = caller
        found.is_waited_for = True
        try:
            return await self._next(found, proposal, raw or b"")
        finally:
            found.is_waited_for = False

    async def _next(self, held: _Held, proposal: Proposal, raw: bytes) -> CallResult:
        task = held.task
        assert task is not None  # noqa: S101  # made with it
        try:
            while not held.open and not task.done():
                held.news.clear()
                heard = asyncio.ensure_future(held.news.wait())
                try:
                    await asyncio.wait({task, heard}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    heard.cancel()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        if task.done():
            return task.result()
        held.rounds += 1
        what = Sealed(held=held.call_id, attempt=held.rounds)
        state = self._seals.seal(held.session, proposal.operation, raw, what)
        requests = {key: request for key, (request, _) in held.open.items()}
        effect = {"id": held.call_id, "outcome": "allowed", "effect": Effected.UNKNOWN.value}
        return Returned(
            call_id=held.call_id,
            content=(),
            structured=None,
            is_error=False,
            meta={"interlock/decision": effect},
            asks=Asked(requests=requests, state=state),
        )

    def _answered(self, session: Session, proposal: Proposal, raw: bytes) -> _Held | None:
        """The call that these are the answers for, which has them now; None when it is not held here, or not by this state."""
        if not proposal.state:
            return None
        sealed = self._seals.open(session, proposal.operation, raw, proposal.state)
        held = None if sealed is None else self._held.get(sealed.held)
        if held is None or sealed is None or held.is_waited_for or held.rounds != sealed.attempt:
            return None
        try:
            answers = read_answers(proposal.answers) if proposal.answers else {}
        except AmbiguousJsonError:
            return None  # the gate refuses them
        held.answered(answers)
        return held

    def _hold(self, held: _Held) -> bool:
        """Hold a call from its first question on; False when there are too many."""
        if held.call_id in self._held:
            return True
        own = sum(other.session.session_id == held.session.session_id for other in self._held.values())
        if len(self._held) >= MAX_HELD_CALLS or own >= MAX_HELD_CALLS_PER_SESSION:
            return False
        self._held[held.call_id] = held
        held.let_go = self._streams.add(held.session, lambda: self._ended(held))
        return True

    def _ended(self, held: _Held) -> None:
        """The call, or the session that it is of, is over."""
        self._held.pop(held.call_id, None)
        if held.let_go is not None:
            held.let_go()
        held.ended()


def _canonical(proposal: Proposal) -> bytes | None:
    """The arguments as they are hashed; None when they cannot be read: the gate says why."""
    try:
        return canonical(parse_strict(proposal.arguments or b"{}", max_bytes=MAX_ARGUMENT_BYTES))
    except AmbiguousJsonError:
        return None
