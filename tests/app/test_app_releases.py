"""Putting releases in force: proposed by one person, activated by another, owned by teams, always on record."""

import asyncio

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.releases import ReleaseConflictError
from interlock.app.system import ReleaseInForceError, Settings, running
from interlock.core.who import Person
from interlock.gateway.messages import Refusal, Returned
from interlock.release.errors import ReleaseError
from interlock.release.ownership import changed, owners_of, teams_needed, teams_of
from interlock.store.errors import UnknownReleaseError
from interlock.tools.python import PythonTools
from tests.support.shop import FILES, Shop, counter

NO_NOTES = '@id("no-notes")\n@owner("security")\nforbid (principal, action == Action::"shop.note", resource);\n'
OWNED = {
    **FILES,
    "release.yaml": """
name: shop
user_attributes: {teams: set}
owners: {platform: [release.yaml, tools], product: [agents.yaml, tasks.yaml, tests], security: [policies, approvals.yaml]}
administration:
  operated_by: [acme]
  teams: {platform: [Platform], product: [Product], security: [Security]}
  propose: [Platform, Product, Security]
  activate: [Platform, Security]
  status: [Platform]
""",
}


def person(user, *roles, tenant="acme"):
    return Person(user=user, tenant=tenant, roles=roles)


PAT, PIA, SAM, SUE = person("pat", "Platform"), person("pia", "Product"), person("sam", "Security"), person("sue", "Security")


@pytest.fixture
async def owned(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=OWNED) as made:
        yield made


def stricter(**more):
    return {**OWNED, "policies/guard/more.cedar": NO_NOTES, **more}


async def in_force(shop):
    return (await shop.system.controls.epochs())[1]


async def refused_on_record(shop):
    return [body for kind, body in await shop.events("control") if kind == "control.refused"]


async def test_one_proposes_and_another_activates_and_both_are_on_record(owned):
    releases = owned.system.plane.releases
    proposed = await releases.propose(SAM, stricter())
    assert (proposed.changed, proposed.teams) == (("policies/guard/more.cedar",), ("security",))
    assert await in_force(owned) != proposed.digest
    activated = await releases.activate(SUE, proposed.digest, "notes leak")
    assert await in_force(owned) == activated.digest == proposed.digest
    (event,) = [body for kind, body in await owned.events("control") if kind == "release.activated" and body["by"] == "sue"]
    assert (event["proposed_by"], event["reason"], event["roles"]) == ("sam", "notes leak", ["Security"])
    session = await owned.session()
    assert (await owned.call(session, "note", text="x")).code == "forbidden"


async def test_whoever_proposed_does_not_activate(owned):
    releases = owned.system.plane.releases
    proposed = await releases.propose(SAM, stricter())
    with pytest.raises(NotPermittedError):
        await releases.activate(SAM, proposed.digest, "in a hurry")
    assert await in_force(owned) != proposed.digest
    assert (await refused_on_record(owned))[-1]["reason"] == "proposed it themselves"


async def test_two_people_who_propose_the_same_may_activate_each_others(owned):
    releases = owned.system.plane.releases
    proposed = await releases.propose(SAM, stricter())
    await releases.propose(SUE, stricter())
    assert (await releases.activate(SAM, proposed.digest, "agreed")).digest == proposed.digest


async def test_a_team_must_stand_behind_a_change_of_what_it_owns(owned):
    releases = owned.system.plane.releases
    proposed = await releases.propose(PIA, stricter())
    with pytest.raises(NotPermittedError, match="security"):
        await releases.activate(PAT, proposed.digest, "it is fine")
    assert await in_force(owned) != proposed.digest
    assert (await releases.activate(SAM, proposed.digest, "looked at it")).digest == proposed.digest


async def test_a_change_of_two_teams_parts_needs_people_of_both(owned):
    releases = owned.system.plane.releases
    both = stricter(**{"tasks.yaml": "selling: {purpose: sell more, open_to: [Staff], agents: [bot, idle]}\n"})
    by_security = await releases.propose(SUE, both)
    with pytest.raises(NotPermittedError, match="product"):
        await releases.activate(SAM, by_security.digest, "x")
    await releases.propose(PIA, both)
    assert (await releases.activate(SAM, by_security.digest, "both looked")).digest == by_security.digest


async def test_who_owns_what_is_read_from_the_release_in_force_not_from_the_new_one(owned):
    releases = owned.system.plane.releases
    takeover = stricter(
        **{"release.yaml": OWNED["release.yaml"].replace("security: [Security]", "security: [Product, Platform]")}
    )
    proposed = await releases.propose(PIA, takeover)
    with pytest.raises(NotPermittedError, match="security"):
        await releases.activate(PAT, proposed.digest, "we own it now")


async def test_without_the_role_nobody_proposes_or_activates(owned):
    releases = owned.system.plane.releases
    for somebody in (person("eve"), person("ana", "Staff"), person("sam", "Security", tenant="globex")):
        with pytest.raises(NotPermittedError):
            await releases.propose(somebody, stricter())
    proposed = await releases.propose(SAM, stricter())
    for somebody in (person("eve"), PIA, person("sue", "Security", tenant="globex")):
        with pytest.raises(NotPermittedError):
            await releases.activate(somebody, proposed.digest, "x")
        with pytest.raises(NotPermittedError):
            await releases.rollback(somebody, "x")
    assert await in_force(owned) != proposed.digest


async def test_a_release_whose_own_tests_fail_is_not_activated(owned):
    releases = owned.system.plane.releases
    failing = stricter(**{"tests/a.yaml": "- {call: shop.note, args: {text: a}, as: Staff, expect: allow}\n"})
    proposed = await releases.propose(SAM, failing)
    assert [result.got for result in proposed.tests_failed] != []
    with pytest.raises(ReleaseConflictError, match="tests fail"):
        await releases.activate(SUE, proposed.digest, "anyway")
    assert await in_force(owned) != proposed.digest


async def test_a_release_that_does_not_load_is_not_even_stored(owned):
    with pytest.raises(ReleaseError):
        await owned.system.plane.releases.propose(SAM, stricter(**{"tasks.yaml": "selling: {purpose: sell}\n"}))
    with pytest.raises(UnknownReleaseError):
        await owned.system.plane.releases.activate(SUE, "sha256:unknown", "x")


async def test_a_stored_release_that_nobody_proposed_is_not_activated(owned):
    first = await in_force(owned)
    await owned.system.plane.releases.put_in_force(stricter(), by="test")
    with pytest.raises(ReleaseConflictError, match="nobody has proposed"):
        await owned.system.plane.releases.activate(SUE, first, "x")


async def test_going_back_takes_one_person_and_only_to_what_was_in_force(owned):
    releases = owned.system.plane.releases
    first = await in_force(owned)
    with pytest.raises(ReleaseConflictError):
        await releases.rollback(SAM, "nothing before")
    proposed = await releases.propose(SAM, stricter())
    with pytest.raises(ReleaseConflictError):
        await releases.rollback(SUE, "never was", proposed.digest)
    await releases.activate(SUE, proposed.digest, "stricter")
    back = await releases.rollback(SAM, "too strict")
    assert back.digest == await in_force(owned) == first
    session = await owned.session()
    assert isinstance(await owned.call(session, "note", text="x"), Returned)
    history = await releases.history(PAT)
    assert [item.digest for item in history] == [first, proposed.digest, first]
    assert history[0].reason == "rollback: too strict"


async def test_two_activations_at_once_one_wins_and_no_process_decides_by_both(owned):
    releases = owned.system.plane.releases
    ways = [stricter(**{"README.md": f"{number}"}) for number in range(4)]
    proposed = [await releases.propose(SAM, files) for files in ways]
    # One that is so late that it finds another in force is no second at once: it was compared with the one before.
    before = await in_force(owned)
    results = await asyncio.gather(
        *(releases.activate(SUE, item.digest, "race", instead_of=before) for item in proposed), return_exceptions=True
    )
    won = [result for result in results if not isinstance(result, Exception)]
    assert len(won) == 1
    assert {type(result) for result in results if isinstance(result, Exception)} == {ReleaseConflictError}
    assert await in_force(owned) == won[0].digest


async def test_outside_development_a_start_does_not_replace_what_people_put_in_force(owned, database_urls, tmp_path):
    settings = Settings(
        state=tmp_path, database_url=database_urls.app, environment="test", release_files=stricter(), trust_dev_issuer=False
    )
    with pytest.raises(ReleaseInForceError, match="propose"):
        async with running(settings, python=PythonTools(Shop().functions())):
            pass
    session = await owned.session()
    assert not isinstance(await owned.call(session, "note", text="x"), Refusal)


def test_the_longest_place_owns_a_file():
    owners = {"platform": ("tools",), "payments": ("tools/payments.yaml",), "security": ("policies/",)}
    assert owners_of("tools/mail.yaml", owners) == {"platform"}
    assert owners_of("tools/payments.yaml", owners) == {"payments"}
    assert owners_of("toolset/x.yaml", owners) == frozenset()
    assert owners_of("policies/guard/a.cedar", owners) == {"security"}
    assert teams_needed(["tools/a.yaml", "policies/x"], owners) == {"platform", "security"}
    assert teams_of(["A", "B"], {"x": ("B",), "y": ("C",), "z": ()}) == {"x"}
    assert changed({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ("a", "b", "c")


async def test_a_call_that_was_decided_by_a_release_of_before_does_not_make_that_the_latest_again(shop):
    idle = await shop.session()
    assert isinstance(await shop.call(idle, "note", text="x"), Returned)
    for text in ("one", "two"):
        files = {**FILES, "policies/guard/more.cedar": f"{NO_NOTES}// {text}\n"}
        activated = await shop.system.plane.releases.put_in_force(files, by="test")
    # What is known of its lineage is from before both, and only the last two releases are kept ready.
    assert isinstance(await shop.call(idle, "note", text="y"), Refusal)
    assert shop.system._shelf.latest.digest == activated.digest


async def test_whoever_asks_for_a_release_of_before_makes_it_the_latest_for_a_heartbeat_at_most(shop):
    before = await in_force(shop)
    activated = await shop.system.plane.releases.put_in_force({**FILES, "policies/guard/more.cedar": NO_NOTES}, by="test")
    await shop.system._shelf.load(before)
    await shop.system.heartbeat()
    assert shop.system._shelf.latest.digest == activated.digest
