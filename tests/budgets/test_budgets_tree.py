"""One request, many agents: work that is handed on can only narrow, shares one budget, and ends with what is above it."""

import asyncio

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from interlock.app.postures import PostureConflictError
from interlock.core.terms import Posture
from interlock.core.who import Parent, Person
from interlock.gateway.messages import Proposal, Refusal, Returned
from interlock.identity.dev_issuer import DevIssuer, Directory, DirectoryAgent, DirectoryUser
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.exchange import ACCESS_TOKEN_TYPE, GRANT_TYPE, ExchangeRequest
from interlock.identity.handing_down import MAX_CHAIN_AGENTS
from tests.support.shop import FILES, OPERATOR, counter

AGENTS = (
    FILES["agents.yaml"]
    + """
helper:
  test: {issuer: interlock-dev, subject: helper}
  grants:
    - {on: [shop.stock, shop.note], for: {roles: [Staff], task: selling}}
stranger:
  test: {issuer: interlock-dev, subject: stranger}
"""
)
TREE = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("status:", "lower: [Security], status:"),
    "agents.yaml": AGENTS,
    "tasks.yaml": "selling: {purpose: sell, open_to: [Staff], agents: [bot, idle, helper]}\n",
    "budgets.yaml": "calls-per-session: {count: calls, per: session, limit: 6}\ncalls-per-run: {count: calls, per: run, limit: 4}\n",
}
DIRECTORY = Directory(
    users={"ana": DirectoryUser(tenant="acme", roles=("Staff", "Other"))},
    agents={name: DirectoryAgent(subjects={"test": name}) for name in ("bot", "helper", "idle", "stranger")},
)


class Family:
    """A user, agents, and the sessions they open and hand down."""

    def __init__(self, shop):
        self.shop, self.plane = shop, shop.system.plane
        self.issuer = DevIssuer(
            directory=DIRECTORY,
            keys=shop.system.keys,
            environment="test",
            clock=shop.system.clock,
            ids=shop.system.ids,
        )

    async def root(self, user="ana"):
        request = ExchangeRequest(
            grant_type=GRANT_TYPE,
            subject_token=self.issuer.user_token(user),
            actor_token=self.issuer.agent_token("bot"),
            task="selling",
        )
        return (await self.plane.exchange(request)).access_token

    async def below(self, token, agent="helper", **more):
        request = ExchangeRequest(
            grant_type=GRANT_TYPE,
            subject_token=token,
            subject_token_type=ACCESS_TOKEN_TYPE,
            actor_token=self.issuer.agent_token(agent),
            **more,
        )
        return (await self.plane.exchange(request)).access_token

    def session(self, token):
        return self.plane.session(token)

    async def note(self, token, text, run=""):
        proposal = Proposal(operation="shop.note", arguments=b'{"text":"%s"}' % text.encode(), run=run)
        return await self.shop.gate.call(self.session(token), proposal)


@pytest.fixture
async def family(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=TREE) as made:
        yield Family(made)


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


async def test_the_token_tells_of_the_whole_chain_and_the_record_on_both_sides(family):
    root = await family.root()
    child = await family.below(root)
    grandchild = await family.below(child, "idle")
    claims = jwt.decode(grandchild, OKPKey.import_key(family.plane.jwks()["keys"][0]), algorithms=["Ed25519"]).claims
    assert claims["sub"] == "ana"
    assert claims["act"] == {"sub": "idle", "act": {"sub": "helper", "act": {"sub": "bot"}}}
    session = family.session(grandchild)
    assert [parent.agent for parent in session.parents] == ["helper", "bot"]
    assert session.root == family.session(root).session_id
    assert (session.lineage.agent, session.lineage.user) == ("idle", "ana")
    (opened,) = [body for kind, body in await family.shop.events(session.session_id) if kind == "session.opened"]
    assert [parent["agent"] for parent in opened["parents"]] == ["helper", "bot"]
    (told,) = [body for kind, body in await family.shop.events(session.root) if kind == "session.handed_down"]
    assert told["agent"] == "helper"


async def test_all_of_them_together_do_no_more_than_the_one_at_the_top_might(family):
    root = await family.root()
    children = [await family.below(root) for _ in range(3)]
    tokens = [root, *children, await family.below(children[0], "helper")]
    answers = await asyncio.gather(
        *[family.note(token, f"{n}{i}", run=f"r{i}") for n, token in enumerate(tokens) for i in range(3)]
    )
    assert sum(isinstance(answer, Returned) for answer in answers) == 6
    assert family.shop.shop.count("note") == 6


async def test_a_run_goes_on_in_the_sessions_below_it_whatever_they_call_it(family):
    root = await family.root()
    child = await family.below(root, run="r1")
    for number in range(2):
        assert isinstance(await family.note(root, f"a{number}", run="r1"), Returned)
        assert isinstance(await family.note(child, f"b{number}", run="another"), Returned)
    assert (await family.note(child, "c", run="another")).meta()["budget"]["name"] == "calls-per-run"
    assert isinstance(await family.note(root, "c", run="r2"), Returned)
    with pytest.raises(ExchangeRefusedError):
        await family.below(child, run="r2")


async def test_calls_that_were_handed_down_bind_the_child_and_whatever_it_hands_on(family):
    root = await family.root()
    child = await family.below(root, max_calls="2")
    grandchild = await family.below(child)
    assert isinstance(await family.note(child, "1"), Returned)
    assert isinstance(await family.note(grandchild, "2"), Returned)
    told = await family.note(grandchild, "3")
    assert (code(told), told.meta()["budget"]["name"]) == ("over_budget", "handed-down")
    assert isinstance(await family.note(root, "4"), Returned)
    for most in ("3", "0", "-1", "1e9", "٢"):
        with pytest.raises(ExchangeRefusedError):
            await family.below(child, max_calls=most)


async def test_only_what_is_narrower_is_handed_down(family):
    root = await family.root()
    child = await family.below(root, roles="Staff", scope="shop.stock", lifetime_s="60")
    session, above = family.session(child), family.session(root)
    assert (session.roles, session.operations) == (("Staff",), ("shop.stock",))
    assert session.expires_at_us < above.expires_at_us
    assert code(await family.note(child, "x")) == "unknown_operation"
    assert [item.operation for item in await family.shop.gate.visible(session)] == ["shop.stock"]
    wider = (
        {"scope": "shop.note"},
        {"scope": "shop.stock shop.note"},
        {"roles": "Other"},
        {"roles": "Lead"},
        {"lifetime_s": "99999"},
    )
    for more in (*wider, {"task": "another"}, {"run": "a b"}):
        with pytest.raises(ExchangeRefusedError):
            await family.below(child, **more)
    grandchild = family.session(await family.below(child, lifetime_s="9000"))
    assert grandchild.expires_at_us <= session.expires_at_us
    assert grandchild.operations == ("shop.stock",)


async def test_the_child_has_the_rights_of_its_own_agent_and_no_other(family):
    root = await family.root()
    child = await family.below(root)
    assert "shop.pay" in [item.operation for item in await family.shop.gate.visible(family.session(root))]
    assert "shop.pay" not in [item.operation for item in await family.shop.gate.visible(family.session(child))]
    for agent in ("stranger",):
        with pytest.raises(ExchangeRefusedError):
            await family.below(root, agent)


async def test_chains_and_fans_have_an_end(family, monkeypatch):
    token = await family.root()
    for _ in range(MAX_CHAIN_AGENTS - 1):
        token = await family.below(token)
    with pytest.raises(ExchangeRefusedError, match="at most"):
        await family.below(token)
    monkeypatch.setattr("interlock.identity.handing_down.MAX_LIVE_BELOW_A_SESSION", 3)
    root = await family.root()
    asked = await asyncio.gather(*[family.below(root) for _ in range(8)], return_exceptions=True)
    assert sum(isinstance(answer, str) for answer in asked) == 3


async def test_ending_a_session_ends_all_below_it_and_none_can_be_opened(family):
    root = await family.root()
    child = await family.below(root)
    grandchild = await family.below(child)
    sessions = family.shop.system.database
    await sessions.rows("revoke_session", family.session(child).session_id)
    assert isinstance(await family.note(root, "1"), Returned)
    for token in (child, grandchild):
        assert code(await family.note(token, "2")) == "session_ended"
        with pytest.raises(ExchangeRefusedError):
            await family.below(token)


async def test_no_session_is_opened_below_one_that_is_being_ended(family):
    for _ in range(10):
        root = await family.root()
        opening = [asyncio.create_task(family.below(root)) for _ in range(3)]
        await family.shop.system.database.rows("revoke_session", family.session(root).session_id)
        for answer in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(answer, str):
                assert code(await family.note(answer, "1")) == "session_ended"


async def test_a_kill_of_an_agent_stops_those_who_act_for_it(family):
    root = await family.root()
    child = await family.below(root)
    await family.plane.kill(OPERATOR, "agent:bot", "it is in a loop")
    assert code(await family.note(child, "x")) == "halted"


async def test_worries_are_inherited(family):
    root = await family.root()
    lineage = family.session(root).lineage.id
    await family.shop.system.database.pool().execute(
        "UPDATE lineage SET posture = 'guarded', tainted = true, confidentiality = 2 WHERE lineage_id = $1", lineage
    )
    child = await family.below(root)
    assert code(await family.note(child, "x")) == "forbidden"
    found = await family.shop.system.database.row("lineage", family.session(child).lineage.id)
    assert (found["posture"], found["tainted"], found["confidentiality"]) == ("guarded", True, 2)


async def test_a_worry_about_an_agent_reaches_those_who_act_for_it_already_and_is_lowered_from_above(family):
    root = await family.root()
    child = await family.below(root)
    grandchild = await family.below(child, agent="idle")
    other = await family.root()
    assert isinstance(await family.note(child, "before"), Returned)
    ids = [family.session(token).lineage.id for token in (root, child, grandchild)]
    postures, sam = family.plane.postures, Person(user="sam", tenant="acme", roles=("Security",))
    await postures.set(OPERATOR, ids[0], Posture.READ_ONLY, "odd")
    assert code(await family.note(child, "after")) == "read_only"
    assert {item.lineage_id: item.posture for item in await postures.worried(OPERATOR)} == dict.fromkeys(ids, Posture.READ_ONLY)
    (told,) = [body for kind, body in await family.shop.events("control") if kind == "posture.changed"]
    assert (told["lineage_id"], told["below"]) == (ids[0], sorted(ids[1:]))
    with pytest.raises(PostureConflictError, match="lower that one first"):
        await postures.set(sam, ids[1], Posture.GUARDED, "fine")
    for lineage in ids:
        await postures.set(sam, lineage, Posture.NORMAL, "fine")
    assert isinstance(await family.note(child, "after"), Returned)
    await postures.set(OPERATOR, ids[1], Posture.HALTED, "odd again")
    assert isinstance(await family.note(other, "what is below worries nobody above"), Returned)


async def test_a_session_that_is_opened_while_its_agent_is_being_worried_about_is_worried_too(family):
    root = await family.root()
    lineage = family.session(root).lineage.id
    for posture in (Posture.GUARDED, Posture.READ_ONLY, Posture.HALTED):
        _, child = await asyncio.gather(
            family.plane.postures.set(OPERATOR, lineage, posture, "odd"), family.below(root), return_exceptions=True
        )
        assert isinstance(child, str)
        assert (await family.plane.postures._postures.get(family.session(child).lineage.id)).posture is posture


async def test_a_session_below_goes_on_with_fresh_tokens_from_both(family):
    root = await family.root()
    child = family.session(await family.below(root, max_calls="2", scope="shop.note"))
    again = family.session(await family.below(root, session_id=child.session_id))
    assert (again.session_id, again.max_calls, again.operations) == (child.session_id, 2, ("shop.note",))
    assert again.parents == (Parent(session_id=child.root, agent="bot"),)
    other = await family.root()
    for token, agent in ((other, "helper"), (root, "idle")):
        with pytest.raises(ExchangeRefusedError):
            await family.below(token, agent, session_id=child.session_id)
