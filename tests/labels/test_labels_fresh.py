"""Only the user's own channel begins afresh: what was read and is in no context any more taints no longer, and nothing else goes."""

import asyncio

import pytest

from interlock.app.standings import LoadedStandings
from interlock.core.terms import Posture
from interlock.gateway.messages import Refusal, Returned
from interlock.store.sessions import Sessions
from tests.budgets.test_budgets_tree import Family
from tests.labels.test_labels_spread import FILES, Talking, call, tainted
from tests.support.office import GOVERNED, serving
from tests.support.shop import counter

FILES = {
    **FILES,
    "release.yaml": GOVERNED["release.yaml"],
    "budgets.yaml": "notes: {count: calls, on: shop.note, per: user, within: 1h, limit: 9}\n",
}


@pytest.fixture
async def family(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, Talking(), FILES) as made, serving(made) as office:
        found = Family(made)
        found.office = office
        yield found


async def fresh(family, user="ana", agent="bot", **headers):
    return await family.office.post(f"/v1/agents/{agent}/fresh", family.office.person(user, "Staff"), **headers)


async def state(family, token):
    return (await LoadedStandings(Sessions(family.shop.system.database)).load(family.session(token))).state


async def test_the_user_begins_afresh_and_the_next_session_is_not_tainted(family):
    before = await family.root()
    await call(family, before, "stock", item="tea")
    answer = await fresh(family)
    assert answer.status_code == 200, answer.text
    assert answer.json()["ended"] == [family.session(before).session_id]
    assert (await call(family, before, "stock", item="tea")).code == "session_ended"
    now = await family.root()
    assert await tainted(family, now) == [False]
    events = await family.shop.events("control")
    (body,) = [body for kind, body in events if kind == "lineage.started_fresh"]
    assert (body["by"], body["agent"]) == ("ana", "bot")
    assert body["tainted_by"].endswith(" shop.stock")


async def test_a_plan_is_sealed_again_after_a_fresh_start_and_not_before(family):
    before = await family.root()
    await call(family, before, "stock", item="tea")
    plan = {"operations": ["shop.note"]}

    async def sealed():
        token = await family.root()
        person, session = family.office.person("ana", "Staff"), family.session(token).session_id
        await family.office.post(f"/v1/sessions/{session}/inputs", person, {"text": "write a note"})
        return (await family.office.post("/v1/plans", token, plan)).status_code

    assert await sealed() == 409
    assert (await fresh(family)).status_code == 200
    assert await sealed() == 200


async def test_posture_confidentiality_and_what_was_counted_stay(family):
    before = await family.root()
    await call(family, before, "person", person_id=1)
    await call(family, before, "note", text="1")
    system, lineage = family.shop.system, family.session(before).lineage.id
    office = family.office
    path = f"/v1/lineages/{lineage}/posture"
    raised = await office.post(path, office.person("oki", "Operator"), {"posture": "guarded", "reason": "odd"})
    assert raised.status_code == 200
    was = await state(family, before)
    assert (await fresh(family)).status_code == 200
    now = await family.root()
    found = await state(family, now)
    assert (found.posture, found.confidentiality, found.tainted) == (Posture.GUARDED, was.confidentiality, False)
    assert found.confidential_by == was.confidential_by
    assert found.history_version == was.history_version
    used = await system.database.pool().fetchval("SELECT sum(amount) FROM budget_use WHERE account LIKE 'notes:%'")
    assert used == 1


async def test_what_it_handed_down_ends_with_it_and_whoever_handed_it_work_does_not(family):
    root = await family.root()
    middle = await family.below(root, "helper")
    below = await family.below(middle, "idle")
    await call(family, middle, "stock", item="tea")
    answer = await fresh(family, agent="helper")
    assert answer.status_code == 200
    assert (await call(family, below, "note", text="x")).code == "session_ended"
    assert isinstance(await call(family, root, "stock", item="tea"), Returned)
    # Whoever handed it work goes on with what it read, and so does what it hands down from now on.
    again = await family.below(root, "helper")
    assert await tainted(family, root, again) == [True, True]


async def test_an_agent_with_a_past_brings_it_to_whoever_began_afresh(family):
    root = await family.root()
    child = await family.below(root, "helper")
    await call(family, child, "stock", item="tea")
    assert (await fresh(family)).status_code == 200
    now = await family.root()
    assert await tainted(family, now) == [False]
    await family.below(now, "helper")
    assert await tainted(family, now) == [True]
    assert (await fresh(family)).status_code == 200
    assert (await fresh(family, agent="helper")).status_code == 200
    last = await family.root()
    child = await family.below(last, "helper")
    assert await tainted(family, last, child) == [False, False]


async def test_a_text_of_before_that_is_repeated_taints_like_the_first_time(family):
    before = await family.root()
    told = {"key": "k", "text": "thank you"}
    await call(family, before, "tell", **told)
    assert (await fresh(family)).status_code == 200
    now = await family.root()
    child = await family.below(now, "idle")
    again = await call(family, now, "tell", **told)
    assert isinstance(again, Returned)
    assert "interlock/replayed" in again.meta
    assert await tainted(family, now, child) == [True, True]


async def test_while_an_answer_may_still_come_in_there_is_no_fresh_start(family):
    root = await family.root()
    await call(family, root, "stock", item="tea")
    going = asyncio.create_task(call(family, root, "slow", order_id="A1"))
    await family.shop.shop.entered.wait()
    refused = await fresh(family)
    assert refused.status_code == 409
    assert await tainted(family, root) == [True]
    family.shop.shop.go_on.set()
    assert isinstance(await going, Returned)
    assert (await fresh(family)).status_code == 200


async def test_nobody_begins_afresh_for_somebody_else_nor_does_any_agent(family):
    root = await family.root()
    await call(family, root, "stock", item="tea")
    office = family.office
    for token in (root, office.agent("bot"), "", "nonsense"):
        assert (await office.post("/v1/agents/bot/fresh", token)).status_code == 401
    everything = office.person("oki", "Operator", "Security", "Auditor", "Platform")
    assert (await office.post("/v1/agents/bot/fresh", everything)).status_code == 404
    elsewhere = office.person("ana", "Staff", tenant="globex")
    assert (await office.post("/v1/agents/bot/fresh", elsewhere)).status_code == 404
    assert await tainted(family, root) == [True]


async def test_with_nothing_to_be_rid_of_nothing_ends(family):
    root = await family.root()
    assert (await fresh(family)).status_code == 409
    assert (await fresh(family, agent="nobody")).status_code == 404
    assert isinstance(await call(family, root, "note", text="1"), Returned)


async def test_a_request_that_is_sent_again_under_its_key_ends_nothing_more(family):
    root = await family.root()
    await call(family, root, "stock", item="tea")
    first = await fresh(family, idempotency_key="k")
    now = await family.root()
    again = await fresh(family, idempotency_key="k")
    assert (again.status_code, again.json()) == (200, first.json())
    assert isinstance(await call(family, now, "note", text="1"), Returned)


async def test_a_call_that_was_decided_before_the_fresh_start_does_not_run_after_it(family):
    root = await family.root()
    await call(family, root, "stock", item="tea")
    tasks = [asyncio.create_task(call(family, root, "stock", item=f"tea {n}")) for n in range(6)]
    answer = await fresh(family)
    done = await asyncio.gather(*tasks)
    if answer.status_code == 200:
        now = await family.root()
        ended = [item for item in done if isinstance(item, Refusal)]
        assert all(item.code == "session_ended" for item in ended)
        assert await tainted(family, now) == [False]
    else:
        assert answer.status_code == 409
