"""Postures of scopes: the most worried one holds, for every lineage in the scope, and only people lower it."""

import asyncio

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.postures import PostureConflictError
from interlock.app.scopes import UnknownScopeError
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from tests.kill.world import files as files_of
from tests.support.shop import FILES, counter

OKI = Person(user="oki", tenant="acme", roles=("Operator",))
SAM = Person(user="sam", tenant="acme", roles=("Security",))
GLO = Person(user="glo", tenant="globex", roles=("Operator", "Security"))
RELEASE = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("status:", "lower: [Security], status:") + "guarded: refunds\n",
    # The shop forbids writes under any other posture by itself; here the posture is to speak alone.
    "policies/guard/rules.cedar": "",
}


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=RELEASE) as made:
        yield made


def postures(shop):
    return shop.system.plane.scope_postures


@pytest.mark.parametrize(
    "scope", ["fleet", "tenant:acme", "environment:test", "agent:bot", "user:acme/ana", "tool:shop", "operation:shop.note"]
)
async def test_a_read_only_scope_lets_reads_through_and_no_write(shop, scope):
    session = await shop.session()
    assert isinstance(await shop.call(session, "note", text="a"), Returned)
    await postures(shop).set(OKI, scope, Posture.READ_ONLY, "odd")
    told = await shop.call(session, "note", text="b")
    assert (told.code, told.effect) == ("read_only", "none")
    assert isinstance(await shop.call(session, "stock", item="tea"), Returned)
    await postures(shop).set(SAM, scope, Posture.NORMAL, "looked into it")
    assert isinstance(await shop.call(session, "note", text="c"), Returned)


async def test_a_scope_does_not_worry_about_others(shop):
    for scope in ("tenant:globex", "agent:idle", "user:acme/ben", "tool:far", "operation:shop.pay", "session:ses_other"):
        await postures(shop).set(OKI, scope, Posture.HALTED, "odd")
    assert isinstance(await shop.call(await shop.session(), "note", text="a"), Returned)


async def test_under_guarded_a_write_waits_for_a_person_and_a_read_does_not(shop):
    session = await shop.session()
    await postures(shop).set(OKI, "tenant:acme", Posture.GUARDED, "odd")
    assert isinstance(await shop.call(session, "stock", item="tea"), Returned)
    told = await shop.call(session, "note", text="a")
    assert told.code == "needs_approval"
    lead = Person(user="lea", tenant="acme", roles=("Lead",))
    await shop.system.plane.known.note(lead)
    await shop.system.plane.approvals.answer(lead, told.details["approvals"][0]["id"], approve=True)
    assert isinstance(await shop.call(session, "note", text="a"), Returned)
    assert (await shop.call(session, "note", text="a")).code == "needs_approval"
    assert shop.shop.count("note") == 1


async def test_under_guarded_a_release_that_names_nobody_refuses_writes(database_urls, tmp_path):
    release = {**RELEASE, "release.yaml": RELEASE["release.yaml"].replace("guarded: refunds\n", "")}
    async with counter(database_urls.app, tmp_path, files=release) as shop:
        await postures(shop).set(OKI, "fleet", Posture.GUARDED, "odd")
        assert (await shop.call(await shop.session(), "note", text="a")).code == "read_only"


async def test_a_halted_scope_stops_reads_too_and_is_lowered_before_it_is_resumed(shop):
    session = await shop.session()
    await postures(shop).set(OKI, "agent:bot", Posture.HALTED, "odd")
    assert (await shop.call(session, "stock", item="tea")).code == "halted"
    with pytest.raises(PostureConflictError, match="lower the posture"):
        await shop.system.plane.resume(OKI, "agent:bot", "never mind")
    await postures(shop).set(SAM, "agent:bot", Posture.GUARDED, "better")
    assert (await shop.call(session, "stock", item="tea")).code == "halted"
    await shop.system.plane.resume(OKI, "agent:bot", "go on, reading")
    assert isinstance(await shop.call(session, "stock", item="tea"), Returned)


async def test_the_most_worried_of_lineage_and_scopes_holds(shop):
    session = await shop.session()
    await shop.system.plane.postures.set(OKI, session.lineage.id, Posture.READ_ONLY, "odd")
    await postures(shop).set(OKI, "fleet", Posture.GUARDED, "odd everywhere")
    assert (await shop.call(session, "note", text="a")).code == "read_only"
    await shop.system.plane.postures.set(SAM, session.lineage.id, Posture.NORMAL, "fine")
    assert (await shop.call(session, "note", text="a")).code == "needs_approval"
    (decided,) = [body for kind, body in await shop.events(session.session_id) if kind == "call.decided"][-1:]
    assert decided["facts"]["posture"] == "guarded"


async def test_who_raised_it_or_whom_it_is_about_does_not_lower_it(shop):
    both = Person(user="sam", tenant="acme", roles=("Operator", "Security"))
    await postures(shop).set(both, "user:acme/ana", Posture.READ_ONLY, "odd")
    with pytest.raises(NotPermittedError, match="raised it"):
        await postures(shop).set(both, "user:acme/ana", Posture.NORMAL, "never mind")
    with pytest.raises(NotPermittedError, match="its user"):
        await postures(shop).set(Person(user="ana", tenant="acme", roles=("Security",)), "user:acme/ana", Posture.NORMAL, "me")
    with pytest.raises(NotPermittedError):
        await postures(shop).set(OKI, "user:acme/ana", Posture.NORMAL, "no role to lower")


async def test_the_machinery_only_ever_raises(shop):
    ratchet = postures(shop).ratchet
    assert (await ratchet("agent:bot", Posture.READ_ONLY, "spike", by="risk")).posture is Posture.READ_ONLY
    for lower in (Posture.NORMAL, Posture.GUARDED, Posture.READ_ONLY):
        assert await ratchet("agent:bot", lower, "calm again", by="risk") is None
    assert (await shop.call(await shop.session(), "note", text="a")).code == "read_only"
    kinds = [body["posture"] for kind, body in await shop.events("control") if kind == "posture.changed"]
    assert kinds == ["read_only"]


async def test_two_at_once_neither_is_lost(shop):
    ratchet = postures(shop).ratchet
    await asyncio.gather(*(ratchet("fleet", to, "spike", by="risk") for to in (Posture.GUARDED, Posture.READ_ONLY) * 4))
    assert (await shop.call(await shop.session(), "note", text="a")).code == "read_only"


async def test_people_of_a_tenant_stop_and_resume_only_what_lies_in_it(shop):
    theirs = await shop.session(user="gus", tenant="globex")
    ours = await shop.session()
    plane = shop.system.plane
    release = await plane.admin.release()
    assert release.administration.operated_by == ("acme",)
    mine = ("tenant:globex", "user:globex/gus", f"session:{theirs.session_id}")
    for scope in mine:
        await plane.kill(GLO, scope, "ours to stop")
        await plane.resume(GLO, scope, "ours to resume")
    for scope in (
        "fleet",
        "tenant:acme",
        "user:acme/ana",
        "agent:bot",
        "tool:shop",
        f"session:{ours.session_id}",
        "session:no",
    ):
        for act in (plane.kill, plane.resume):
            with pytest.raises(NotPermittedError):
                await act(GLO, scope, "not ours")
    for scope in mine:
        with pytest.raises(NotPermittedError):
            await plane.resume(SAM, scope, "no role to resume")


async def test_a_slip_of_the_pen_is_told(shop):
    answer = await shop.system.plane.kill(OKI, "tool:shpo", "typo")
    assert "no tool shpo" in answer.note
    for scope in ("", "flet", "tool:", "user:ana", "session", "tool:a b"):
        with pytest.raises(UnknownScopeError):
            await shop.system.plane.kill(OKI, scope, "x")


async def test_every_process_decides_by_a_raised_posture_at_once(database_urls, tmp_path):
    async with (
        counter(database_urls.app, tmp_path / "a", files=RELEASE) as one,
        counter(database_urls.app, tmp_path / "b", files=RELEASE) as two,
    ):
        session = await two.session()
        assert isinstance(await two.call(session, "note", text="a"), Returned)
        # The notification is lost: the claim itself finds the decision stale.
        two.system.keeper.told = lambda told: None
        await postures(one).set(OKI, "fleet", Posture.READ_ONLY, "odd")
        assert (await two.call(session, "note", text="b")).code == "read_only"


def test_the_release_with_a_tool_on_the_network_is_the_shops():
    assert set(FILES) < set(files_of("http://127.0.0.1:9/mcp"))
