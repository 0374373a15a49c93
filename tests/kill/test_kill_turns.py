"""Whatever changes the control plane waits its turn among claims, and not until by chance none of them is being made."""

import asyncio

import asyncpg
import pytest

from interlock.core.terms import Posture
from interlock.ledger.drafts import draft
from interlock.ledger.restores import DatabaseResumed
from tests.support.patience import until
from tests.support.shop import FILES, OPERATOR, counter

FILES = {**FILES, "release.yaml": FILES["release.yaml"].replace("status: [Operator]", "status: [Operator], revoke: [Operator]")}
CHANGES = {
    "a posture": lambda shop, session: shop.system.plane.postures.set(OPERATOR, session.lineage.id, Posture.GUARDED, "odd"),
    "a revocation": lambda shop, _: shop.system.plane.revocations.revoke(OPERATOR, "user:ana", "left"),
    "the end of a session": lambda shop, session: shop.system.database.rows("revoke_session", session.session_id),
    "a kill": lambda shop, _: shop.system.plane.kill(OPERATOR, "tool:shop", "stop"),
    "an event": lambda shop, _: shop.system.controls.append(draft(DatabaseResumed(reason="-", by="-"), ids=shop.system.ids)),
}


async def waiting(connection):
    """Whether somebody waits for a lock on the epochs, of the whole table or of its row."""
    return await connection.fetchval(
        "SELECT count(*) FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation "
        "WHERE NOT l.granted AND (c.relname = 'epoch' OR l.locktype IN ('tuple', 'transactionid'))"
    )


@pytest.mark.parametrize("change", CHANGES)
async def test_a_claim_that_comes_later_waits_for_a_change_that_came_earlier(database_urls, tmp_path, change):
    """Claims that follow each other without a gap would otherwise hold a change up for ever."""
    async with counter(database_urls.app, tmp_path, files=FILES) as shop:
        session = await shop.session()
        first, second = [await asyncpg.connect(database_urls.app) for _ in range(2)]
        look = await asyncpg.connect(database_urls.owner)
        share = "SELECT control FROM epoch WHERE id = 1 FOR SHARE"
        begun, later = first.transaction(), second.transaction()
        await begun.start()
        await first.fetchval(share)
        changing = asyncio.ensure_future(CHANGES[change](shop, session))
        await until(lambda: waiting(look))
        await later.start()
        claiming = asyncio.ensure_future(second.fetchval(share))

        async def it_waits_or_went_first():
            return await waiting(look) >= 2 or claiming.done()

        await until(it_waits_or_went_first)
        assert not claiming.done(), "the later claim went first"
        await begun.rollback()
        await claiming
        await later.rollback()
        await changing
        for connection in (first, second, look):
            await connection.close()
