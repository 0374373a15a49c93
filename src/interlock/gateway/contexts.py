"""What enters the context of a session, and where the arguments of its calls came from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.claim import Labels, LineageState
from interlock.core.context import Item
from interlock.core.contract import Contract
from interlock.core.decision import Traced
from interlock.core.plan import Held, PlannedSource
from interlock.core.terms import Effect
from interlock.core.who import Session
from interlock.gateway.known import KnownContexts
from interlock.gateway.limits import INLINE_TOKENS_CHARS, INLINE_TRACE_CHARS
from interlock.gateway.ports import ContextShelf, Watch
from interlock.gateway.released import Released
from interlock.gateway.spreading import Spreading
from interlock.gateway.told import chars, every_text, told, told_beside
from interlock.provenance.items import of_assertion, of_input, of_result
from interlock.provenance.tokens import tokenizer_of
from interlock.provenance.trace import held, points, trace

T = TypeVar("T")


class Contexts:
    """Contexts by session. What a user said, or pointed at, counts in the session in which they did; all else is the lineage's.

    Every method raises `StoreUnavailableError`: the call is then refused.
    """

    def __init__(self, shelf: ContextShelf, watch: Watch, spreading: Spreading) -> None:
        self._shelf = shelf
        self._spreading = spreading
        self._watch = watch
        self._known = KnownContexts(shelf)

    def forget(self) -> None:
        """Know nothing any more: the database has another past now, and gives the numbers of its items again."""
        self._known.forget()

    async def trace(
        self, session: Session, contract: Contract, arguments: Mapping[str, JsonValue], *, tainted: bool
    ) -> dict[str, Traced]:
        """Where the target and content arguments of a call came from."""
        if not contract.targets and not contract.content:
            return {}
        known = await self._known.of(session)
        size = chars([arguments.get(name) for name in (*contract.targets, *contract.content)], INLINE_TRACE_CHARS)
        looking = partial(trace, contract, arguments, known.index, known.tokenizer, tainted=tainted)
        found = await _bounded(size, INLINE_TRACE_CHARS, looking)
        return {
            name: Traced(origin=item.origin, active=item.active, pointed=item.pointed, found_in=known.index.source(item.item))
            for name, item in found.items()
        }

    async def holding(self, session: Session) -> Held:
        """What results of this session hold, for a plan that says which of them a value comes from."""
        known = await self._known.of(session)
        return partial(held, known.index, known.tokenizer)

    async def entering(
        self,
        session: Session,
        contract: Contract,
        call_id: str,
        released: Released,
        arguments: bytes = b"{}",
        choices: tuple[PlannedSource, ...] = (),
    ) -> Item | None:
        """What the context is to take up of what is about to be released to the agent; the settlement takes it there.

        `arguments` (JSON text) are those of the call: whether the user named what was read is told from them. `choices` are
        those that the session's plan makes among what this operation returns (`Plans.choices`).
        """
        if released.is_empty:
            return None
        pointed = bool(contract.targets) and not released.is_error and await self._points(session, contract, arguments)
        structured, texts, beside = released.structured, told(released), told_beside(released)
        tokenizer = tokenizer_of(session.lineage.id)

        def cut() -> Item:
            return of_result(
                tokenizer,
                contract.operation,
                call_id,
                structured=structured,
                texts=texts,
                beside=beside,
                trusted=() if released.is_error else contract.trusted,
                pointed=pointed,
                choices=() if released.is_error else choices,
            )

        size = chars(structured, INLINE_TOKENS_CHARS) + sum(map(len, texts)) + sum(map(len, beside))
        return cut() if size <= INLINE_TOKENS_CHARS else await asyncio.to_thread(cut)

    async def returned(self, session: Session, contract: Contract, call_id: str, released: Released) -> None:
        """Look for evidence in what has entered. Call it before the release, and release nothing when it fails."""
        if released.is_empty:
            return

        await self._watch.entered(session, contract.operation, call_id, partial(every_text, released))

    async def labelled(
        self, session: Session, state: LineageState, worst: Labels, call_id: str, operation: str, released: Released
    ) -> None:
        """Spread the labels of what is about to be released; release nothing when it fails.

        `state` is how the lineage stood, `worst` what a call of this operation may bring.
        """
        if not released.is_empty:
            labels = msgspec.structs.replace(worst, tainted=worst.tainted or released.tells_an_error)
            await self._spreading.before_release(session, state, labels, call_id=call_id, operation=operation)

    async def asked(self, session: Session, state: LineageState, contract: Contract, call_id: str, released: Released) -> None:
        """Take up what a tool asks while it runs; call it before anybody is shown it. What it asks is its own words."""
        await self.labelled(session, state, Labels(tainted=True), call_id, contract.operation, released)
        item = await self.entering(session, msgspec.structs.replace(contract, trusted=(), targets=()), call_id, released)
        if item is not None:
            await self._shelf.add(session.lineage.id, session.session_id, item)
        await self.returned(session, contract, call_id, released)

    async def _points(self, session: Session, contract: Contract, arguments: bytes) -> bool:
        if Effect.READ not in contract.effects:
            return False
        known = await self._known.of(session)
        return points(contract, msgspec.json.decode(arguments, type=dict[str, Any]), known.index, known.tokenizer)

    async def said(self, session: Session, input_id: str, text: str) -> None:
        """Take up what the user said in their own channel."""
        known = await self._known.of(session)
        cut = partial(of_input, known.tokenizer, input_id, text, seen=known.index.has_span)
        item = await _bounded(len(text), INLINE_TOKENS_CHARS, cut)
        await self._shelf.add(session.lineage.id, session.session_id, item)
        await self._watch.entered(session, "input", input_id, lambda: (text,))

    async def asserted(self, session: Session, input_id: str, text: str) -> None:
        """Take up what the agent says, of itself or of the user."""
        cut = partial(of_assertion, tokenizer_of(session.lineage.id), input_id, text)
        item = await _bounded(len(text), INLINE_TOKENS_CHARS, cut)
        await self._shelf.add(session.lineage.id, session.session_id, item)
        await self._watch.entered(session, "asserted", input_id, lambda: (text,))


async def _bounded(size: int, inline: int, work: Callable[[], T]) -> T:
    """Do it here when it is small, else in a thread: the event loop must not wait for a long text to be looked through."""
    return work() if size <= inline else await asyncio.to_thread(work)
