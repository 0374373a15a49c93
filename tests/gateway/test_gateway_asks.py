"""A write whose tool asks something before it goes on: what it did before is not known, unless its contract says so."""

import asyncio

import msgspec
import pytest

from interlock.core.who import Person
from interlock.gateway.messages import Caller, Effected, Proposal, Refusal, Returned
from interlock.ledger.story import tell
from interlock.tools.fence import current_key
from interlock.tools.port import Asks, ToolAnswer
from interlock.tools.python import PythonFunction
from tests.approvals.test_approvals_gate import approve
from tests.doubt.world import later, one_round_at_a_time, reconcile
from tests.support.shop import FILES, OPERATOR, Shop, counter

WRITE = "effects: [write], input: {order: string, amount: decimal}, output: {n: integer}, timeout_ms: 2000, reviewed: {by: a}"
EVIDENCE = 'verify: {read: shop.paid, done_when: {"payments[].key": {is: $key}}}, settles_within_s: 30'
ASKS = "passes: [elicitation]"
RELEASE = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("status:", "settle: [Clerk], status:"),
    "agents.yaml": """
bot:
  test: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [shop.pay, shop.honest, shop.silent, shop.keyed, shop.free, shop.paid], for: &staff {roles: [Staff], task: selling}}
    - {on: shop.asked, for: *staff, ask: {rule: refunds}}
idle:
  test: {issuer: interlock-dev, subject: idle}
""",
    "policies/guard/rules.cedar": FILES["policies/guard/rules.cedar"]
    + """
@id("once-an-hour")
@owner("security")
@say("Once an hour.")
forbid (principal, action == Action::"shop.free", resource) when { context.history.freed > 1 };
""",
    "history.yaml": "freed: {count: shop.free, within: 1h, with_this: true}\n",
    "tools/shop.yaml": f"""
python: "shop:"
operations:
  pay: {{{WRITE}, {ASKS}, {EVIDENCE}}}
  honest: {{{WRITE}, {ASKS}, asks_before_acting: true}}
  silent: {{{WRITE}}}
  keyed: {{{WRITE}, {ASKS}, honours_key: true}}
  free: {{{WRITE}, {ASKS}, repeat: allow}}
  asked: {{{WRITE}, {ASKS}}}
  paid: {{effects: [read], input: {{order: string}}, output: {{payments: [{{key: string}}]}}, reviewed: {{by: a}}}}
""",
    "budgets.yaml": 'paid-per-session: {sum: shop.pay.amount, per: session, limit: "100.00"}\n',
}
QUESTION = Asks(
    requests={"sure": {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {}}}}, state="s1"
)
YES = b'{"sure":{"action":"accept","content":{}}}'
CALLER = Caller(offers=frozenset({"elicitation"}))


class Asker(Shop):
    """A tool that says it did nothing yet when it asks, and lies where `acts_first`. `asks` is how many times it asks."""

    def __init__(self):
        super().__init__()
        self.table, self.keys, self.asks, self.acts_first, self.hold = [], [], 1, False, None

    async def make(self, order, amount):
        self.keys.append(current_key())
        if self.hold is not None:
            self.entered.set()
            await self.hold.wait()
        asking = self.asks > 0
        self.asks -= 1
        if self.acts_first or not asking:
            self.table.append({"order": order, "key": current_key()})
        return ToolAnswer(asks=QUESTION) if asking else {"n": len(self.table)}

    def functions(self):
        async def paid(order):
            return {"payments": [{"key": row["key"]} for row in self.table if row["order"] == order]}

        made = dict.fromkeys(("pay", "honest", "silent", "keyed", "free", "asked"), self.make) | {"paid": paid}
        return {f"shop:{name}": PythonFunction(function=function) for name, function in made.items()}


class Desk:
    def __init__(self, made, tool):
        self.made, self.tool, self.system = made, tool, made.system

    async def call(self, session, name="pay", *, state="", answers=b"", caller=CALLER, amount="30.00"):
        sent = msgspec.json.encode({"order": "A1", "amount": amount})
        return await self.made.gate.call(
            session, Proposal(operation=f"shop.{name}", arguments=sent, state=state, answers=answers), caller
        )

    async def asked(self, session, name="pay"):
        told = await self.call(session, name)
        assert isinstance(told, Returned), told
        assert set(told.asks.requests) == {"sure"}
        return told

    async def answered(self, session, told, name="pay"):
        return await self.call(session, name, state=told.asks.state, answers=YES)

    async def settled(self, session):
        found = await self.made.events(session.session_id)
        return [
            (body["claim_id"], body["attempt"], body["state"], body["code"]) for kind, body in found if kind == "call.settled"
        ]

    async def story(self, told):
        return [line.text for line in tell(await self.system.traces.events(told.call_id))]

    async def budget(self):
        (found,) = await self.system.plane.budgets.usage(OPERATOR, name="paid-per-session")
        return found.used, found.reserved


@pytest.fixture
async def desk(database_urls, tmp_path):
    tool = Asker()
    async with counter(database_urls.app, tmp_path, shop=tool, files=RELEASE) as made:
        one_round_at_a_time(made)
        yield Desk(made, tool)


def is_in_doubt(told):
    return isinstance(told, Refusal) and (told.code, told.effect) == ("in_doubt", Effected.UNKNOWN)


async def test_a_tool_that_acts_and_then_asks_is_not_believed_that_it_did_nothing(desk):
    desk.tool.acts_first = True
    session = await desk.made.session()
    told = await desk.asked(session)
    assert told.meta["interlock/decision"]["effect"] == "unknown"
    # The same call once more, without its state: it might act a second time, so it is not made.
    assert is_in_doubt(await desk.call(session))
    assert is_in_doubt(await desk.call(session, answers=YES))
    assert len(desk.tool.table) == 1
    assert await desk.budget() == ("30", "0")
    assert [entry[1:] for entry in await desk.settled(session)] == [(1, "in_doubt", "input_required")]


async def test_with_the_answers_the_same_claim_goes_on_and_everything_is_counted_once(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    done = await desk.answered(session, told)
    assert isinstance(done, Returned), done
    assert done.structured == {"n": 1}
    (first, *asked), (second, *ended) = await desk.settled(session)
    assert first == second
    assert (asked, ended) == ([1, "in_doubt", "input_required"], [2, "succeeded", ""])
    # A tool that knows its calls by the key sees one call.
    assert desk.tool.keys == [first, first]
    assert await desk.budget() == ("30", "0")
    again = await desk.answered(session, told)
    assert "interlock/replayed" in again.meta
    assert "interlock/replayed" in (await desk.call(session)).meta
    assert len(desk.tool.table) == 1
    kinds = await desk.made.kinds(told.call_id)
    assert kinds[-1] == "claim.continued"


async def test_a_tool_may_ask_several_times_and_old_answers_are_of_no_use(desk):
    desk.tool.asks = 2
    session = await desk.made.session()
    first = await desk.asked(session)
    second = await desk.answered(session, first)
    assert is_in_doubt(await desk.answered(session, first))
    assert isinstance(await desk.answered(session, second), Returned)
    assert [entry[1] for entry in await desk.settled(session)] == [1, 2, 3]


async def test_of_two_that_answer_at_once_one_goes_on_and_both_learn_what_came_of_it(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    desk.tool.hold = asyncio.Event()
    desk.tool.entered.clear()
    both = [asyncio.ensure_future(desk.answered(session, told)) for _ in range(2)]
    await desk.tool.entered.wait()
    desk.tool.hold.set()
    answers = await asyncio.gather(*both)
    assert sorted("interlock/replayed" in answer.meta for answer in answers) == [False, True]
    assert len(desk.tool.keys) == 2


async def test_a_tool_that_was_reviewed_as_asking_first_gives_its_key_and_budget_back(desk):
    session = await desk.made.session()
    told = await desk.asked(session, "honest")
    assert told.meta["interlock/decision"]["effect"] == "none"
    assert isinstance(await desk.answered(session, told, "honest"), Returned)
    (first, *asked), (second, *ended) = await desk.settled(session)
    assert first != second
    assert (asked, ended) == ([1, "failed", "input_required"], [1, "succeeded", ""])


@pytest.mark.parametrize(("name", "caller"), [("silent", CALLER), ("pay", Caller())])
async def test_a_question_that_is_passed_on_to_nobody_leaves_the_write_in_doubt(desk, name, caller):
    desk.tool.acts_first = True
    session = await desk.made.session()
    told = await desk.call(session, name, caller=caller)
    assert (told.code, told.effect) == ("asked_in_doubt", Effected.UNKNOWN)
    assert is_in_doubt(await desk.call(session, name, caller=caller))
    assert len(desk.tool.table) == 1
    if name == "pay":
        await reconcile(desk.made, seconds=31)
        assert (await desk.call(session, name, caller=caller)).code == "done_unseen"


async def test_of_answers_that_are_refused_nobody_says_that_nothing_was_changed(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    await desk.system.plane.kill(OPERATOR, "operation:shop.pay", "enough")
    refused = await desk.answered(session, told)
    assert (refused.code, refused.effect) == ("halted", Effected.UNKNOWN)
    assert "Nothing was changed" not in refused.text
    recorded = [body for kind, body in await desk.made.events(refused.call_id) if kind == "call.refused"]
    assert recorded[0]["effect"] == "unknown"
    assert len(desk.tool.keys) == 1
    await desk.system.plane.resume(OPERATOR, "operation:shop.pay", "on")
    assert isinstance(await desk.answered(session, told), Returned)


async def test_answers_that_did_not_reach_the_tool_may_be_sent_again(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    functions = desk.system.connectors.get("shop")._functions
    pay = functions.pop("pay")
    lost = await desk.answered(session, told)
    assert (lost.code, lost.effect) == ("tool_unavailable", Effected.UNKNOWN)
    assert is_in_doubt(await desk.call(session))
    functions["pay"] = pay
    assert isinstance(await desk.answered(session, told), Returned)
    assert [entry[1:3] for entry in await desk.settled(session)] == [(1, "in_doubt"), (2, "in_doubt"), (3, "succeeded")]


async def test_while_it_waits_for_answers_machinery_leaves_it_alone_and_then_finds_out(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    other = await desk.made.session(user="ben")
    desk.tool.asks = 1
    await desk.asked(other, "keyed")
    assert await reconcile(desk.made, seconds=800) == 0
    clerk = Person(user="cle", tenant="acme", roles=("Operator",))
    assert {item.awaits for item in await desk.system.plane.doubts.list(clerk)} == {True}
    assert len(desk.tool.keys) == 2
    later(desk.made, 200)
    await desk.system.reconcile()
    late = await desk.answered(session, told)
    assert (late.code, late.effect) == ("answers_late", Effected.UNKNOWN)
    # It was looked up and found not to have been done: the call may be made, as a new one.
    assert isinstance(await desk.call(session), Returned)
    # The one whose tool knows its key was sent again with it.
    assert desk.tool.keys[1] == desk.tool.keys[2]


async def test_a_call_that_may_repeat_goes_on_with_its_answers_as_the_same_claim_and_one_call_of_its_history(desk):
    session = await desk.made.session()
    told = await desk.asked(session, "free")
    assert isinstance(await desk.answered(session, told, "free"), Returned)
    assert len({entry[0] for entry in await desk.settled(session)}) == 1
    assert (await desk.call(session, "free")).code == "forbidden"


async def test_answers_may_come_in_another_session_of_the_same_lineage(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    fresh = await desk.made.session()
    assert isinstance(await desk.answered(fresh, told), Returned)
    assert len({entry[0] for entry in [*await desk.settled(session), *await desk.settled(fresh)]}) == 1


async def test_what_was_approved_is_the_call_and_not_the_answers(desk):
    session = await desk.made.session()
    needed = await desk.call(session, "asked")
    await approve(desk.made, needed.details["approvals"][0]["id"])
    told = await desk.asked(session, "asked")
    again = await desk.answered(session, told, "asked")
    assert (again.code, again.effect) == ("needs_approval", Effected.UNKNOWN)
    await approve(desk.made, again.details["approvals"][0]["id"])
    assert isinstance(await desk.answered(session, told, "asked"), Returned)
    assert len({entry[0] for entry in await desk.settled(session)}) == 1


async def test_the_story_says_that_nothing_is_known_until_the_answers_are_there(desk):
    session = await desk.made.session()
    told = await desk.asked(session)
    assert any("what it did before is not known" in line for line in await desk.story(told))
    done = await desk.answered(session, told)
    assert any(f"goes on with the answers as {done.call_id}, attempt 2" in line for line in await desk.story(told))
