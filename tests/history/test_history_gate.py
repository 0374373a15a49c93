"""Facts about the past through the whole gate: the same in every process, calls under way included, at no extra question."""

import asyncio
import itertools

import pytest
import pytest_asyncio

from interlock.gateway.limits import LONGEST_SESSION_S
from interlock.gateway.messages import Refusal, Returned
from interlock.ledger.story import tell
from tests.support.clock import LaterClock
from tests.support.shop import FILES, two_processes

HISTORY = """
notes: {count: shop.note, per: session, with_this: true}
slow_ones: {formerly: shop.slow, within: 1h}
paid_for_it: {sum: shop.pay.amount, matching: [order_id], within: 1h, with_this: true}
"""
GUARD = """
@id("three-notes")
@owner("security")
forbid (principal, action == Action::"shop.note", resource) when { context.history.notes > 3 };

@id("no-stock-after-slow")
@owner("security")
@say("Not after something slow.")
forbid (principal, action == Action::"shop.stock", resource) when { context.history.slow_ones };

@id("fifty-an-order")
@owner("security")
forbid (principal, action == Action::"shop.pay", resource)
when { context.history.paid_for_it.greaterThan(decimal("50.0")) };
"""
FILES = {**FILES, "history.yaml": HISTORY, "policies/guard/history.cedar": GUARD}
USERS = itertools.count()
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(postgres, tmp_path_factory):
    """Two processes on one database, for all tests; each test has a user of its own."""
    async with two_processes(postgres, tmp_path_factory, FILES) as both:
        yield both


@pytest.fixture
def one(house):
    house[0].shop.calls.clear()
    return house[0]


@pytest.fixture
def two(house):
    house[1].shop.calls.clear()
    return house[1]


@pytest_asyncio.fixture(loop_scope="module")
async def session(one):
    return await one.session(user=f"u{next(USERS)}")


async def test_what_another_process_did_counts_at_once(one, two, session):
    for made in (one, two, one):
        assert isinstance(await made.call(session, "note", text="x"), Returned)
    assert (await two.call(session, "note", text="x")).code == "forbidden"
    assert (await one.call(session, "note", text="x")).code == "forbidden"


async def test_of_many_at_once_in_two_processes_no_more_pass_than_may(one, two, session):
    calls = [made.call(session, "note", text=f"{number}") for number in range(5) for made in (one, two)]
    answers = await asyncio.gather(*calls)
    assert sum(isinstance(answer, Returned) for answer in answers) == 3
    assert one.shop.count("note") + two.shop.count("note") == 3
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} <= {"forbidden", "contended"}


async def test_a_call_under_way_counts(one, two, session):
    assert isinstance(await two.call(session, "stock", item="tea"), Returned)
    slow = asyncio.create_task(one.call(session, "slow", order_id="A1"))
    await one.shop.entered.wait()
    assert (await two.call(session, "stock", item="tea")).code == "forbidden"
    one.shop.go_on.set()
    assert isinstance(await slow, Returned)


async def test_sums_are_matched_on_the_present_calls_arguments_and_a_refused_call_adds_nothing(one, session):
    assert isinstance(await one.call(session, "pay", order_id="A1", amount="40.00"), Returned)
    assert isinstance(await one.call(session, "pay", order_id="B1", amount="40.00"), Returned)
    assert (await one.call(session, "pay", order_id="A1", amount="10.01")).code == "forbidden"
    assert isinstance(await one.call(session, "pay", order_id="A1", amount="10.00"), Returned)


async def test_what_made_it_forbidden_is_in_the_record(one, session):
    one.shop.go_on.set()
    slow = await one.call(session, "slow", order_id="A1")
    refused = await one.call(session, "stock", item="tea")
    facts = next(body for kind, body in await one.events(refused.call_id) if kind == "call.decided")["facts"]
    because = [{"call_id": slow.call_id, "operation": "shop.slow", "brought": ["a change"]}]
    assert facts["history"] == {"slow_ones": {"value": True, "because": because}}
    lines = [line.text for line in tell(await one.system.traces.events(session.session_id))]
    told = next(line for line in lines if "Not after something slow." in line)
    assert f"before it: slow_ones is true, by step 1, {slow.call_id} (shop.slow: a change)" in told


async def test_one_process_asks_the_database_once_and_then_carries_on_by_itself(one, session, monkeypatch):
    asked = []
    shelf = one.system.histories._shelf
    for name in ("whole", "after"):
        monkeypatch.setattr(shelf, name, counting(asked, getattr(shelf, name)))
    for number in range(4):
        await one.call(session, "pay", order_id=f"C{number}", amount="1.00")
    assert len(asked) == 1


def counting(asked, real):
    async def ask(*arguments):
        asked.append(arguments)
        return await real(*arguments)

    return ask


async def test_a_fact_declared_later_knows_earlier_calls_and_takes_their_arguments_for_the_worst(one, session, monkeypatch):
    """Calls that no fact counted when they were claimed: their operation is known, and nothing of what they were about."""
    await one.call(session, "pay", order_id="Z9", amount="1.00")
    pool = one.system.database.pool()
    await pool.execute("UPDATE claim SET remembered = NULL, history_n = NULL WHERE session_id = $1", session.session_id)
    for lineage_id in list(one.system.histories._known):
        one.system.histories._known.pop(lineage_id)
    assert (await one.call(session, "pay", order_id="A1", amount="1.00")).code == "forbidden"


async def test_the_labels_say_which_call_brought_them(one, session):
    person = await one.call(session, "person", person_id=1)
    paid = await one.call(session, "pay", order_id="A1", amount="1.00")
    facts = next(body for kind, body in await one.events(paid.call_id) if kind == "call.decided")["facts"]
    assert facts["tainted_by"] == facts["confidential_by"] == f"{person.call_id} shop.person"


async def test_past_calls_are_forgotten_to_save_memory_and_count_all_the_same(one, monkeypatch):
    monkeypatch.setattr(one.system.histories._known, "most_size", 5)
    sessions = [await one.session(user=f"u{next(USERS)}") for _ in range(6)]
    for _ in range(3):
        for session in sessions:
            assert isinstance(await one.call(session, "note", text="x"), Returned)
    known = one.system.histories
    assert 0 < known._known.size <= 5
    assert known._known.size == sum(len(known._known.get(name).calls) for name in list(known._known))
    for session in sessions:
        assert (await one.call(session, "note", text="x")).code == "forbidden"


async def test_lineages_whose_past_is_empty_are_bounded_by_their_number(one, monkeypatch):
    monkeypatch.setattr(one.system.histories._known, "most", 3)
    for _ in range(6):
        session = await one.session(user=f"u{next(USERS)}")
        assert isinstance(await one.call(session, "stock", item="tea"), Returned)
    assert len(one.system.histories._known) <= 3


async def test_calls_that_are_older_than_every_window_are_forgotten(one, session, monkeypatch):
    for _ in range(3):
        assert isinstance(await one.call(session, "note", text="x"), Returned)
    known = one.system.histories
    assert len(known._known.get(session.lineage.id).calls) == 3
    clock = LaterClock()
    clock.later_s = LONGEST_SESSION_S + 3_600
    monkeypatch.setattr(known, "_clock", clock)
    assert isinstance(await one.call(session, "stock", item="tea"), Returned)
    assert known._known.get(session.lineage.id).calls == {}
