"""Several servers that change at once, and a claim meanwhile, do not stand in each other's way."""

import asyncio

from interlock.app.sources import SystemIds
from interlock.ledger.drafts import draft
from interlock.ledger.events import ToolQuarantined
from interlock.store.database import open_database
from interlock.store.tools import ToolRecords


async def test_servers_that_change_at_once_are_all_stopped(database_urls):
    database, ids = await open_database(database_urls.app), SystemIds()
    records = ToolRecords(database, "test")

    async def quarantine(number):
        operation = f"tool{number}.run"
        body = ToolQuarantined(
            operation=operation, environment="test", reviewed="a", pin="b", detail="it changed", noticed_by="prc", findings=()
        )
        event = draft(body, ids=ids)
        return await records.quarantine(
            operation, reviewed="a", pin="b", detail="it changed", findings=(), most_told=20, event=event
        )

    async def accept(number):
        body = ToolQuarantined(
            operation=f"tool{number}.run", environment="test", reviewed="a", pin="b", detail="", noticed_by="", findings=()
        )
        return await records.accept(f"tool{number}.run", pin="b", by="pat", reason="fine", event=draft(body, ids=ids))

    try:
        assert await asyncio.gather(*(quarantine(number) for number in range(12))) == [True] * 12
        assert await asyncio.gather(*(quarantine(number % 12) for number in range(24))) == [False] * 24
        assert await asyncio.gather(*(accept(number) for number in range(12))) == [True] * 12
        assert await records.quarantined() == ()
    finally:
        await database.close()
