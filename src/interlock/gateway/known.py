"""What this process knows of what has entered each session's context, brought up to date before it is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from interlock.core.context import StoredItem
from interlock.core.recent import Recent
from interlock.core.who import Session
from interlock.gateway.limits import INLINE_INDEX_BYTES, MAX_CACHED_CONTEXT_SIZE, MAX_CACHED_LINEAGES
from interlock.gateway.ports import ContextShelf
from interlock.provenance.index import NOTHING, Index
from interlock.provenance.labels import Standing
from interlock.provenance.tokens import tokenizer_of

_EMPTY_SIZE: Final = 20  # a context that holds nothing takes about as much as so many tokens
_OF_THE_SESSION: Final = Standing.USER | Standing.POINTED


class Known:
    """The context of one session, as far as it was read: its items up to number `n`."""

    def __init__(self, session: Session) -> None:
        self.index = Index()
        self.tokenizer = tokenizer_of(session.lineage.id)
        self.n = 0
        self.updating = asyncio.Lock()

    def take_up(self, items: Sequence[StoredItem], session_id: str) -> None:
        """Add what has entered. Whoever looks meanwhile sees what they knew of, and perhaps more: never less."""
        for stored in items:
            own = stored.session_id == session_id
            self.index.add(stored.item, ignore=NOTHING if own else _OF_THE_SESSION, own=own)
            self.n = stored.n


class KnownContexts:
    """Those that were looked at last. What a user said, or pointed at, counts in the session in which they did."""

    def __init__(self, shelf: ContextShelf) -> None:
        self._shelf = shelf
        self._recent: Recent[str, Known] = Recent(
            MAX_CACHED_LINEAGES, most_size=MAX_CACHED_CONTEXT_SIZE, size=lambda known: _EMPTY_SIZE + known.index.size
        )

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._recent)

    def forget(self) -> None:
        """Know nothing any more."""
        self._recent.clear()

    async def of(self, session: Session) -> Known:
        """The context of a session with all that has entered by now. Raises `StoreUnavailableError`."""
        known = self._recent.get(session.session_id)
        if known is None:
            known = Known(session)
            self._recent.put(session.session_id, known)
        async with known.updating:
            try:
                while items := await self._shelf.after(session.lineage.id, known.n):
                    size = sum(len(hashes) for stored in items for hashes in stored.item.tokens.values())
                    if size <= INLINE_INDEX_BYTES:
                        known.take_up(items, session.session_id)
                    else:
                        await _whole(asyncio.to_thread(known.take_up, items, session.session_id))
            finally:
                # It has grown. One that was forgotten meanwhile serves this call, and is read again for the next.
                if self._recent.get(session.session_id) is known:
                    self._recent.put(session.session_id, known)
        return known


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do it to the end, also for a caller who leaves: a thread goes on, and another must not begin beside it."""
    task = asyncio.ensure_future(work)
    left: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            left = error
    if left is not None:
        raise left
    task.result()
