"""What was spent after a backup counts when writes go on: a restore lets no cap be spent twice."""

import pytest

from interlock.gateway.messages import Returned
from interlock.store.mark import Taken
from tests.doubt.world import RELEASE
from tests.restore.test_restore_controls import pay
from tests.restore.world import BOSS, made_good, resumed

BUDGETS = """
paid-per-day: {sum: shop.pay.amount, per: lineage, within: 24h, limit: "100.00"}
paid-by-all: {sum: shop.pay.amount, per: tenant, within: 24h, limit: "150.00"}
pushed: {count: calls, on: [shop.blind], per: lineage, within: 24h, limit: 2}
looked: {count: calls, on: [shop.paid], per: agent, within: 24h, limit: 3}
"""
CAPPED = {
    **RELEASE,
    "budgets.yaml": BUDGETS,
    "tools/shop.yaml": RELEASE["tools/shop.yaml"].replace(
        "blind: {effects: [write],", "blind: {effects: [write], repeat: allow,"
    ),
}


@pytest.fixture
def bank(bank):
    bank.files = CAPPED
    return bank


async def _emptied(bank):
    async with bank.gateway():
        pass
    await bank.backup()


async def _made_good_and_on(made):
    report = await made_good(made)
    assert report.complete, report.faults
    await resumed(made)


async def test_what_a_lineage_and_a_tenant_have_spent_counts_in_their_windows(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1", "60.00"), Returned)
        assert isinstance(await pay(made, await made.session(user="ben"), "B1", "60.00"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await _made_good_and_on(made)
        session = await made.session()
        assert (await pay(made, session, "A2", "50.00")).code == "over_budget"
        assert (await pay(made, await made.session(user="eve"), "E1", "31.00")).code == "over_budget"
        assert isinstance(await pay(made, session, "A3", "30.00"), Returned)
        assert (await pay(made, session, "A4", "1.00")).code == "over_budget"
    assert [row["order"] for row in bank.tool.table] == ["A1", "B1", "A3"]


async def test_a_slice_that_stands_in_the_backup_is_no_room_of_its_own(bank):
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A0", "1.00"), Returned)
    await bank.backup()
    async with bank.gateway() as made:
        for order in ("A1", "B1"):
            assert isinstance(await pay(made, await made.session(user=order), order, "74.00"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await _made_good_and_on(made)
        # Whoever goes on with the slice of a process of before has it counted anew.
        made.system.writer._process_id = made.system.writer._slices._process_id = await made.system.database.pool().fetchval(
            "SELECT holder FROM budget WHERE holder LIKE 'prc_%' LIMIT 1"
        )
        assert (await pay(made, await made.session(user="eve"), "E1", "2.00")).code == "over_budget"
        assert isinstance(await pay(made, await made.session(user="eve"), "E2", "1.00"), Returned)


async def test_what_may_be_repeated_freely_and_what_only_reads_counts_too_where_a_window_counts_it(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        session = await made.session()
        for _ in range(2):
            assert isinstance(await made.call(session, "blind", order="A1"), Returned)
            assert isinstance(await made.call(session, "paid", order="A1"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await _made_good_and_on(made)
        session = await made.session()
        assert (await made.call(session, "blind", order="A1")).code == "over_budget"
        assert isinstance(await made.call(session, "paid", order="A1"), Returned)
        assert (await made.call(session, "paid", order="A1")).code == "over_budget"
        assert await made.system.plane.doubts.list(BOSS) == ()


async def test_marks_that_are_read_twice_count_once(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1", "60.00"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        await made_good(made)
        await _made_good_and_on(made)
        assert isinstance(await pay(made, await made.session(), "A2", "40.00"), Returned)


async def test_what_was_not_done_is_not_counted(bank):
    await _emptied(bank)
    async with bank.gateway() as made:
        session = await made.session()
        await made.system.connectors.aclose()
        assert (await pay(made, session, "A1", "60.00")).code == "tool_unavailable"
    await bank.set_back()
    async with bank.gateway() as made:
        await made_good(made)
        await resumed(made)
        assert isinstance(await pay(made, await made.session(), "A2", "100.00"), Returned)


async def test_marks_of_a_version_that_did_not_keep_it_are_not_all_there_is_to_know(bank, monkeypatch):
    await _emptied(bank)
    monkeypatch.setattr("interlock.app.marking.Taken", lambda **more: Taken(**{**more, "charges": None}))
    async with bank.gateway() as made:
        assert isinstance(await pay(made, await made.session(), "A1", "60.00"), Returned)
    await bank.set_back()
    async with bank.gateway() as made:
        report = await made_good(made)
        assert not report.complete
        assert "what it took of budgets" in report.faults[0]
