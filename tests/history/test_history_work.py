"""A chain whose steps are split over several agents is one chain: facts of a whole work count what all of them did."""

import asyncio
import itertools

import pytest
import pytest_asyncio

from interlock.app.plane import RecordedSessions
from interlock.app.standings import LoadedStandings
from interlock.core.claim import ClaimRequest, Duplicate, OfWork, Stale
from interlock.core.who import Parent, Session
from interlock.gateway.messages import Refusal, Returned
from interlock.store.sessions import Sessions
from tests.support.shop import FILES, two_processes

STAFF = "{roles: [Staff], task: selling}"
GUARD = """
@id("nothing-paid-after-a-secret")
@owner("security")
@say("A secret was read for this work.")
forbid (principal, action == Action::"shop.pay", resource) when { context.history.read_secret };

@id("fifty-an-order")
@owner("security")
forbid (principal, action == Action::"shop.pay", resource)
when { context.history.paid_for_it.greaterThan(decimal("50.0")) };

@id("three-notes")
@owner("security")
forbid (principal, action == Action::"shop.note", resource) when { context.history.notes > 3 };

@id("checked-first")
@owner("security")
forbid (principal, action == Action::"shop.hurried", resource) when { !context.history.checked };
"""
HISTORY = """
read_secret: {formerly: shop.stock, per: work, within: 1h}
paid_for_it: {sum: shop.pay.amount, matching: [order_id], per: work, within: 1h, with_this: true}
notes: {count: shop.note, per: work, within: 1h, with_this: true}
checked: {formerly: shop.person, per: work, within: 1h, done: true}
"""
TREE = {
    **FILES,
    "agents.yaml": "".join(
        f"{name}:\n  test: {{issuer: interlock-dev, subject: {name}}}\n"
        f'  grants: [{{on: "shop.*", for: {STAFF}, data: {{max: pii}}}}]\n'
        for name in ("bot", "reader", "sender")
    ),
    "tasks.yaml": "selling: {purpose: sell, open_to: [Staff], agents: [bot, reader, sender]}\n",
    "history.yaml": HISTORY,
    "policies/guard/history.cedar": GUARD,
}
USERS = itertools.count()
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Work:
    """A user's agent, and those that it hands work to, in whichever process."""

    def __init__(self, made, others):
        self.made, self.others, self.user = made, others, f"u{next(USERS)}"

    async def root(self, agent="bot"):
        return await self.made.session(user=self.user, agent=agent)

    async def below(self, above, agent):
        parent = Parent(session_id=above.session_id, agent=above.lineage.agent)
        lineage = type(above.lineage)(tenant="acme", environment="test", agent=agent, user=self.user)
        session = Session(
            session_id=self.made.system.ids.new("ses"),
            lineage=lineage,
            task="selling",
            roles=above.roles,
            attributes=above.attributes,
            expires_at_us=above.expires_at_us,
            parents=(parent, *above.parents),
        )
        recorded = RecordedSessions(Sessions(self.made.system.database), self.made.system.ids)
        assert await recorded.hand_down(session, "", 20) == "opened"
        return session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(postgres, tmp_path_factory):
    async with two_processes(postgres, tmp_path_factory, TREE) as made:
        yield made


@pytest.fixture
def work(two):
    return Work(two[0], two)


async def split(work, one, other):
    """One sub-agent reads the secret, the other wants to send."""
    root = await work.root()
    reader, sender = await work.below(root, "reader"), await work.below(root, "sender")
    assert isinstance(await one.call(reader, "stock", item="tea"), Returned)
    return await other.call(sender, "pay", order_id="A1", amount="5.00")


async def test_a_chain_that_is_split_over_two_sub_agents_is_stopped_in_every_process(two):
    for one, other in ((two[0], two[0]), (two[0], two[1])):
        refused = await split(Work(one, two), one, other)
        assert isinstance(refused, Refusal)
        assert refused.code == "forbidden"


async def test_without_that_scope_it_is_not(postgres, tmp_path_factory):
    files = {**TREE, "history.yaml": HISTORY.replace("per: work, ", "")}
    async with two_processes(postgres, tmp_path_factory, files) as made:
        assert isinstance(await split(Work(made[0], made), *made), Returned)


async def test_what_made_it_forbidden_is_told(work, two):
    root = await work.root()
    reader, sender = await work.below(root, "reader"), await work.below(root, "sender")
    read = await two[0].call(reader, "stock", item="tea")
    refused = await two[1].call(sender, "pay", order_id="A1", amount="5.00")
    facts = next(body for kind, body in await two[1].events(refused.call_id) if kind == "call.decided")["facts"]
    assert facts["history"]["read_secret"]["because"][0]["call_id"] == read.call_id


async def test_what_a_sub_agent_did_counts_for_the_one_above_it_and_the_other_way_round(work, two):
    root = await work.root()
    reader = await work.below(root, "reader")
    assert isinstance(await two[0].call(root, "pay", order_id="A1", amount="30.00"), Returned)
    assert (await two[1].call(reader, "pay", order_id="A1", amount="30.00")).code == "forbidden"
    assert isinstance(await two[1].call(reader, "pay", order_id="B1", amount="30.00"), Returned)
    assert (await two[0].call(root, "pay", order_id="B1", amount="30.00")).code == "forbidden"
    assert isinstance(await two[0].call(root, "pay", order_id="A1", amount="20.00"), Returned)


async def test_another_session_of_the_agent_at_the_top_is_the_same_work(work, two):
    reader = await work.below(await work.root(), "reader")
    assert isinstance(await two[0].call(reader, "stock", item="tea"), Returned)
    again = await work.root()
    assert (await two[1].call(again, "pay", order_id="A1", amount="5.00")).code == "forbidden"
    sender = await work.below(again, "sender")
    assert (await two[0].call(sender, "pay", order_id="A1", amount="5.00")).code == "forbidden"


async def test_what_an_agent_did_for_others_counts_for_itself(work, two):
    first = await work.below(await work.root(), "reader")
    assert isinstance(await two[0].call(first, "stock", item="tea"), Returned)
    alone = await work.root("reader")
    assert (await two[1].call(alone, "pay", order_id="A1", amount="5.00")).code == "forbidden"


async def test_another_users_work_is_another(two):
    one, other = Work(two[0], two), Work(two[0], two)
    reader = await one.below(await one.root(), "reader")
    assert isinstance(await two[0].call(reader, "stock", item="tea"), Returned)
    sender = await other.below(await other.root(), "sender")
    assert isinstance(await two[1].call(sender, "pay", order_id="A1", amount="5.00"), Returned)


async def test_of_many_at_once_in_two_processes_and_several_agents_no_more_pass_than_may(work, two):
    root = await work.root()
    sessions = [root, *[await work.below(root, agent) for agent in ("reader", "sender", "bot")]]
    calls = [
        made.call(session, "note", text=f"{place} {number}")
        for number in range(2)
        for place, session in enumerate(sessions)
        for made in two
    ]
    answers = await asyncio.gather(*calls)
    passed = sum(isinstance(answer, Returned) for answer in answers)
    assert passed <= 3
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} <= {"forbidden", "contended"}
    for session in sessions:
        while isinstance(await two[0].call(session, "note", text="more"), Returned):
            passed += 1
    assert passed == 3


async def test_a_call_of_another_agent_that_is_under_way_counts(work, two):
    root = await work.root()
    reader, sender = await work.below(root, "reader"), await work.below(root, "sender")
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        entered.set()
        await go_on.wait()

    two[0].shop.after_effect = wait
    paying = asyncio.create_task(two[0].call(reader, "pay", order_id="C1", amount="40.00"))
    await entered.wait()
    two[0].shop.after_effect = None
    assert (await two[1].call(sender, "pay", order_id="C1", amount="20.00")).code == "forbidden"
    go_on.set()
    assert isinstance(await paying, Returned)
    assert (await two[1].call(sender, "pay", order_id="C1", amount="20.00")).code == "forbidden"


async def test_what_another_agent_has_done_for_the_work_lets_through_what_needs_it(work, two):
    root = await work.root()
    reader, sender = await work.below(root, "reader"), await work.below(root, "sender")
    assert (await two[1].call(sender, "hurried", text="go")).code == "forbidden"
    assert isinstance(await two[0].call(reader, "person", person_id=1), Returned)
    assert isinstance(await two[1].call(sender, "hurried", text="go"), Returned)
    assert isinstance(await two[1].call(root, "hurried", text="go on"), Returned)


async def test_what_was_counted_by_nothing_when_it_was_done_is_known_to_a_fact_of_the_work_that_came_later(
    postgres, tmp_path_factory
):
    before = {name: text for name, text in TREE.items() if "history" not in name}
    async with two_processes(postgres, tmp_path_factory, before) as made:
        work = Work(made[0], made)
        root = await work.root()
        reader, sender = await work.below(root, "reader"), await work.below(root, "sender")
        assert isinstance(await made[0].call(reader, "stock", item="tea"), Returned)
        await made[1].system.plane.releases.put_in_force(TREE, by="test")
        assert (await made[1].call(sender, "pay", order_id="A1", amount="5.00")).code == "forbidden"


async def test_a_call_that_goes_on_with_answers_is_compared_with_the_past_of_the_work_too(work, two):
    root = await work.root()
    sender, system = await work.below(root, "sender"), two[0].system
    standings = LoadedStandings(Sessions(system.database))
    standing, above = await standings.load(sender), await standings.load(root)

    def going_on(version):
        return ClaimRequest(
            claim_id=system.ids.new("clm"),
            call_id=system.ids.new("call"),
            session_id=sender.session_id,
            lineage_id=sender.lineage.id,
            operation="shop.pay",
            call_hash="hash",
            release_digest=standing.release_digest,
            epochs=standing.epochs,
            facts_version=standing.state.facts_version,
            scopes=("fleet",),
            idempotency=None,
            settle_by_ms=1_000,
            events=(),
            work=OfWork(lineage_id=root.lineage.id, version=version),
            continues=1,
        )

    version = above.state.history_version
    assert isinstance(await system.writer.claim(going_on(version + 1)), Stale)
    # With the past that was read it is looked for: it was never made.
    assert isinstance(await system.writer.claim(going_on(version)), Duplicate)
