"""How much is used, as people see it: by API and command, and only those who may."""

import asyncio

import pytest

from interlock.app.administration import NotPermittedError
from interlock.cli.budgets import budgets
from interlock.cli.output import Failure
from interlock.core.who import Person
from tests.budgets.test_budgets_gate import BUDGETS, budgeted, pay
from tests.support.served import served
from tests.support.shop import FILES, OPERATOR

ADMINISTERED = {**FILES, "release.yaml": "name: shop\nuser_attributes: {teams: set}\nadministration: {status: [Operator]}\n"}


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with budgeted(database_urls.app, tmp_path) as made:
        yield made


async def test_the_fullest_are_shown_first_with_what_is_reserved(shop):
    session = await shop.session()
    await pay(shop, session, "60.50")
    slow = asyncio.create_task(shop.call(session, "slow", order_id="A1"))
    await shop.shop.entered.wait()
    found = await shop.system.plane.budgets.usage(OPERATOR)
    assert [item.name for item in found[:3]] == ["calls-per-run", "paid-per-hour", "wall"]
    paid, wall = found[1], found[2]
    assert (paid.used, paid.limit, paid.reserved, paid.asks, paid.per) == ("60.5", "100", "0", "refunds", "lineage")
    assert paid.about == "agent bot for user ana of acme in test"
    assert (wall.used, wall.reserved) == ("20000", "20000")
    (shared,) = await shop.system.plane.budgets.usage(OPERATOR, name="paid-by-all")
    assert (shared.used, shared.slices, shared.about) == ("60.5", 1, "tenant acme in test")
    shop.shop.go_on.set()
    await slow


async def test_a_person_sees_the_budgets_of_the_own_tenant_and_only_with_the_role(database_urls, tmp_path):
    async with budgeted(database_urls.app, tmp_path, files=ADMINISTERED) as shop:
        for tenant, user in (("acme", "ana"), ("other", "otto")):
            await pay(shop, await shop.session(user, tenant=tenant), "10.00")
        stranger = Person(user="otto", tenant="other", roles=("Operator",))
        assert {item.tenant for item in await shop.system.plane.budgets.usage(stranger)} == {"other"}
        with pytest.raises(NotPermittedError):
            await shop.system.plane.budgets.usage(Person(user="ana", tenant="acme", roles=("Staff",)))


async def test_what_is_nearly_used_up_is_found_by_its_window_and_looked_at_once_for_everybody(shop, monkeypatch):
    monkeypatch.setattr("interlock.app.budgets.TIGHT_HOLDS_S", 3600.0)
    await pay(shop, await shop.session(), "79.99")
    assert await shop.system.plane.budgets.tight(OPERATOR) == ()
    session = await shop.session("ben")
    await pay(shop, session, "60.00")
    await pay(shop, session, "20.00", order_id="A2")
    assert await shop.system.plane.budgets.tight(OPERATOR) == ()  # for some seconds
    shop.system.plane.budgets._tight.clear()
    (found,) = await shop.system.plane.budgets.tight(OPERATOR)
    assert (found.name, found.used, found.about) == ("paid-per-hour", "80", "agent bot for user ben of acme in test")
    with pytest.raises(NotPermittedError):
        await shop.system.plane.budgets.tight(Person(user="ana", tenant="acme", roles=("Staff",)))


async def test_a_budget_that_the_release_no_longer_has_is_said_not_to_be_in_force(shop):
    await pay(shop, await shop.session(), "10.00")
    files = {
        **FILES,
        "budgets.yaml": BUDGETS.replace("paid-per-hour:", "paid-by-one:").replace(
            "within: 1h, limit: 39000", "limit: 1, within: 2h"
        ),
    }
    await shop.system.plane.releases.put_in_force(files, by="test")
    found = {item.name: item.in_force for item in await shop.system.plane.budgets.usage(OPERATOR)}
    assert (found["paid-per-hour"], found["paid-by-all"]) == (False, True)


async def test_the_command_prints_a_table_for_those_who_may(shop, tmp_path, capsys):
    await pay(shop, await shop.session(), "60.50")
    async with served(shop, tmp_path) as front:
        await asyncio.to_thread(budgets, "paid-per-hour", caller=front.as_("oki"))
        out = capsys.readouterr().out
        assert "paid-per-hour" in out
        assert "60.5" in out
        await asyncio.to_thread(budgets, caller=front.as_("oki"), as_json=True)
        assert '"counts":"sum"' in capsys.readouterr().out
        with pytest.raises(Failure):
            await asyncio.to_thread(budgets, caller=front.as_("ana"))
