"""A call in doubt is found out: by the tool's own key, by a reading, or by a person. Never by sending it again blindly."""

import asyncio

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.doubts import DoubtConflictError, UnknownDoubtError
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from tests.doubt.world import RELEASE, reconcile
from tests.support.patience import until
from tests.support.shop import OPERATOR, counter

CLERK = Person(user="cle", tenant="acme", roles=("Clerk",))


async def lost(made, operation="pay", how="after", session=None, **arguments):
    made.tool.loses.append(how)
    session = session or await made.session()
    arguments = {"order": "A1", "amount": "30.00", **arguments}
    if operation == "blind":
        del arguments["amount"]
    told = await made.call(session, operation, **arguments)
    assert (told.code, told.effect.value) == ("in_doubt", "unknown")
    return session, told, arguments


async def reserved(made):
    (found,) = await made.system.plane.budgets.usage(OPERATOR, name="paid-per-session")
    return found.used, found.reserved


async def test_what_was_done_is_found_by_its_own_key_and_told_to_whoever_repeats_it(payments):
    session, _, same = await lost(payments)
    payments.tool.table.append({"order": "A1", "amount": "30.00", "key": "of another"})
    assert (await payments.call(session, "pay", **same)).code == "in_doubt"
    await reconcile(payments, seconds=31)
    told = await payments.call(session, "pay", **same)
    assert (told.code, told.effect.value) == ("done_unseen", "done")
    assert len(payments.tool.rows("A1")) == 2
    assert await reserved(payments) == ("30", "0")


async def test_to_find_out_takes_nothing_of_what_the_agent_may_have_looked_up(payments):
    await lost(payments)
    await reconcile(payments, seconds=31)
    assert not [item for item in await payments.system.plane.budgets.usage(OPERATOR) if item.counts == "lookups"]


async def test_what_was_not_done_frees_its_key_and_its_budget_and_may_be_made(payments):
    session, _, same = await lost(payments, how="before")
    payments.tool.table.append({"order": "A1", "amount": "30.00", "key": "of another"})
    await reconcile(payments, seconds=31)
    assert await reserved(payments) == ("0", "0")
    assert isinstance(await payments.call(session, "pay", **same), Returned)
    assert len(payments.tool.rows("A1")) == 2


async def test_nothing_is_looked_up_before_the_tool_has_had_its_time(payments):
    session, _, same = await lost(payments, how="before")
    await reconcile(payments, seconds=29)
    assert (await payments.call(session, "pay", **same)).code == "in_doubt"
    assert payments.tool.rows("A1") == []


async def test_a_number_that_grew_may_be_anybodys_doing_so_a_person_is_asked(payments):
    _, told, _ = await lost(payments, "top_up")
    await reconcile(payments, seconds=31)
    (shown,) = await payments.system.plane.doubts.list(OPERATOR)
    assert shown.call_id == told.call_id
    assert "may be the doing of another call" in shown.asks_people
    assert shown.arguments == {"order": "A1", "amount": "30.00"}


async def test_a_number_that_did_not_grow_says_that_it_was_not_done(payments):
    session, _, same = await lost(payments, "top_up", how="before")
    await reconcile(payments, seconds=31)
    assert isinstance(await payments.call(session, "top_up", **same), Returned)


async def test_a_tool_that_honours_the_key_is_sent_it_again_and_does_it_once(payments):
    for how, order in (("before", "B1"), ("after", "B2")):
        session, told, same = await lost(payments, "once", how, order=order)
        await reconcile(payments)
        again = await payments.call(session, "once", **same)
        assert again.structured == {"n": 1}
        assert again.meta["interlock/replayed"]
        assert len(payments.tool.rows(order)) == 1
        assert "claim.retried" in await payments.kinds(told.call_id)


@pytest.mark.parametrize("what", ["halted", "read_only"])
async def test_where_writes_are_stopped_nothing_is_sent_again(payments, what):
    await lost(payments, "once", "before")
    if what == "halted":
        await payments.system.plane.kill(OPERATOR, "tool:shop", "test")
    else:
        await payments.system.plane.scope_postures.set(OPERATOR, "tenant:acme", Posture.READ_ONLY, "test")
    await reconcile(payments)
    assert payments.tool.table == []


async def test_a_tool_that_gives_no_reading_is_no_reading_so_a_person_is_asked(payments):
    await lost(payments)
    payments.tool.breaks = True
    await reconcile(payments, seconds=31)
    (shown,) = await payments.system.plane.doubts.list(OPERATOR)
    assert "gave no record" in shown.asks_people


async def test_without_evidence_a_person_is_asked_and_both_answers_hold(payments):
    session, told, same = await lost(payments, "blind")
    await reconcile(payments)
    shown = await payments.system.plane.doubts.show(OPERATOR, told.call_id)
    assert "look at shop.paid" in shown.asks_people
    await payments.system.plane.doubts.settle(CLERK, told.call_id, done=True, reason="seen in the bank's own list")
    assert (await payments.call(session, "blind", **same)).code == "done_unseen"
    with pytest.raises(UnknownDoubtError):
        await payments.system.plane.doubts.settle(CLERK, told.call_id, done=False, reason="again")
    session, told, same = await lost(payments, "blind", "before", order="A2")
    await payments.system.plane.doubts.settle(CLERK, told.call_id, done=False, reason="not in the bank's list")
    assert isinstance(await payments.call(session, "blind", **same), Returned)
    resolved = [body for kind, body in await payments.events(told.call_id) if kind == "doubt.resolved"]
    assert [(body["by"], body["how"], body["state"]) for body in resolved] == [("cle", "person", "failed")]


async def test_who_may_not_settle_does_not(payments):
    _, told, _ = await lost(payments, "blind")
    settle = payments.system.plane.doubts.settle
    for person, why in (
        (Person(user="oki", tenant="acme", roles=("Operator",)), "settle is for Clerk"),
        (Person(user="ana", tenant="acme", roles=("Clerk",)), "somebody else"),
    ):
        with pytest.raises(NotPermittedError, match=why):
            await settle(person, told.call_id, done=True, reason="trust me")
    with pytest.raises(UnknownDoubtError):
        await settle(Person(user="glo", tenant="globex", roles=("Clerk",)), told.call_id, done=True, reason="mine now")


async def orphan(made):
    """Everybody else thinks that this process is dead."""
    await made.system.database.rows("leave", made.system.process_id)
    await made.system.heartbeat()


async def test_a_late_answer_that_contradicts_a_person_is_an_incident_and_not_released(payments):
    payments.tool.hold = asyncio.Event()
    session = await payments.session()
    call = asyncio.create_task(payments.call(session, "held", order="A1", amount="30.00"))
    await payments.tool.entered.wait()
    await orphan(payments)
    (shown,) = await payments.system.plane.doubts.list(OPERATOR)
    await payments.system.plane.doubts.settle(CLERK, shown.call_id, done=False, reason="not there")
    payments.tool.hold.set()
    assert (await call).code == "not_recorded"
    (body,) = [body for kind, body in await payments.events(shown.call_id) if kind == "claim.conflict"]
    assert (body["stands"], body["said"]) == ("failed", "succeeded")
    (shown,) = await payments.system.plane.doubts.list(OPERATOR)
    assert "said succeeded when it stood as failed" in shown.conflict
    with pytest.raises(DoubtConflictError):
        await payments.system.plane.doubts.settle(CLERK, shown.call_id, done=True, reason="it was")


async def test_a_late_answer_before_anybody_has_found_out_settles_it_quietly(payments):
    payments.tool.hold = asyncio.Event()
    call = asyncio.create_task(payments.call(await payments.session(), "held", order="A1", amount="30.00"))
    await payments.tool.entered.wait()
    await orphan(payments)
    payments.tool.hold.set()
    answer = await call
    assert isinstance(answer, Returned)
    assert "claim.conflict" not in await payments.kinds(answer.call_id)


async def test_of_one_thought_dead_not_found_counts_only_when_its_permit_is_over_too(payments, database_urls, tmp_path):
    payments.tool.loses.append("before")
    session = await payments.session()
    call = asyncio.create_task(payments.call(session, "pay", order="A1", amount="30.00"))
    await until(payments.system.controls.in_flight)
    await orphan(payments)
    async with counter(database_urls.app, tmp_path / "other", shop=payments.tool, files=RELEASE) as other:
        await reconcile(other, seconds=39)  # the permit lasts ten seconds, the tool settles within thirty
        assert await other.system.plane.doubts.list(OPERATOR)
        await reconcile(other, seconds=2)
        assert await other.system.plane.doubts.list(OPERATOR) == ()
    assert (await call).code in {"in_doubt", "not_recorded"}
