"""What has entered the contexts of lineages, kept as hashed tokens; see `provenance`."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from interlock.core.context import Item, StoredItem
from interlock.store.database import Database
from interlock.store.errors import StoreUnavailableError

PAGE_ITEMS: Final = 200
MAX_BATCH_ITEMS: Final = 64


class _Waiting(msgspec.Struct):
    lineage_id: str
    session_id: str
    item: Item
    future: asyncio.Future[int]


class ContextItems:
    """Implements the gate's `ContextShelf`. Every method raises `StoreUnavailableError`.

    Items that come while others are being committed wait for them and go together, in one statement and one commit.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    async def add(self, lineage_id: str, session_id: str, item: Item) -> int:
        """Add an item; gives its number. After this has answered, every process that asks finds it."""
        waiting = _Waiting(lineage_id, session_id, item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit(), name="contexts")
        return await waiting.future

    async def _commit(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH_ITEMS], self._waiting[MAX_BATCH_ITEMS:]
            try:
                numbers = await self._send(batch)
            except Exception as error:  # noqa: BLE001  # whatever went wrong, those who wait are told, and release nothing
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
                continue
            for waiting, number in zip(batch, numbers, strict=True):
                if waiting.future.done():
                    continue
                if number:
                    waiting.future.set_result(number)
                else:
                    waiting.future.set_exception(StoreUnavailableError("there is no such lineage to keep a context for"))

    async def _send(self, batch: list[_Waiting]) -> list[int]:
        ways = [(standing, hashes) for waiting in batch for standing, hashes in sorted(waiting.item.tokens.items())]
        row = await self._database.row(
            "add_context",
            [waiting.lineage_id for waiting in batch],
            [waiting.session_id for waiting in batch],
            [waiting.item.source for waiting in batch],
            [waiting.item.reference for waiting in batch],
            [waiting.item.is_complete for waiting in batch],
            [len(waiting.item.tokens) for waiting in batch],
            [standing for standing, _ in ways],
            [hashes for _, hashes in ways],
        )
        return [] if row is None else list(row["numbers"])

    async def after(self, lineage_id: str, n: int) -> tuple[StoredItem, ...]:
        """The items after number `n`, at most `PAGE_ITEMS`; ask again until none is left."""
        rows = await self._database.rows("context_after", lineage_id, n, PAGE_ITEMS)
        return tuple(
            StoredItem(
                n=row["n"],
                session_id=row["session_id"],
                item=Item(
                    source=row["source"],
                    reference=row["reference"],
                    tokens=dict(zip(row["standings"], row["tokens"], strict=True)),
                    is_complete=row["is_complete"],
                ),
            )
            for row in rows
        )
