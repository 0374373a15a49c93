"""Budgets as callers and approvers meet them: what is told, who is asked, what waits, what is given back."""

import asyncio
import contextlib

import pytest

from interlock.core.budget import CEILINGS, units_of
from interlock.core.who import Person
from interlock.gateway import limits
from interlock.gateway.messages import Proposal, Refusal, Returned
from interlock.tools.port import ToolFailure
from tests.support.shop import FILES, Shop, counter

BUDGETS = """
calls-per-run: {count: calls, per: run, limit: 3}
calls-per-session: {count: calls, per: session, limit: 40}
notes: {count: calls, on: shop.note, per: session, limit: 1}
paid-per-hour: {sum: shop.pay.amount, per: lineage, within: 1h, limit: "100.00", ask: refunds}
paid-by-all: {sum: shop.pay.amount, per: tenant, within: 1h, limit: "300.00"}
wall: {count: wall_ms, on: shop.slow, per: lineage, within: 1h, limit: 39000}
"""
LEAD = Person(user="leo", tenant="acme", roles=("Lead",), told_at_us=1)


@contextlib.asynccontextmanager
async def budgeted(url, state, budgets=BUDGETS, files=FILES, shop=None):
    async with counter(url, state, files={**files, "budgets.yaml": budgets}, shop=shop) as made:
        yield made


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with budgeted(database_urls.app, tmp_path) as made:
        yield made


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


async def pay(shop, session, amount, order_id="A1", **more):
    return await shop.call(session, "pay", order_id=order_id, amount=amount, **more)


async def test_a_loop_is_stopped_by_the_calls_of_its_run_and_told_which_budget_it_was(shop):
    session = await shop.session()
    answers = [await shop.call(session, "stock", item=f"i{number}") for number in range(4)]
    assert all(isinstance(answer, Returned) for answer in answers[:3])
    assert code(answers[3]) == "over_budget"
    assert answers[3].meta() | {"id": ""} == {
        "id": "",
        "outcome": "denied",
        "code": "over_budget",
        "effect": "none",
        "retry": "never",
        "budget": {"name": "calls-per-run", "per": "run", "counts": "calls", "limit": "3", "used": "3", "takes": "1"},
    }
    assert shop.shop.count("stock") == 3
    assert "Nothing was changed" in answers[3].text


async def test_naming_many_runs_does_not_widen_what_the_session_may_do(database_urls, tmp_path):
    budgets = "calls-per-session: {count: calls, per: session, limit: 5}\n"
    async with budgeted(database_urls.app, tmp_path, budgets) as shop:
        session = await shop.session()
        answers = [
            await shop.gate.call(session, Proposal(operation="shop.stock", arguments=b'{"item":"x"}', run=f"r{number}"))
            for number in range(6)
        ]
        assert sum(isinstance(answer, Returned) for answer in answers) == 5
        assert answers[5].meta()["budget"]["name"] == "calls-per-session"


async def test_a_hit_is_put_to_a_person_with_its_numbers_and_lets_that_very_call_through_once(shop):
    session = await shop.session()
    assert isinstance(await pay(shop, session, "60.00"), Returned)
    told = await pay(shop, session, "50.00", order_id="B1")
    assert (code(told), told.retry) == ("over_budget_asked", "same_args_after_approval")
    assert told.meta()["budget"] == {
        "name": "paid-per-hour",
        "per": "lineage",
        "counts": "sum",
        "window_s": 3600,
        "limit": "100",
        "used": "60",
        "takes": "50",
    }
    (asked,) = told.meta()["approvals"]
    request = await shop.system.plane.approvals.show(LEAD, asked["id"])
    assert "60 of 100 per lineage in 3600 s are used, and it takes 50" in request.say
    await shop.system.plane.approvals.answer(LEAD, asked["id"], approve=True)
    # Another call is not let through by it.
    assert code(await pay(shop, session, "50.00", order_id="C1")) == "over_budget_asked"
    assert isinstance(await pay(shop, session, "50.00", order_id="B1"), Returned)
    assert shop.shop.count("pay") == 2
    # What was let through counts: now nothing more fits.
    assert (await pay(shop, session, "1.00")).meta()["budget"]["used"] == "110"
    claimed = [body for kind, body in await shop.events(session.session_id) if kind == "call.claimed"]
    assert claimed[1]["approvals"] == [asked["id"]]
    assert {"budget": "paid-per-hour", "amount": "50"} in claimed[1]["reserved"]


async def test_a_person_who_says_no_ends_it(shop):
    session = await shop.session()
    await pay(shop, session, "90.00")
    told = await pay(shop, session, "20.00")
    approval_id = told.meta()["approvals"][0]["id"]
    await shop.system.plane.approvals.answer(LEAD, approval_id, approve=False, note="too much today")
    assert code(await pay(shop, session, "20.00")) == "approval_denied"


async def test_what_others_have_used_of_a_shared_budget_is_not_told(shop):
    for user in ("ana", "ben", "cyd"):
        assert isinstance(await pay(shop, await shop.session(user), "99.00"), Returned)
    told = await pay(shop, await shop.session("dan"), "4.00")
    assert code(told) == "over_budget"
    assert told.meta()["budget"] == {"name": "paid-by-all", "per": "tenant", "counts": "sum", "window_s": 3600}
    assert told.retry == "after_ms"
    assert 3_500_000 < told.retry_after_ms <= 3_660_000
    assert "297" not in told.text
    assert isinstance(await pay(shop, await shop.session("dan"), "3.00"), Returned)


@pytest.mark.parametrize("amount", ["-60.00", "NaN", "Infinity", "1e3", "0x10", "", " 5", "٥", "1.00001", "9" * 15])
async def test_no_amount_that_a_caller_sends_refills_or_confuses_a_budget(shop, amount):
    session = await shop.session()
    await pay(shop, session, "60.00")
    assert isinstance(await pay(shop, session, amount, order_id="B1"), Refusal)
    assert (await pay(shop, session, "41.00", order_id="C1")).meta()["budget"]["used"] == "60"
    assert shop.shop.count("pay") == 1


def test_numbers_are_counted_exactly_or_not_at_all():
    assert [units_of(value) for value in (1, "0.1", 0.1, "12.3456", 0, "0")] == [10_000, 1_000, 1_000, 123_456, 0, 0]
    assert sum(units_of("0.1") for _ in range(10)) == units_of(1)
    refused = (None, True, "NaN", "1e3", "+1", "1,0", "1.", ".5", "1.23456", 1.23456, [1], {}, "1\n", "９")
    assert [units_of(value) for value in refused] == [None] * len(refused)
    assert units_of("9" * 18) == 9 * 10**17
    assert units_of("-5") == -50_000


async def test_a_call_waits_for_room_that_a_call_under_way_gives_back(database_urls, tmp_path, monkeypatch):
    monkeypatch.setattr("interlock.gateway.gate.BUDGET_WAIT_MS", 20_000)
    made = Shop()

    async def never_sent():
        made.entered.set()
        await made.go_on.wait()
        return ToolFailure(sent=False, code="unreachable", detail="")

    async with budgeted(database_urls.app, tmp_path, shop=made) as shop:
        session = await shop.session()
        connector = shop.system.connectors.get("shop")
        invoke = connector.invoke

        async def first_fails(invocation):
            if b"slow" in invocation.upstream_name.encode() and not made.go_on.is_set():
                return await never_sent()
            return await invoke(invocation)

        monkeypatch.setattr(connector, "invoke", first_fails, raising=False)
        first = asyncio.create_task(shop.call(session, "slow", order_id="A1"))
        await made.entered.wait()
        second = asyncio.create_task(shop.call(session, "slow", order_id="B1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not second.done()
        made.go_on.set()
        assert code(await first) == "tool_unavailable"
        assert isinstance(await second, Returned)


async def test_a_call_waits_only_so_long(shop, monkeypatch):
    monkeypatch.setattr("interlock.gateway.gate.BUDGET_WAIT_MS", 50)
    assert limits.BUDGET_WAIT_MS < limits.PERMIT_HOLDS_S * 1000
    session = await shop.session()
    first = asyncio.create_task(shop.call(session, "slow", order_id="A1"))
    await shop.shop.entered.wait()
    told = await shop.call(session, "slow", order_id="B1")
    assert (code(told), told.retry) == ("over_budget", "after_ms")
    assert told.meta()["budget"]["name"] == "wall"
    shop.shop.go_on.set()
    assert isinstance(await first, Returned)
    # The reserved twenty seconds became the milliseconds that it took.
    assert isinstance(await shop.call(session, "slow", order_id="C1"), Returned)


async def test_budgets_survive_a_restart_and_a_new_session(database_urls, tmp_path):
    async with budgeted(database_urls.app, tmp_path) as shop:
        assert isinstance(await pay(shop, await shop.session(), "60.00"), Returned)
    async with budgeted(database_urls.app, tmp_path) as shop:
        told = await pay(shop, await shop.session(), "60.00", order_id="B1")
        assert told.meta()["budget"]["used"] == "60"


async def test_a_repeated_call_takes_nothing_more(shop):
    session = await shop.session()
    for _ in range(6):
        assert isinstance(await pay(shop, session, "60.00"), Returned)
    assert shop.shop.count("pay") == 1


async def test_calls_with_entities_are_counted_by_their_arguments(database_urls, tmp_path):
    tools = FILES["tools/shop.yaml"] + (
        "  erase: {effects: [destructive], input: {people: [string], why?: string}, output: {n: integer}, "
        "entities: len(people), repeat: allow, reviewed: {by: a}}\n"
        "  move: {effects: [write], input: {count?: integer}, output: {n: integer}, entities: count, repeat: allow, reviewed: {by: a}}\n"
    )
    agents = FILES["agents.yaml"].replace("shop.wild]", "shop.wild, shop.erase, shop.move]")
    made = Shop()
    functions = made.functions

    def more():
        found = functions()
        found["shop:erase"] = found["shop:move"] = found["shop:note"]
        return found

    made.functions = more
    files = {**FILES, "tools/shop.yaml": tools, "agents.yaml": agents}
    budgets = (
        "entities-per-call: {count: entities, per: call, limit: 3, ask: refunds}\n"
        "entities-per-day: {count: entities, per: lineage, within: 24h, limit: 5}\n"
    )
    async with budgeted(database_urls.app, tmp_path, budgets, files, made) as shop:
        session = await shop.session()
        told = await shop.call(session, "erase", people=list("abcd"))
        assert (code(told), told.meta()["budget"]["takes"]) == ("over_budget_asked", "4")
        await shop.system.plane.approvals.answer(LEAD, told.meta()["approvals"][0]["id"], approve=True)
        assert isinstance(await shop.call(session, "erase", people=list("abcd")), Returned)
        assert (await shop.call(session, "move", count=2)).meta()["budget"]["name"] == "entities-per-day"
        for arguments in ({"count": -1}, {}):
            told = await shop.call(session, "move", **arguments)
            assert (code(told), told.field) == ("invalid_arguments", "count")
        assert isinstance(await shop.call(session, "move", count=1), Returned)
        assert isinstance(await shop.call(session, "move", count=0), Returned)


async def test_a_release_that_says_nothing_has_ceilings(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as shop:
        session = await shop.session()
        assert isinstance(await shop.call(session, "note", text="x"), Returned)
        claimed = [body for kind, body in await shop.events(session.session_id) if kind == "call.claimed"]
        named = {item["budget"] for item in claimed[0]["reserved"]}
        # The ceiling for one call is recorded only when it is gone beyond.
        assert named == {budget.name for budget in CEILINGS} - {"entities-per-call", "lookups-per-session"}


async def test_a_caller_that_is_told_no_cannot_have_objects_read_for_ever(database_urls, tmp_path):
    budgets = "lookups-per-session: {count: lookups, per: session, limit: 3}\ncalls-per-session: {count: calls, per: session, limit: 2}\n"
    async with budgeted(database_urls.app, tmp_path, budgets) as shop:
        session = await shop.session()
        for number in range(3):
            told = await shop.call(session, "refund", order_id="B1", amount=f"{number + 1}.00")
            assert code(told) == "user_not_permitted"
        told = await shop.call(session, "refund", order_id="B1", amount="9.00")
        assert (code(told), told.retry) == ("over_budget", "never")
        assert told.meta()["budget"] == {
            "name": "lookups-per-session", "per": "session", "counts": "lookups", "limit": "3", "used": "3", "takes": "1",
        }  # fmt: skip
        assert (
            "3 are used and what this call is about would have to be looked up once more. It does not free again" in told.text
        )
        assert shop.shop.count("lookup") == 3
        # What was looked up took nothing of the calls, and another session has its own.
        for item in ("a", "b"):
            assert isinstance(await shop.call(session, "stock", item=item), Returned)
        assert isinstance(await shop.call(await shop.session(), "refund", order_id="A1", amount="1.00"), Returned)
        claimed = [body for kind, body in await shop.events(session.session_id) if kind == "call.claimed"]
        assert claimed[0]["reserved"] == [{"budget": "lookups-per-session", "amount": "1"}]


async def test_processes_race_for_money_and_the_tool_never_pays_more_than_the_budget(database_urls, tmp_path):
    made = Shop()
    budgets = 'paid-by-all: {sum: shop.pay.amount, per: tenant, within: 1h, limit: "100.00"}\n'
    async with contextlib.AsyncExitStack() as stack:
        shops = [
            await stack.enter_async_context(budgeted(database_urls.app, tmp_path / str(number), budgets, shop=made))
            for number in range(4)
        ]

        async def spend(shop, user):
            session = await shop.session(user)
            for number in range(12):
                await pay(shop, session, "3.00", order_id=f"{user}{number}")

        await asyncio.gather(*[spend(shop, f"u{side}{n}") for side, shop in enumerate(shops) for n in range(2)])
    assert sum(call[0] == "pay" for call in made.calls) == 33
