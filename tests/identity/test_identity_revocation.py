"""Taking trust back: in every process at once, on record, by whoever has the role, in their own tenant."""

import asyncio

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.revocations import UnknownSessionError, UnknownTargetError
from interlock.core.who import Person
from interlock.gateway.messages import Proposal
from interlock.identity.delegated import LOOK_AGAIN_S
from tests.identity.house import HERE, house

OPERATOR = Person(user="oki", tenant="acme", roles=("Operator",))
STOCK = Proposal(operation="shop.stock", arguments=b'{"item":"tea"}')


@pytest.fixture
async def two(shop, database_urls, tmp_path_factory, issuer):
    """A second process on the same database, with the same keys of its own kind: a session token of one is one of the other."""
    async with house(database_urls.app, tmp_path_factory.mktemp("two"), issuer, shop=shop.made.shop) as other:
        yield other


async def calls(place, session):
    """What a call of a session that is cached comes to in a process."""
    return type(await place.made.gate.call(session, STOCK)).__name__


async def test_a_revoked_session_ends_in_every_process_and_its_token_opens_no_other(shop, two):
    token = shop.token()
    sessions = [await place.session(token) for place in (shop, two)]
    assert [await calls(place, session) for place, session in zip((shop, two), sessions, strict=True)] == [
        "Returned",
        "Returned",
    ]
    done = (await shop.revoke(f"session:{sessions[0].session_id}")).json()
    assert (done["sessions"], done["tenant"]) == (1, "acme")
    before = len(shop.made.shop.calls)
    for place, session in zip((shop, two), sessions, strict=True):
        answer = await place.made.gate.call(session, STOCK)
        assert answer.code == "session_ended", answer
        assert await place.made.gate.visible(session) == ()
    assert len(shop.made.shop.calls) == before
    # The processes still remember the token; as soon as they look again it is refused for what it is.
    later_s = two.system.clock.monotonic_s() + LOOK_AGAIN_S + 1
    two.system.clock.monotonic_s = lambda: later_s
    answer = await two.call(token)
    assert answer.status_code == 401
    assert (await two.call(shop.token(sid="another login"))).status_code == 200


async def test_revoking_a_user_refuses_what_they_were_issued_before_and_nothing_else(shop, two):
    now = shop.issuer.claims()["iat"]
    old, someone = shop.token(iat=now - 60), shop.token(sub="bob", iat=now - 60)
    session, other = await two.session(old), await two.session(someone)
    assert (await shop.revoke("user:ana")).json()["sessions"] == 1
    assert (await two.made.gate.call(session, STOCK)).code == "session_ended"
    assert await calls(two, other) == "Returned"
    # Another token from before, which nobody has seen yet, and what may have been issued while the clocks differed.
    for issued in (now - 30, now):
        assert (await two.call(shop.token(iat=issued))).status_code == 401
    actor = shop.issuer.token(sub="bot-app", client_id="bot-app", aud=HERE)
    refused = await two.exchange(subject_token=shop.own(user="ana", groups=["staff"], iat=now - 30), actor_token=actor)
    assert refused.json() == {"error": "invalid_grant", "error_description": "the user's or the agent's token is refused"}
    # A token of another tenant's user of the same name.
    assert (await two.call(shop.token(org="globex-corp", iat=now - 30))).status_code == 200
    two.system.clock.wall_us = shop.system.clock.wall_us = lambda: (now + 30) * 1_000_000
    assert (await two.call(shop.token(iat=now + 20))).status_code == 200


async def test_revoking_an_agent_ends_its_sessions_for_all_users_and_refuses_its_older_proofs(shop, two):
    now = shop.issuer.claims()["iat"]
    held = [
        await two.session(shop.token(sub=user, org=org, iat=now - 60))
        for user, org in (("ana", "acme-corp"), ("eve", "globex-corp"))
    ]
    assert (await shop.revoke("agent:bot2")).json()["sessions"] == 2
    for session in held:
        assert (await two.made.gate.call(session, STOCK)).code == "session_ended"
    subject = shop.own(user="ana", groups=["staff"], iat=now - 60)
    actor = shop.issuer.token(sub="bot-app", client_id="bot-app", aud=HERE, iat=now - 60)
    assert (await two.exchange(subject_token=subject, actor_token=actor)).status_code == 400
    two.system.clock.wall_us = lambda: (now + 30) * 1_000_000
    fresh = shop.issuer.token(sub="bot-app", client_id="bot-app", aud=HERE, iat=now + 20)
    answer = await two.exchange(subject_token=subject, actor_token=fresh)
    assert answer.status_code == 200
    # Whoever stole the older proof cannot go on with the new session either.
    stolen = await two.exchange(subject_token=subject, actor_token=actor, session_id=answer.json()["session_id"])
    assert stolen.status_code == 400


async def test_a_session_token_of_the_exchange_does_not_outlive_a_revocation_in_another_process(shop, two):
    subject = shop.own(user="ana", groups=["staff"])
    actor = shop.issuer.token(sub="bot-app", client_id="bot-app", aud=HERE)
    opened = (await two.exchange(subject_token=subject, actor_token=actor)).json()
    token = opened["access_token"]
    assert (await two.call(token)).json()["result"]["isError"] is False
    await shop.revoke("user:ana")
    told = (await two.call(token)).json()["result"]
    assert told["isError"] is True
    assert told["_meta"]["interlock/decision"]["code"] == "session_ended"
    again = await two.exchange(subject_token=subject, actor_token=actor, session_id=opened["session_id"])
    assert again.status_code == 400


async def test_no_claim_of_a_revoked_user_commits_after_the_answer(shop, two):
    session = await two.session(shop.token())
    done = asyncio.Event()

    async def hammer():
        while not done.is_set():
            await two.made.gate.call(session, STOCK)

    workers = [asyncio.create_task(hammer()) for _ in range(8)]
    while len(shop.made.shop.calls) < 20:
        await asyncio.sleep(0)
    await shop.revoke("user:ana")
    claimed = await shop.system.database.pool().fetchval("SELECT count(*) FROM claim")
    answers = [await two.made.gate.call(session, STOCK) for _ in range(20)]
    done.set()
    await asyncio.gather(*workers)
    assert await shop.system.database.pool().fetchval("SELECT count(*) FROM claim") == claimed
    assert {answer.code for answer in answers} == {"session_ended"}


async def test_a_revoked_person_no_longer_speaks_to_the_control_plane(shop, two):
    now = shop.issuer.claims()["iat"]
    token = shop.own(iat=now - 60)
    assert (await two.ask("GET", "/v1/controls", token=token)).status_code == 200
    await shop.revoke("user:oki", token=shop.own(user="boss"))
    for place in (shop, two):
        assert (await place.ask("GET", "/v1/controls", token=token)).status_code == 401


async def test_what_a_revoked_person_approved_and_nobody_used_lifts_nothing(shop):
    session = await shop.made.session()
    refund = {"order_id": "A1", "amount": "80.00"}
    asked = await shop.made.call(session, "refund", **refund)
    lea = Person(user="lea", tenant="acme", roles=("Lead",), told_at_us=1)
    await shop.system.plane.approvals.answer(lea, asked.meta()["approvals"][0]["id"], approve=True)
    await shop.revoke("user:lea")
    assert (await shop.made.call(session, "refund", **refund)).code == "needs_approval"
    assert shop.made.shop.count("refund") == 0


async def test_revocations_are_on_record_and_told_as_a_story(shop):
    session = await shop.session(shop.token())
    await shop.revoke(f"session:{session.session_id}")
    await shop.revoke("user:ana")
    await shop.revoke("agent:bot2")
    made = [body for kind, body in await shop.made.events("control") if kind == "revocation.made"]
    assert [(body["target"], body["tenant"], body["by"]) for body in made] == [
        (f"session:{session.session_id}", "acme", "oki"),
        ("user:ana", "acme", "oki"),
        ("agent:bot2", "", "oki"),
    ]
    assert {body["reason"] for body in made} == {"lost laptop"}
    epochs, _ = await shop.system.controls.epochs()
    assert epochs.revocation == 3


@pytest.mark.parametrize("target", ["user:ana", "agent:bot2", "session:ses_x"])
async def test_only_the_role_revokes_and_what_is_refused_is_on_record(shop, target):
    answer = await shop.revoke(target, token=shop.own(groups=["staff"]))
    assert answer.status_code == 403
    refused = [body for kind, body in await shop.made.events("control") if kind == "control.refused"]
    assert [(body["operation"], body["target"]) for body in refused] == [("revoke", target)]
    assert (await shop.ask("POST", "/v1/revocations", body={"target": target, "reason": "x"})).status_code == 401
    assert (await shop.revoke(target, token=shop.token(groups=["operators"]))).status_code == 401


async def test_people_revoke_in_their_own_tenant_and_operators_of_the_installation_everywhere(shop):
    revocations = shop.system.plane.revocations
    elsewhere = Person(user="gil", tenant="globex", roles=("Operator",))
    session = await shop.session(shop.token())
    for target, more in (("user:ana", {"tenant": "acme"}), ("agent:bot2", {})):
        with pytest.raises(NotPermittedError):
            await revocations.revoke(elsewhere, target, "x", **more)
    with pytest.raises(UnknownSessionError):
        await revocations.revoke(elsewhere, f"session:{session.session_id}", "x")
    assert await calls(shop, session) == "Returned"
    assert (await revocations.revoke(elsewhere, "user:ana", "ours")).tenant == "globex"
    assert await calls(shop, session) == "Returned"
    assert (await revocations.revoke(OPERATOR, "user:eve", "theirs", tenant="globex")).tenant == "globex"


@pytest.mark.parametrize("target", ["", "ana", "user:", "group:x", "session: x", "user: ", "role:Staff"])
async def test_what_is_no_target_is_said_to_be_none(shop, target):
    with pytest.raises(UnknownTargetError):
        await shop.system.plane.revocations.revoke(OPERATOR, target, "x")
    assert (await shop.revoke(target)).status_code == 400


async def test_an_unknown_session_and_one_that_has_ended_are_not_found(shop):
    session = await shop.session(shop.token())
    assert (await shop.revoke("session:ses_nothing")).status_code == 404
    assert (await shop.revoke(f"session:{session.session_id}")).status_code == 200
    assert (await shop.revoke(f"session:{session.session_id}")).status_code == 404


async def test_a_revocation_is_never_edited_or_removed(shop):
    await shop.revoke("user:ana")
    for change in ("UPDATE revocation SET before_us = 0", "DELETE FROM revocation"):
        with pytest.raises(Exception, match=r"append-only|permission denied"):
            await shop.system.database.pool().execute(change)
