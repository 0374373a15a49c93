"""Budgets in the claim, attacked from several processes: the database's own rows are the judge."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core.budget import DAY_S, Charge
from interlock.core.claim import Claimed, OverBudget, Settled, Stale
from interlock.ledger.drafts import draft
from interlock.ledger.events import ClaimOrphaned
from interlock.store.budgets import Budgets
from interlock.store.processes import Processes
from tests.store.test_store_claims import IDS, desk

USED = "SELECT coalesce(sum(held + spent + budget_in_window(account, holder, window_s, clock_timestamp())), 0) FROM budget"


def charge(limit, amount=1, *, account="calls:x:session:s", window_s=0, shared=False, lifted=False):
    return Charge(
        budget="calls",
        account=account,
        amount=amount,
        limit=limit,
        window_s=window_s,
        shared=shared,
        about="somebody",
        lifted=lifted,
    )


def shared(limit, amount=1, *, account="calls:x:tenant:t", **more):
    return charge(limit, amount, account=account, window_s=DAY_S, shared=True, **more)


async def ask(url, sql, *arguments):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


@pytest.fixture
async def one(database_urls):
    async with desk(database_urls.app) as made:
        yield made


@pytest.fixture
async def four(database_urls):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(desk(database_urls.app, f"p{number}")) for number in range(4)]


async def take(side, session, *charges, **more):
    return await side.claim(session, charges=charges, **more)


def claimed_of(answers):
    return [answer for answer in answers if isinstance(answer, Claimed)]


async def test_what_does_not_fit_is_refused_and_says_how_much_is_used(one):
    session = await one.session()
    answers = [await take(one, session, charge(3, 2)) for _ in range(2)]
    assert isinstance(answers[0], Claimed)
    assert isinstance(answers[1], OverBudget)
    assert (answers[1].used, answers[1].in_flight, answers[1].after_ms) == (2, 2, None)
    assert isinstance(await take(one, session, charge(3, 1)), Claimed)


async def test_claims_of_one_batch_do_not_share_the_last_unit(one):
    session = await one.session()
    answers = await asyncio.gather(*[take(one, session, charge(3)) for _ in range(10)])
    assert [type(answer) for answer in answers] == [Claimed] * 3 + [OverBudget] * 7
    assert (answers[9].used, answers[9].in_flight) == (3, 3)


async def test_a_claim_refused_by_one_budget_takes_nothing_of_the_others(one, database_urls):
    session = await one.session()
    small, large = charge(1, account="a:x:session:s"), charge(10, account="b:x:session:s")
    answers = await asyncio.gather(*[take(one, session, large, small) for _ in range(5)])
    assert len(claimed_of(answers)) == 1
    assert await ask(database_urls.auditor, "SELECT spent FROM budget WHERE account = 'b:x:session:s'") == 1


@pytest.mark.parametrize("make", [charge, shared])
async def test_processes_race_for_a_budget_and_take_exactly_all_of_it(four, database_urls, make):
    sessions = [await side.session(f"user{number}") for number, side in enumerate(four)]
    limit = 50

    async def grab(side, session):
        return claimed_of([await take(side, session, make(limit)) for _ in range(10)])

    taken = await asyncio.gather(*[grab(side, session) for side, session in zip(four, sessions, strict=True) for _ in range(4)])
    assert sum(map(len, taken)) == limit
    assert await ask(database_urls.auditor, "SELECT count(*) FROM claim") == limit
    assert await ask(database_urls.auditor, USED) == limit


async def test_a_call_that_never_happened_gives_back_and_one_in_doubt_does_not(one):
    session = await one.session()
    for kind in (charge(1), shared(1)):
        first = await take(one, session, kind)
        await one.settle(session, first, "failed", release_key=True, outcome=None)
        second = await take(one, session, kind)
        assert isinstance(second, Claimed)
        await one.settle(session, second, "in_doubt", outcome=None)
        over = await take(one, session, kind)
        assert isinstance(over, OverBudget)
        assert (over.used, over.in_flight, over.after_ms) == (1, 0, None)
        # Somebody has found out that it never happened.
        await one.settle(session, second, "failed", release_key=True, outcome=None)
        third = await take(one, session, kind)
        await one.settle(session, third)
        assert isinstance(await take(one, session, kind), OverBudget)


async def test_a_failure_that_reached_the_tool_has_used_what_it_took(one):
    session = await one.session()
    first = await take(one, session, charge(1))
    await one.settle(session, first, "failed", outcome=None)
    assert isinstance(await take(one, session, charge(1)), OverBudget)


async def test_what_was_really_used_takes_the_place_of_what_was_reserved(one, database_urls):
    session = await one.session()
    for kind in (charge(100, 60), shared(100, 60)):
        first = await take(one, session, kind)
        assert isinstance(await take(one, session, kind), OverBudget)
        await one.settle(session, first, spent={kind.account: 10})
        second = await take(one, session, kind)
        assert isinstance(second, Claimed)
        await one.settle(session, second, spent={kind.account: 95})
        over = await take(one, session, kind)
        assert over.used == 105


async def test_settling_twice_gives_back_once(one, database_urls):
    session = await one.session()
    first, second = await take(one, session, shared(9, 3)), await take(one, session, shared(9, 3))
    both = [one.settle(session, first, "failed", release_key=True, outcome=None) for _ in range(2)]
    assert [type(answer) for answer in await asyncio.gather(*both)] == [Settled, Settled]
    await one.settle(session, first, "failed", release_key=True, outcome=None)
    assert await ask(database_urls.auditor, USED) == 3
    assert isinstance(second, Claimed)


async def test_a_claim_sent_again_is_charged_once(one, database_urls):
    session = await one.session()
    request = one.request(session, charges=(charge(5), shared(5)))
    assert isinstance(await one.writer.claim(request), Claimed)
    assert isinstance(await one.writer.claim(request), Claimed)
    assert await ask(database_urls.auditor, USED) == 2


async def test_a_duplicate_is_answered_though_the_budget_is_used_up(one):
    session = await one.session()
    first = await take(one, session, charge(1), key="k")
    again = await take(one, session, charge(1), key="k")
    assert again.claim_id == first.claim_id


async def test_reservations_of_a_dead_process_stay_until_somebody_finds_out(database_urls):
    async with desk(database_urls.app, "dies") as dies, desk(database_urls.app, "lives") as lives:
        session = await dies.session()
        lost = await take(dies, session, shared(10, 4), charge(10, 4))
        await Processes(dies.database).leave("dies")
        assert len(await Processes(lives.database).orphan(draft(ClaimOrphaned(reason="gone"), ids=IDS))) == 1
        for kind in (shared(10, 7), charge(10, 7)):
            assert isinstance(await take(lives, session, kind), OverBudget)
        # All that the dead process had drawn and not used is to be had.
        assert isinstance(await take(lives, session, shared(10, 6), charge(10, 6)), Claimed)
        await lives.settle(session, lost, "failed", release_key=True, outcome=None)
        assert isinstance(await take(lives, session, shared(10, 4), charge(10, 4)), Claimed)
        assert isinstance(await take(lives, session, shared(10, 1)), OverBudget)
        holders = "SELECT array_agg(holder) FROM budget WHERE shared AND holder <> ''"
        assert await ask(database_urls.auditor, holders) == ["lives"]


async def test_the_last_unit_is_usable_wherever_it_lies(four):
    sessions = [await side.session(f"user{number}") for number, side in enumerate(four)]
    # Each process has drawn a slice and used one unit of it.
    for side, session in zip(four, sessions, strict=True):
        assert isinstance(await take(side, session, shared(1_000)), Claimed)
    assert isinstance(await take(four[0], sessions[0], shared(1_000, 996)), Claimed)
    assert isinstance(await take(four[3], sessions[3], shared(1_000)), OverBudget)


async def test_slices_get_smaller_as_the_limit_comes_near(four, database_urls):
    # However long this takes, all four are alive.
    await ask(database_urls.superuser, "UPDATE process SET seen_at = clock_timestamp() + interval '1 hour'")
    session = await four[0].session()
    sizes = []
    for _ in range(200):
        await take(four[0], session, shared(200))
        sizes.append(await ask(database_urls.auditor, "SELECT size FROM budget WHERE holder = 'p0'"))
    drawn = [later - earlier for earlier, later in pairwise(sizes) if later > earlier]
    assert drawn == sorted(drawn, reverse=True)
    assert (drawn[0] > 10, drawn[-1]) == (True, 1)


async def test_a_lower_limit_holds_at_once_and_a_higher_one_too(four):
    sessions = [await side.session(f"user{number}") for number, side in enumerate(four)]
    for side, session in zip(four, sessions, strict=True):
        assert isinstance(await take(side, session, shared(1_000, 10)), Claimed)
    lowered = await asyncio.gather(*[take(s, z, shared(42)) for s, z in zip(four, sessions, strict=True) for _ in range(3)])
    assert len(claimed_of(lowered)) == 2
    raised = await asyncio.gather(*[take(s, z, shared(45)) for s, z in zip(four, sessions, strict=True) for _ in range(3)])
    assert len(claimed_of(raised)) == 3


async def test_what_people_let_through_is_counted_all_the_same(one):
    session = await one.session()
    for make in (charge, shared):
        assert isinstance(await take(one, session, make(5, 9, lifted=True)), Claimed)
        over = await take(one, session, make(5, 1))
        assert isinstance(over, OverBudget)
        assert over.used == 9


async def test_a_slice_is_not_drawn_for_a_release_that_no_longer_decides(one, database_urls):
    session = await one.session()
    await ask(database_urls.owner, "UPDATE epoch SET release = release + 1 RETURNING release")
    assert isinstance(await take(one, session, shared(5)), Stale)
    assert await ask(database_urls.auditor, "SELECT count(*) FROM budget WHERE shared") == 0


async def test_a_window_slides_and_never_counts_too_little(one, database_urls):
    session = await one.session()
    window = {"window_s": 60, "account": "calls:x:lineage:l"}
    first = await take(one, session, charge(2, 2, **window))
    await one.settle(session, first)
    over = await take(one, session, charge(2, **window))
    # Steps of a second: what was used now counts for at least a minute, and for at most a minute and a second.
    assert 59_000 < over.after_ms <= 61_000
    age = "UPDATE budget_use SET until = until - $1 * interval '1 second' RETURNING 1"
    await ask(database_urls.owner, age, 58.0)
    assert isinstance(await take(one, session, charge(2, **window)), OverBudget)
    await ask(database_urls.owner, age, 4.0)
    assert isinstance(await take(one, session, charge(2, 2, **window)), Claimed)


@given(st.integers(1, 31 * DAY_S), st.integers(1_600_000_000, 1_900_000_000), st.integers(0, 999_999))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_step_of_every_window_ends_after_the_window_and_no_later_than_a_step_after(database_urls, window_s, s, us):
    until = "SELECT extract(epoch FROM budget_until($1, to_timestamp($2::numeric)))::float8"
    left = await ask(database_urls.app, until, window_s, f"{s}.{us:06}") - (s + us / 1e6) - window_s
    assert 0 < left <= max(1, -(-window_s // 60)) + 1e-3


async def test_counters_are_forgotten_once_nothing_can_ask_for_them(one, database_urls):
    session = await one.session()
    window = {"window_s": 60, "account": "calls:x:lineage:l"}
    settled = await take(one, session, charge(9), charge(9, **window))
    await one.settle(session, settled)
    await take(one, session, charge(9, account="calls:x:lineage:held", window_s=60))
    old = "UPDATE budget SET made_at = made_at - interval '3 days' RETURNING 1"
    await ask(database_urls.owner, old)
    budgets = Budgets(one.database)
    assert await budgets.forget() == 1
    await ask(database_urls.owner, "UPDATE budget_use SET until = until - interval '3 minutes' RETURNING 1")
    assert await budgets.forget() == 2
    assert await ask(database_urls.auditor, "SELECT array_agg(account) FROM budget") == ["calls:x:lineage:held"]
    # A row that is gone is made anew.
    assert isinstance(await take(one, session, charge(9)), Claimed)


async def test_what_is_given_back_above_a_lowered_limit_makes_no_room(four):
    sessions = [await side.session(f"user{number}") for number, side in enumerate(four)]
    taken = [await take(side, session, shared(100, 20)) for side, session in zip(four, sessions, strict=True)]
    assert isinstance(await take(four[0], sessions[0], shared(10)), OverBudget)
    for side, session, claimed in zip(four[:3], sessions, taken, strict=False):
        await side.settle(session, claimed, "failed", release_key=True, outcome=None)
        assert isinstance(await take(side, session, shared(10)), OverBudget)
    await four[3].settle(sessions[3], taken[3], "failed", release_key=True, outcome=None)
    assert isinstance(await take(four[0], sessions[0], shared(10, 10)), Claimed)
