"""How an approval ends without an answer: in time, for more, for a changed object, with whoever gave it; each on record."""

import asyncio

import pytest

from interlock.approvals.errors import NotOpenError, WrongApproverError
from interlock.core.decision import ResourceFacts
from interlock.core.who import Person
from interlock.gateway.approving import shown_digest
from interlock.gateway.messages import Returned
from interlock.ledger.story import StoredEvent, tell
from tests.approvals.test_approvals_gate import age, approve, ask, code, lead, refund
from tests.support.shop import FILES, Shop, counter

SECURITY = Person(user="sam", tenant="acme", roles=("Security",), told_at_us=1)
REVOKING = {**FILES, "release.yaml": FILES["release.yaml"].replace("kill:", "revoke: [Security], kill:")}
TEAMS = ("north", "south", "west")
MORE = {
    **FILES,
    "policies/guard/note.cedar": "".join(
        f'@id("{name}")\n@owner("security")\n@approval("refunds")\n'
        f'forbid (principal, action == Action::"shop.note", resource){when};\n'
        for name, when in (("always", ""), ("tainted", " when { context.session.tainted }"))
    ),
}


async def ended(shop, session):
    return [body for kind, body in await shop.events(session.session_id) if kind == "approval.ended"]


async def told(shop, session):
    rows = await shop.system.traces.events(session.session_id)
    lines = tell(StoredEvent(**{name: getattr(row, name) for name in StoredEvent.__struct_fields__}) for row in rows)
    return [line.text for line in lines if line.kind == "approval.ended"]


async def test_a_request_that_nobody_answers_ends_on_record_though_nobody_asks_again(shop):
    session = await shop.session()
    approval_id = await ask(shop, session)
    await age(shop, approval_id)
    while not await ended(shop, session):
        await asyncio.sleep(0)
    assert await ended(shop, session) == [
        {"kind": "approval.ended", "approval_id": approval_id, "to": "expired", "why": "expired", "by": ""}
    ]
    assert await told(shop, session) == [f"expired: nobody answered it, or used it, in time ({approval_id})"]
    with pytest.raises(NotOpenError):
        await approve(shop, approval_id)
    assert len(await ended(shop, session)) == 1


async def test_an_approval_that_nobody_used_ends_on_record_once_whoever_notices(database_urls, tmp_path):
    shared = Shop()
    here, there = (counter(database_urls.app, tmp_path, shop=shared) for _ in range(2))
    async with here as one, there as two:
        session = await one.session()
        approval_id = await ask(one, session)
        await approve(one, approval_id)
        await age(one, approval_id)
        await asyncio.gather(*(shop.system.approvals.expire() for shop in (one, two) for _ in range(3)))
        await ask(two, session)
        assert [body["approval_id"] for body in await ended(one, session)] == [approval_id]
        assert (await one.system.approvals.get(approval_id)).state == "expired"
        assert shared.count("refund") == 0


async def test_when_more_has_to_be_asked_for_the_old_request_ends_on_record(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=MORE) as shop:
        session = await shop.session()
        first = (await shop.call(session, "note", text="a")).meta()["approvals"][0]["id"]
        await shop.system.database.pool().execute("UPDATE lineage SET tainted = true, facts_version = facts_version + 1")
        second = (await shop.call(session, "note", text="a")).meta()["approvals"][0]["id"]
        assert second != first
        (end,) = await ended(shop, session)
        assert (end["approval_id"], end["to"], end["why"]) == (first, "withdrawn", "more_asked")
        assert await told(shop, session) == [f"withdrawn: more had to be asked for, in a new request ({first})"]


async def test_a_yes_holds_for_the_object_as_it_was_shown_and_a_changed_one_is_asked_about_anew(shop):
    session = await shop.session(teams=TEAMS)
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    shop.shop.teams["A1"] = "west"
    again = await ask(shop, session)
    assert again != approval_id
    assert shop.shop.count("refund") == 0
    assert (await shop.system.approvals.get(approval_id)).state == "outdated"
    (end,) = await ended(shop, session)
    assert (end["approval_id"], end["why"]) == (approval_id, "object_changed")
    assert await told(shop, session) == [
        f"outdated: the object is no longer what was shown; people are asked anew ({approval_id})"
    ]
    # What is shown now is what the yes is for.
    await approve(shop, again)
    assert isinstance(await refund(shop, session), Returned)
    assert shop.shop.count("refund") == 1


async def test_an_open_request_about_a_changed_object_is_asked_anew_and_can_no_longer_be_answered(shop):
    session = await shop.session(teams=TEAMS)
    approval_id = await ask(shop, session)
    shop.shop.teams["A1"] = "west"
    assert await ask(shop, session) != approval_id
    with pytest.raises(NotOpenError) as refused:
        await approve(shop, approval_id)
    assert refused.value.state == "outdated"


async def test_an_object_that_changes_back_needs_no_second_look_when_nobody_asked_in_between(shop):
    session = await shop.session(teams=TEAMS)
    approval_id = await ask(shop, session)
    await approve(shop, approval_id)
    shop.shop.teams["A1"] = "west"
    shop.shop.teams["A1"] = "north"
    assert isinstance(await refund(shop, session), Returned)


async def test_what_was_done_is_answered_from_the_record_though_doing_it_changed_the_object(shop):
    session = await shop.session(teams=TEAMS)
    await approve(shop, await ask(shop, session))
    first = await refund(shop, session)
    shop.shop.teams["A1"] = "west"
    second = await refund(shop, session)
    assert isinstance(first, Returned)
    assert isinstance(second, Returned)
    assert shop.shop.count("refund") == 1


async def test_a_no_is_no_less_a_no_when_the_object_changes(shop):
    session = await shop.session(teams=TEAMS)
    approval_id = await ask(shop, session)
    await shop.system.plane.approvals.answer(lead(), approval_id, approve=False)
    shop.shop.teams["A1"] = "west"
    assert code(await refund(shop, session)) == "approval_denied"


class About:
    """Facts, as far as the object goes."""

    def __init__(self, **attributes):
        self.resource = ResourceFacts(type="Order", id="A1", attributes=attributes or None)


def test_only_what_is_shown_counts_and_a_set_has_no_order():
    assert shown_digest(About(tags=("a", "b"))) == shown_digest(About(tags=("b", "a")))
    assert shown_digest(About(tags=("a", "b"), n=1)) == shown_digest(About(n=1, tags=("a", "b")))
    different = [About(), About(n=1), About(n=True), About(n="1"), About(n=("1",)), About(n=2), About(m=1)]
    assert len({shown_digest(facts) for facts in different}) == len(different)


async def test_whoever_was_revoked_has_approved_nothing_not_even_when_they_come_back(database_urls, tmp_path):
    shared = Shop()
    here, there = (counter(database_urls.app, tmp_path, shop=shared, files=REVOKING) for _ in range(2))
    async with here as one, there as two:
        session = await one.session()
        approval_id = await ask(one, session)
        await approve(one, approval_id, lead(told_at_us=1))
        await two.system.plane.revocations.revoke(SECURITY, "user:leo", "left")
        # A newer token tells of them again, with the role: that is for new questions.
        await one.system.plane.known.note(lead(told_at_us=2**60))
        assert await ask(one, session) != approval_id
        assert shared.count("refund") == 0
        (end,) = await ended(one, session)
        assert (end["approval_id"], end["why"], end["by"]) == (approval_id, "approver_revoked", "sam")
        assert await told(one, session) == [f"withdrawn: whoever approved it was revoked, by sam ({approval_id})"]


async def test_a_token_from_before_gives_no_role_back_to_somebody_nobody_had_told_of(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=REVOKING) as shop:
        session = await shop.session()
        approval_id = await ask(shop, session)
        await shop.system.plane.revocations.revoke(SECURITY, "user:leo", "left")
        with pytest.raises(WrongApproverError):
            await approve(shop, approval_id, lead(told_at_us=1))
        assert code(await refund(shop, session)) == "needs_approval"
