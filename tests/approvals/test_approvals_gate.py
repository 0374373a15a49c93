"""Approvals attacked: bound to the exact call, given by the right person, used once, by one of any number of processes."""

import asyncio

import msgspec
import pytest

from interlock.approvals.errors import NotOpenError, RequesterError, UnknownApprovalError, WrongApproverError
from interlock.core.who import Person
from interlock.gateway.messages import Proposal, Refusal, Returned
from interlock.store.errors import StoreUnavailableError
from tests.support.shop import FILES, OPERATOR, Shop, counter


def lead(user="leo", roles=("Lead",), tenant="acme", told_at_us=1):
    return Person(user=user, tenant=tenant, roles=roles, told_at_us=told_at_us)


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


async def ask(shop, session, amount="80.00", **more):
    answer = await shop.call(session, "refund", order_id="A1", amount=amount, **more)
    assert code(answer) == "needs_approval"
    return answer.meta()["approvals"][0]["id"]


async def approve(shop, approval_id, person=None):
    return await shop.system.plane.approvals.answer(person or lead(), approval_id, approve=True)


async def refund(shop, session, amount="80.00", **more):
    return await shop.call(session, "refund", order_id="A1", amount=amount, **more)


async def age(shop, approval_id):
    """Let the time of a request pass."""
    pool = shop.system.database.pool()
    await pool.execute(
        "UPDATE approval SET expires_at = clock_timestamp() - interval '1 second' WHERE approval_id = $1", approval_id
    )


async def test_an_approved_call_runs_once_and_the_record_tells_who_approved(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    assert shop.shop.count("refund") == 0
    given = await approve(shop, approval_id)
    assert given.state == "approved"
    answer = await refund(shop, session)
    assert isinstance(answer, Returned)
    assert shop.shop.count("refund") == 1
    events = await shop.events(session.session_id)
    steps = [kind for kind, body in events if kind.startswith("approval.") or body.get("operation") == "shop.refund"]
    told = ["approval.requested", "call.proposed", "call.refused", "approval.answered"]
    assert steps == [*told, "call.proposed", "call.claimed", "call.settled"]
    (answered,) = [body for kind, body in events if kind == "approval.answered"]
    assert (answered["by"], answered["to"]) == ("leo", "approved")
    (claimed,) = [body for kind, body in events if kind == "call.claimed" and body["operation"] == "shop.refund"]
    assert claimed["approvals"] == [approval_id]
    assert (await shop.system.approvals.get(approval_id)).state == "used"


async def test_a_repeated_call_is_answered_from_the_record_and_needs_nobody(shop):
    session = await shop.session()
    await approve(shop, await ask(shop, session))
    await refund(shop, session)
    again = await refund(shop, session)
    assert isinstance(again, Returned)
    assert "interlock/replayed" in again.meta
    assert shop.shop.count("refund") == 1


async def test_asking_again_while_people_decide_finds_the_same_request(shop):
    session = await shop.session()
    assert await ask(shop, session) == await ask(shop, session)


@pytest.mark.parametrize("changed", [{"amount": "80.01"}, {"note": "x"}, {"order_id": "B1"}])
async def test_changed_arguments_are_another_call(shop, changed):
    session = await shop.session(teams=("north", "south"))
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    arguments = {"order_id": "A1", "amount": "80.00"} | changed
    answer = await shop.call(session, "refund", **arguments)
    assert code(answer) == "needs_approval"
    assert answer.meta()["approvals"][0]["id"] != approval_id
    assert shop.shop.count("refund") == 0


async def test_an_approval_is_of_one_lineage(shop):
    ana, ben = await shop.session(), await shop.session(user="ben")
    await approve(shop, await ask(shop, ana))
    assert code(await refund(shop, ben)) == "needs_approval"
    assert shop.shop.count("refund") == 0


async def test_a_second_use_on_purpose_needs_a_second_approval(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    first = await refund(shop, session)
    second = await refund(shop, session, repeat_of=first.call_id)
    assert code(second) == "needs_approval"
    assert second.meta()["approvals"][0]["id"] != approval_id
    assert shop.shop.count("refund") == 1


async def test_nobody_approves_what_is_done_in_their_own_name_and_the_attempt_is_on_record(shop):
    session = await shop.session(user="leo", roles=("Staff", "Lead"))
    approval_id = await ask(shop, session)
    with pytest.raises(RequesterError):
        await approve(shop, approval_id, lead("leo", ("Staff", "Lead")))
    refused = [body for kind, body in await shop.events("control") if kind == "control.refused"]
    assert refused[-1]["by"] == "leo"
    assert refused[-1]["operation"] == "approval.approved"
    assert code(await refund(shop, session)) == "needs_approval"


@pytest.mark.parametrize("person", [lead(roles=("Staff",)), lead(roles=()), lead(tenant="globex")])
async def test_people_without_the_role_or_of_another_tenant_do_not_even_learn_of_it(shop, person):
    session = await shop.session()
    approval_id = await ask(shop, session)
    with pytest.raises(UnknownApprovalError):
        await approve(shop, approval_id, person)
    assert code(await refund(shop, session)) == "needs_approval"


async def test_who_may_see_everything_may_still_not_answer_without_the_role(database_urls, tmp_path):
    files = {**FILES, "release.yaml": FILES["release.yaml"].replace("status:", "approvals: [Auditor], status:")}
    async with counter(database_urls.app, tmp_path, files=files) as shop:
        approval_id = await ask(shop, await shop.session())
        auditor = lead("aud", ("Auditor",))
        assert [item.approval_id for item in await shop.system.plane.approvals.list(auditor)] == [approval_id]
        with pytest.raises(WrongApproverError):
            await approve(shop, approval_id, auditor)


async def test_an_answer_after_the_time_is_up_is_refused_and_people_are_asked_anew(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await age(shop, approval_id)
    with pytest.raises(NotOpenError) as refused:
        await approve(shop, approval_id)
    assert refused.value.state == "expired"
    assert await ask(shop, session) != approval_id


async def test_an_approval_that_nobody_used_in_time_lifts_nothing(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    await age(shop, approval_id)
    assert await ask(shop, session) != approval_id
    assert shop.shop.count("refund") == 0


async def test_what_was_withdrawn_lifts_nothing(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    requester = Person(user="ana", tenant="acme", roles=("Staff",))
    withdrawn = await shop.system.plane.approvals.withdraw(requester, approval_id, note="a mistake")
    assert withdrawn.state == "withdrawn"
    assert await ask(shop, session) != approval_id
    assert shop.shop.count("refund") == 0


async def test_who_lost_the_role_since_has_approved_nothing(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await approve(shop, approval_id, lead(told_at_us=1))
    await shop.system.plane.known.note(lead(roles=("Staff",), told_at_us=2))
    assert code(await refund(shop, session)) == "needs_approval"
    assert shop.shop.count("refund") == 0


async def test_an_older_token_does_not_give_a_role_back(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await shop.system.plane.known.note(lead(roles=("Staff",), told_at_us=5))
    for say in (True, False):
        with pytest.raises(WrongApproverError):
            await shop.system.plane.approvals.answer(lead(told_at_us=1), approval_id, approve=say)
    with pytest.raises(WrongApproverError):
        await shop.system.plane.approvals.withdraw(lead(told_at_us=1), approval_id)
    assert (await shop.system.approvals.get(approval_id)).state == "open"
    assert code(await refund(shop, session)) == "needs_approval"
    assert shop.shop.count("refund") == 0


async def test_a_role_that_was_lost_is_lost_whichever_process_hears_of_it(database_urls, tmp_path):
    shared = Shop()
    here = counter(database_urls.app, tmp_path, shop=shared)
    there = counter(database_urls.app, tmp_path, shop=shared)
    async with here as one, there as two:
        session = await one.session()
        await one.system.plane.known.note(lead(roles=("Staff",), told_at_us=1))
        approval_id = await ask(one, session)
        await approve(two, approval_id, lead(told_at_us=2))
        await one.system.plane.known.note(lead(roles=("Staff",), told_at_us=3))
        assert code(await refund(one, session)) == "needs_approval"
        assert shared.count("refund") == 0


async def test_a_no_is_told_with_its_note_and_is_not_put_to_people_again(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await shop.system.plane.approvals.answer(lead(), approval_id, approve=False, note="not this customer")
    answer = await refund(shop, session)
    assert code(answer) == "approval_denied"
    assert "not this customer" in answer.text
    assert answer.retry == "never"
    assert await shop.system.plane.approvals.list(lead()) == ()


async def test_an_approval_under_an_older_release_lifts_nothing(shop):
    session = await shop.session()
    approval_id, late = await ask(shop, session), await ask(shop, session, amount="90.00")
    await approve(shop, approval_id)
    await shop.system.plane.releases.put_in_force({**FILES, "README.md": "changed"}, by="test")
    again = await ask(shop, session)
    # The first call after the change is put to people once, under the release that is in force by then.
    asked = [body for kind, body in await shop.events(session.session_id) if kind == "approval.requested"]
    assert [body["approval_id"] for body in asked] == [approval_id, late, again]
    assert asked[-1]["release_digest"] != asked[0]["release_digest"]
    with pytest.raises(NotOpenError) as refused:
        await approve(shop, late)
    assert refused.value.state == "outdated"
    assert shop.shop.count("refund") == 0


async def test_a_kill_between_yes_and_call_wins(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    await shop.system.plane.kill(OPERATOR, "tool:shop", "test")
    assert code(await refund(shop, session)) == "halted"
    await shop.system.plane.resume(OPERATOR, "tool:shop", "test")
    assert isinstance(await refund(shop, session), Returned)
    assert shop.shop.count("refund") == 1


async def test_two_approvers_at_once_one_answer(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    people = [lead(f"lead{number}") for number in range(8)]
    answers = [shop.system.plane.approvals.answer(person, approval_id, approve=n % 2 == 0) for n, person in enumerate(people)]
    results = await asyncio.gather(*answers, return_exceptions=True)
    won = [result for result in results if not isinstance(result, Exception)]
    assert len(won) == 1
    assert all(isinstance(result, NotOpenError) for result in results if result is not won[0])
    answered = [body for kind, body in await shop.events(session.session_id) if kind == "approval.answered"]
    assert len(answered) == 1


@pytest.mark.parametrize("rival", ["withdraw", "kill", "release", "expire"])
async def test_a_yes_racing_its_end_has_one_winner(shop, rival):
    session = await shop.session()
    for number in range(6):
        amount = f"8{number}.00"
        approval_id = await ask(shop, session, amount=amount)
        approvals = shop.system.plane.approvals
        ends = {
            "withdraw": lambda: approvals.withdraw(Person(user="ana", tenant="acme", roles=("Staff",)), approval_id),  # noqa: B023
            "kill": lambda: shop.system.plane.kill(OPERATOR, "tool:shop", "race"),
            "release": lambda: shop.system.plane.releases.put_in_force({**FILES, "README.md": f"{number}"}, by="test"),  # noqa: B023
            "expire": lambda: age(shop, approval_id),  # noqa: B023
        }

        async def say_yes_and_go():
            await approve(shop, approval_id)  # noqa: B023
            return await refund(shop, session, amount=amount)  # noqa: B023

        before = shop.shop.count("refund")
        yes, _ = await asyncio.gather(say_yes_and_go(), ends[rival](), return_exceptions=True)
        ran = shop.shop.count("refund") - before
        assert ran == (1 if isinstance(yes, Returned) else 0)
        state = (await shop.system.approvals.get(approval_id)).state
        assert (state == "used") == (ran == 1)
        if rival == "kill":
            await shop.system.plane.resume(OPERATOR, "tool:shop", "race")


async def test_one_approval_and_two_processes_one_call_runs(database_urls, tmp_path):
    # `note` has no idempotency key, so nothing but the approval stands between two claims.
    files = {
        **FILES,
        "policies/guard/note.cedar": '@id("note-asks")\n@owner("security")\n@approval("refunds")\n'
        'forbid (principal, action == Action::"shop.note", resource);\n',
    }
    shared = Shop()
    here = counter(database_urls.app, tmp_path, shop=shared, files=files)
    there = counter(database_urls.app, tmp_path, shop=shared, files=files)
    async with here as one, there as two:
        session = await one.session()
        for number in range(5):
            text = f"n{number}"
            asked = await one.call(session, "note", text=text)
            approval_id = asked.meta()["approvals"][0]["id"]
            await approve(one, approval_id)
            calls = [shop.call(session, "note", text=text) for shop in (one, two) for _ in range(4)]
            answers = await asyncio.gather(*calls)
            assert sum(isinstance(answer, Returned) for answer in answers) == 1
            assert {code(answer) for answer in answers if isinstance(answer, Refusal)} == {"needs_approval"}
            assert one.shop.count("note") == number + 1


async def test_two_rules_need_two_approvals_and_one_is_not_enough(database_urls, tmp_path):
    files = {
        **FILES,
        "approvals.yaml": "refunds: {role: Lead}\nboard: {role: Board}\n",
        "policies/guard/board.cedar": '@id("board")\n@owner("security")\n@approval("board")\n'
        'forbid (principal, action == Action::"shop.refund", resource);\n',
    }
    async with counter(database_urls.app, tmp_path, files=files) as shop:
        session = await shop.session()
        answer = await refund(shop, session)
        ids = {item["rule"]: item["id"] for item in answer.meta()["approvals"]}
        assert set(ids) == {"refunds", "board"}
        await approve(shop, ids["refunds"])
        half = await refund(shop, session)
        assert [item["rule"] for item in half.meta()["approvals"]] == ["board"]
        await approve(shop, ids["board"], lead("bea", ("Board",)))
        assert isinstance(await refund(shop, session), Returned)
        assert shop.shop.count("refund") == 1


async def test_the_decision_is_made_afresh_so_an_approval_lifts_only_what_was_asked(shop):
    session = await shop.session()
    await approve(shop, await ask(shop, session))
    pool = shop.system.database.pool()
    await pool.execute(
        "UPDATE lineage SET posture = 'guarded', facts_version = facts_version + 1 WHERE lineage_id = $1", session.lineage.id
    )
    assert code(await refund(shop, session)) == "forbidden"
    assert shop.shop.count("refund") == 0


async def test_a_caller_may_wait_for_the_answer_and_gets_the_result(shop):
    session = await shop.session()
    arguments = msgspec.json.encode({"order_id": "A1", "amount": "80.00"})
    proposal = Proposal(operation="shop.refund", arguments=arguments, wait_ms=30_000)
    waiting = asyncio.create_task(shop.gate.call(session, proposal))
    while not (waits := await shop.system.plane.approvals.list(lead())):
        assert not waiting.done()
    await approve(shop, waits[0].approval_id)
    assert isinstance(await waiting, Returned)
    assert shop.shop.count("refund") == 1


async def test_a_caller_that_leaves_while_waiting_leaves_nothing_running(shop):
    session = await shop.session()
    arguments = msgspec.json.encode({"order_id": "A1", "amount": "80.00"})
    waiting = asyncio.create_task(
        shop.gate.call(session, Proposal(operation="shop.refund", arguments=arguments, wait_ms=30_000))
    )
    while not (waits := await shop.system.plane.approvals.list(lead())):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await approve(shop, waits[0].approval_id)
    await shop.gate.calls.drain()
    assert shop.shop.count("refund") == 0


async def test_an_agent_cannot_flood_the_people_who_decide(shop):
    session = await shop.session()
    for number in range(20):
        await ask(shop, session, amount=f"60.{number:02}")
    assert code(await refund(shop, session, amount="70.00")) == "approvals_waiting"
    assert len(await shop.system.plane.approvals.list(lead())) == 20


async def test_nobody_is_asked_for_a_session_that_was_revoked(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await shop.system.database.rows("revoke_session", session.session_id)
    with pytest.raises(NotOpenError):
        await approve(shop, approval_id)
    assert code(await refund(shop, session)) == "session_ended"


async def test_what_the_approver_sees_is_what_would_run(shop):
    session = await shop.session()
    approval_id = await ask(shop, session, note="<b>hi</b>")
    seen = await shop.system.plane.approvals.show(lead(), approval_id)
    assert seen.shown == {"amount": "80.00", "note": "<b>hi</b>", "order_id": "A1"}
    assert msgspec.json.decode(seen.arguments) == seen.shown
    assert seen.evidence["resource"]["attributes"] == {"team": "north"}
    assert seen.may_answer
    own = await shop.system.plane.approvals.show(Person(user="ana", tenant="acme", roles=("Lead",)), approval_id)
    assert not own.may_answer


async def test_the_agent_may_follow_its_own_request_and_nobody_elses(shop):
    session, other = await shop.session(), await shop.session(user="ben")
    approval_id = await ask(shop, session)
    assert await shop.system.plane.approvals.of_session(session, approval_id) == "open"
    with pytest.raises(UnknownApprovalError):
        await shop.system.plane.approvals.of_session(other, approval_id)


async def test_with_the_approvals_out_of_reach_nothing_runs(shop):
    session = await shop.session()
    await approve(shop, await ask(shop, session))

    async def broken(*_):
        raise StoreUnavailableError("gone")

    shop.system.approvals.for_call = broken
    assert code(await refund(shop, session)) == "control_plane_unavailable"
    assert shop.shop.count("refund") == 0
