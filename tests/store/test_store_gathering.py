"""How much of what many callers ask comes into one commit."""

import asyncio
from unittest import mock

from interlock.store import writer
from tests.store.test_store_claims import desk


async def test_callers_that_can_go_on_at_once_share_their_commits(database_urls, monkeypatch):
    monkeypatch.setattr(writer, "GATHER_MS", 60_000)
    async with desk(database_urls.app) as made:
        sessions = [await made.session(f"user{number}") for number in range(4)]
        send, sizes = made.writer._send_until_answered, []

        async def counted(requests):
            sizes.append(len(requests))
            return await send(requests)

        async def call(session, steps):
            claimed = await made.claim(session)
            for _ in range(steps):
                await asyncio.sleep(0)
            await made.settle(session, claimed)

        with mock.patch.object(made.writer, "_send_until_answered", counted):
            await asyncio.gather(*(call(session, steps) for steps, session in enumerate(sessions)))
    assert sizes == [4, 4]


async def test_a_lone_caller_waits_for_nobody(database_urls):
    async with desk(database_urls.app) as made:
        session = await made.session()
        with mock.patch.object(made.writer, "_more") as more:
            for _ in range(3):
                await made.settle(session, await made.claim(session))
        more.assert_not_called()
