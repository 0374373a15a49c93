"""What has entered the contexts of lineages, kept as hashed tokens; see `provenance`."""

from __future__ import annotations

from typing import Final

from interlock.core.context import Item, StoredItem
from interlock.store.database import Database

PAGE_ITEMS: Final = 200


class ContextItems:
    """Implements the gate's `ContextShelf`. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, lineage_id: str, session_id: str, item: Item) -> int:
        """Add an item; gives its number. After this has answered, every process that asks finds it."""
        standings = sorted(item.tokens)
        row = await self._database.row(
            "add_context",
            lineage_id,
            session_id,
            item.source,
            item.reference,
            standings,
            [item.tokens[standing] for standing in standings],
            item.is_complete,
        )
        return 0 if row is None else int(row[0])

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
