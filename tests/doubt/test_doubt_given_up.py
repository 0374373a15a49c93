"""A claim whose answer never came was not made, and its process says so as soon as it finds that it was committed."""

import asyncio

import pytest

from interlock.core.claim import ClaimRequest
from interlock.gateway.messages import Returned
from interlock.store.errors import StoreUnavailableError
from tests.doubt.test_doubt_reconciled import reserved
from tests.doubt.world import reconcile
from tests.support.patience import until
from tests.support.shop import OPERATOR

PAID = {"order": "A1", "amount": "30.00"}


class Line:
    """The way from the writer to the database: `lost` answers of claims never arrive; `late`, they are committed afterwards."""

    def __init__(self, writer):
        self.send, self.lost, self.late, self.waiting = writer._send_until_answered, False, False, []
        writer._send_until_answered = self

    async def __call__(self, requests):
        claims = [request for request in requests if isinstance(request, ClaimRequest)]
        if not (claims and self.lost):
            return await self.send(requests)
        if self.late:
            self.waiting.append(requests)
        else:
            await self.send(requests)
        raise StoreUnavailableError("the connection was lost at the commit")

    async def arrive(self):
        """What was on its way is committed now."""
        for requests in self.waiting:
            await self.send(requests)


@pytest.fixture
def line(payments):
    return Line(payments.system.writer)


@pytest.fixture
async def settle(payments):
    """The chore, which comes when the test says so and not by itself."""
    (chore,) = (task for task in asyncio.all_tasks() if task.get_name() == "given-up")
    chore.cancel()
    return payments.system.gate.given_up.round


async def refused(made, line, session, operation="pay", **arguments):
    line.lost = True
    told = await made.call(session, operation, **(arguments or PAID))
    line.lost = False
    assert (told.code, told.effect.value) == ("control_plane_unavailable", "none")
    return told


async def states(made):
    return [row["state"] for row in await made.system.database.pool().fetch("SELECT state FROM claim ORDER BY claimed_at")]


async def test_a_claim_that_was_committed_and_not_answered_is_settled_as_not_executed(payments, line, settle):
    session = await payments.session()
    told = await refused(payments, line, session)
    assert await states(payments) == ["claimed"]
    await settle()
    assert await states(payments) == ["failed"]
    kind, settled = (await payments.events(told.call_id))[-1]
    assert (kind, settled["state"], settled["code"]) == ("call.settled", "failed", "control_plane_unavailable")
    assert "not executed" in settled["detail"]
    assert await reserved(payments) == ("0", "0")
    assert isinstance(await payments.call(session, "pay", **PAID), Returned)
    assert len(payments.tool.rows("A1")) == 1
    assert await payments.system.plane.doubts.list(OPERATOR) == ()


async def test_one_that_is_committed_later_is_settled_then(payments, line, settle):
    line.late = True
    await refused(payments, line, await payments.session())
    await settle()
    assert await states(payments) == []
    await line.arrive()
    assert await states(payments) == ["claimed"]
    await settle()
    assert await states(payments) == ["failed"]


async def test_one_that_was_thought_orphaned_meanwhile_asks_nobody_any_more(payments, line, settle):
    await refused(payments, line, await payments.session(), "blind", order="A1")
    await payments.system.database.pool().execute("UPDATE claim SET settle_by = clock_timestamp() - interval '1 second'")
    await payments.system.heartbeat()
    assert await states(payments) == ["in_doubt"]
    await settle()
    assert await states(payments) == ["failed"]
    assert await payments.system.plane.doubts.list(OPERATOR) == ()


async def test_a_settlement_that_cannot_be_written_is_made_when_it_can(payments, line, settle):
    await refused(payments, line, await payments.session())
    line.send, send = _gone, line.send
    with pytest.raises(StoreUnavailableError):
        await settle()
    line.send = send
    await settle()
    assert await states(payments) == ["failed"]


async def test_where_the_process_dies_first_the_claim_is_in_doubt_as_ever(payments, line, settle):
    await refused(payments, line, await payments.session(), "blind", order="A1")
    payments.system.gate.given_up._claims.clear()
    await payments.system.database.pool().execute("UPDATE claim SET settle_by = clock_timestamp() - interval '1 second'")
    await payments.system.heartbeat()
    await payments.system.reconcile()
    assert await states(payments) == ["in_doubt"]


async def test_what_somebody_else_has_taken_up_is_not_settled_over_his_head(payments, line, settle, caplog):
    await refused(payments, line, await payments.session(), "once")
    await payments.system.database.pool().execute("UPDATE claim SET attempt = 2")
    await settle()
    assert await states(payments) == ["claimed"]
    assert len(payments.system.gate.given_up) == 0
    assert "not executed" not in caplog.text


async def test_a_process_that_leaves_settles_it_before(payments, line, settle):
    await refused(payments, line, await payments.session())
    await payments.system.leave(())
    assert await states(payments) == ["failed"]


async def test_what_another_round_has_settled_meanwhile_keeps_a_process_from_nothing_when_it_leaves(
    payments, line, settle, monkeypatch
):
    told = await refused(payments, line, await payments.session())
    committed, asked, go_on = payments.system.watch.committed, asyncio.Event(), asyncio.Event()

    async def slowly(claim_ids):
        found = await committed(claim_ids)
        asked.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as slow:
        slow.setattr(payments.system.watch, "committed", slowly)
        leaving = asyncio.create_task(settle())
        await asked.wait()
    await settle()
    go_on.set()
    assert await leaving == 0
    assert await states(payments) == ["failed"]
    assert [kind for kind, _ in await payments.events(told.call_id)].count("call.settled") == 1


async def test_what_would_be_sent_again_waits_for_the_word_of_whoever_gave_it_up(payments, line, settle):
    await refused(payments, line, await payments.session(), "once")
    await payments.system.database.pool().execute("UPDATE claim SET settle_by = clock_timestamp() - interval '1 second'")
    await payments.system.heartbeat()
    await reconcile(payments, seconds=4)
    assert payments.tool.table == []
    await settle()
    await reconcile(payments, seconds=4)
    assert payments.tool.table == []
    assert await states(payments) == ["failed"]


async def test_it_is_the_chore_of_every_process(payments, line):
    await refused(payments, line, await payments.session(), "paid", order="A1")
    await until(lambda: len(payments.system.gate.given_up) == 0)
    assert await states(payments) == ["failed"]


async def test_most_claims_of_a_long_outage_are_watched_and_not_more(payments, line, settle, monkeypatch):
    monkeypatch.setattr("interlock.gateway.given_up.MAX_GIVEN_UP", 2)
    line.late = True
    session = await payments.session()
    for order in ("A1", "A2", "A3"):
        await refused(payments, line, session, order=order, amount="1.00")
    assert len(payments.system.gate.given_up) == 2


async def _gone(requests):
    raise StoreUnavailableError("the database is gone")
