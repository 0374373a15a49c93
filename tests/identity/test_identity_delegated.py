"""A delegated token at the MCP endpoint is user and agent in one: same checks, same lineage, one session wherever it arrives."""

import asyncio

import pytest

from interlock.gateway.messages import Proposal
from interlock.identity.delegated import LOOK_AGAIN_S
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from tests.identity.house import HERE, entra, house, kubernetes, spiffe
from tests.support.issuer import DIRECTORY, FOREIGN, local_issuer


def called(answer):
    return answer.json()["result"]["structuredContent"]


async def test_a_delegated_token_opens_a_session_of_its_user_and_agent_and_calls(shop):
    answer = await shop.call(shop.token())
    assert called(answer) == {"item": "tea", "left": 3}
    session = await shop.session(shop.token(sid="login-1"))
    lineage = session.lineage
    assert (lineage.tenant, lineage.environment, lineage.agent, lineage.user) == ("acme", "test", "bot2", "ana")
    assert (session.task, session.roles, dict(session.attributes)) == ("selling", ("Staff",), {"teams": ("north",)})
    kinds = await shop.made.events(session.session_id)
    assert kinds[0][0] == "session.opened"
    assert kinds[0][1]["roles"] == ["Staff"]


async def test_the_session_is_found_again_by_the_token_in_every_process(shop, database_urls, tmp_path_factory, issuer):
    async with house(database_urls.app, tmp_path_factory.mktemp("two"), issuer) as other:
        token = shop.token()
        opened = await asyncio.gather(*(place.session(token) for place in (shop, other) * 8))
        assert len({session.session_id for session in opened}) == 1
        for place in (shop, other):
            assert called(await place.call(token)) == {"item": "tea", "left": 3}
        assert [kind for kind, _ in await shop.made.events(opened[0].session_id)].count("session.opened") == 1


async def test_a_newer_token_of_the_same_login_goes_on_with_the_session_and_moves_its_end(shop):
    now = shop.issuer.claims()["iat"]
    first = await shop.session(shop.token(sid="login-1", exp=now + 100))
    again = await shop.session(shop.token(sid="login-1", exp=now + 500, groups=["staff", "operators"]))
    assert again.session_id == first.session_id
    assert again.expires_at_us == first.expires_at_us + 400_000_000
    assert again.roles == ("Operator", "Staff")
    assert (await shop.made.kinds(first.session_id)).count("session.refreshed") == 1
    other = await shop.session(shop.token(sid="login-2"))
    assert other.session_id != first.session_id
    assert other.lineage == first.lineage


async def test_the_session_ends_with_its_token(shop):
    now = shop.issuer.claims()["iat"]
    token = shop.token(exp=now + 100)
    session = await shop.session(token)
    assert session.expires_at_us == (now + 100) * 1_000_000
    shop.system.clock.wall_us = lambda: (now + 101) * 1_000_000
    with pytest.raises(TokenRefusedError):
        await shop.session(token)


async def test_a_token_that_is_known_costs_neither_the_database_nor_the_issuer(shop):
    token = shop.token()
    session = await shop.session(token)
    asked, pool = dict(shop.issuer.asked), shop.system.database._pool
    shop.system.database._pool = None  # whoever asks it now fails
    try:
        assert [await shop.session(token) for _ in range(20)] == [session] * 20
    finally:
        shop.system.database._pool = pool
    assert shop.issuer.asked == asked


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"client_id": "rogue-app"}, 403),
        ({"client_id": "bot-app-staging"}, 403),
        ({"client_id": "console"}, 403),
        ({"client_id": None}, 401),
        ({"groups": []}, 403),
        ({"groups": ["operators"]}, 403),
        ({"org": "nowhere"}, 401),
        ({"aud": "https://other.example/mcp"}, 401),
        ({"aud": "https://staging.interlock.example/mcp"}, 401),
        ({"header": {"typ": "JWT"}}, 401),
        ({"exp": 1}, 401),
    ],
)
async def test_what_the_exchange_would_refuse_is_refused_here(shop, more, status):
    answer = await shop.call(shop.token(**more))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert shop.made.shop.calls == []
    assert await shop.system.database.pool().fetchval("SELECT count(*) FROM session") == 0


async def test_the_task_is_chosen_by_the_header_or_follows_when_there_is_only_one(database_urls, tmp_path, issuer):
    tasks = "counting: {purpose: count, open_to: [Staff], agents: [bot2]}\nboss: {purpose: boss, open_to: [Operator], agents: [bot2]}\n"
    async with house(database_urls.app, tmp_path, issuer, tasks=tasks) as shop:
        token = shop.token()
        unclear = await shop.call(token)
        assert unclear.status_code == 403
        assert "counting, selling" in unclear.json()["title"]
        assert called(await shop.call(token, interlock_task="selling")) == {"item": "tea", "left": 3}
        other = await shop.session(token, "counting")
        assert other.task == "counting"
        assert other.session_id != (await shop.session(token, "selling")).session_id
        for task in ("boss", "nothing"):
            refused = await shop.call(token, interlock_task=task)
            assert (refused.status_code, refused.json()["title"]) == (403, "this agent may not open this task for this user")


async def test_a_session_token_is_for_its_own_task_and_no_other(shop):
    subject = shop.own(user="ana", groups=["staff"])
    actor = shop.issuer.token(sub="bot-app", client_id="bot-app", aud=HERE)
    token = (await shop.exchange(subject_token=subject, actor_token=actor)).json()["access_token"]
    assert called(await shop.call(token, interlock_task="selling")) == {"item": "tea", "left": 3}
    assert (await shop.call(token, interlock_task="other")).status_code == 403


async def test_a_header_for_the_task_that_stands_twice_is_refused(shop):
    lines = [
        b"POST /mcp HTTP/1.1",
        b"host: 127.0.0.1",
        b"interlock-task: a",
        b"interlock-task: b",
        b"content-length: 0",
        b"connection: close",
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(shop.url.rsplit(":", 1)[1]))
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert b" 400 " in answer.splitlines()[0]


async def test_an_exchange_takes_proofs_of_any_mix_of_issuers(database_urls, tmp_path, issuer):
    async with local_issuer() as cluster:
        cluster.rotate("ES256", "svid", use="jwt-svid")
        agents = """
pod: {test: {issuer: cluster, subject: "system:serviceaccount:agents:bot"}}
svc: {test: {issuer: mesh, subject: "spiffe://prod.example/bot"}}
app: {test: {issuer: entra, subject: entra-app}}
"""
        tasks = "mixed: {purpose: mix, open_to: [Staff, Support], agents: [pod, svc, app, bot2, bot]}\n"
        more = kubernetes(cluster.url) + spiffe(cluster.url) + entra(issuer.url)
        async with house(database_urls.app, tmp_path, issuer, more_issuers=more, agents=agents, tasks=tasks) as shop:
            inside = {"namespace": "agents", "serviceaccount": {"name": "bot", "uid": "u"}}
            v2 = {
                "iss": f"{issuer.url}/{DIRECTORY}/v2.0",
                "tid": DIRECTORY,
                "ver": "2.0",
                "aud": "api://interlock",
                "header": {"typ": "JWT"},
            }
            v1 = {**v2, "iss": f"{issuer.url}/sts/{DIRECTORY}/", "ver": "1.0"}
            app = {"oid": "sp", "sub": "sp", "idtyp": "app"}
            pod = {"kubernetes.io": inside, "sub": "system:serviceaccount:agents:bot", "aud": ["interlock"]}
            actors = {
                "pod": cluster.token(header={"typ": None, "kid": "k1"}, **pod),
                "svc": cluster.token(
                    header={"typ": "JWT"}, iss=None, iat=None, sub="spiffe://prod.example/bot", aud=["interlock"]
                ),
                "app": issuer.token(**{**v2, **app, "azp": "entra-app"}),
                "bot2": issuer.token(sub="bot-app", client_id="bot-app", aud=HERE),
            }
            person = {"oid": "u-ana", "sub": "p", "scp": "x", "roles": ["Support"]}
            users = {
                "ana": shop.own(user="ana", groups=["staff"]),
                "u-ana": issuer.token(**{**v2, **person, "azp": "console"}),
                "u-old": issuer.token(**{**v1, **person, "oid": "u-old", "appid": "console"}),
            }
            for name, actor in actors.items():
                for user, subject in users.items():
                    answer = await shop.exchange(subject_token=subject, actor_token=actor, task="mixed")
                    assert answer.status_code == 200, (name, user, answer.text)
                    session = shop.system.plane.session(answer.json()["access_token"])
                    assert (session.lineage.agent, session.lineage.user, session.lineage.tenant) == (name, user, "acme")
            # Swapped, foreign and misplaced proofs.
            foreign = {**v2, "iss": f"{issuer.url}/{FOREIGN}/v2.0", "tid": FOREIGN}
            wrong = [
                (actors["pod"], actors["pod"]),
                (users["ana"], users["ana"]),
                (actors["app"], users["u-ana"]),
                (issuer.token(**{**foreign, **person, "azp": "console"}), actors["pod"]),
                (users["ana"], issuer.token(**{**foreign, **app, "azp": "entra-app"})),
                # The cluster's other key, which its bundle does not publish for tokens of workloads.
                (
                    users["ana"],
                    cluster.token(
                        header={"typ": "JWT", "kid": "k1"}, iss=None, sub="spiffe://prod.example/bot", aud="interlock"
                    ),
                ),
                # The issuer of people, speaking for a pod.
                (users["ana"], issuer.token(**{**pod, "iss": cluster.url, "header": {"typ": None}})),
            ]
            for subject, actor in wrong:
                refused = await shop.exchange(subject_token=subject, actor_token=actor, task="mixed")
                assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), refused.text
            counted = set()
            while not {"foreign_tenant", "wrong_use", "unknown_key"} <= counted:
                # The process writes them down every second by itself, too.
                await shop.system.flush_refusals()
                counted = {row["code"] for row in await shop.system.database.rows("refusals")}


async def test_a_delegated_token_alone_is_enough_for_the_exchange(shop):
    answer = await shop.exchange(subject_token=shop.token())
    assert answer.status_code == 200, answer.text
    session = shop.system.plane.session(answer.json()["access_token"])
    assert (session.lineage.agent, session.lineage.user) == ("bot2", "ana")
    assert (await shop.exchange(subject_token=shop.own(user="ana", groups=["staff"]))).status_code == 400


async def test_a_users_token_that_was_issued_to_one_agent_is_no_proof_for_another(database_urls, tmp_path, issuer):
    agents = "bot3: {test: {issuer: corp, subject: third-app}}\n"
    tasks = "third: {purpose: x, open_to: [Staff], agents: [bot3, bot2]}\n"
    async with house(database_urls.app, tmp_path, issuer, agents=agents, tasks=tasks) as shop:
        third = issuer.token(sub="third-app", client_id="third-app", aud=HERE)
        passed_on = await shop.exchange(subject_token=shop.token(), actor_token=third, task="third")
        assert passed_on.status_code == 400
        own = issuer.token(sub="bot-app", client_id="bot-app", aud=HERE)
        assert (await shop.exchange(subject_token=shop.token(), actor_token=own, task="third")).status_code == 200


async def test_only_a_persons_own_channel_speaks_to_the_control_plane(shop):
    assert (await shop.ask("GET", "/v1/controls", token=shop.own())).status_code == 200
    for token in (
        shop.token(sub="oki", groups=["operators"]),
        shop.token(sub="oki", groups=["operators"], client_id="whatever"),
        shop.token(sub="oki", groups=["operators"], client_id=None),
        shop.own(act={"sub": "bot-app"}),
        shop.issuer.token(sub="bot-app", client_id="bot-app", groups=["operators"], org="acme-corp", aud=HERE),
    ):
        assert (await shop.ask("GET", "/v1/controls", token=token)).status_code == 401
        assert (await shop.ask("POST", "/v1/agents/bot/fresh", token=token)).status_code == 401
    assert (await shop.ask("GET", "/v1/controls", token=shop.own(groups=["staff"]))).status_code == 403


async def test_an_agent_is_never_a_persons_own_channel_even_by_mistake_of_the_release(database_urls, tmp_path, issuer):
    from tests.identity.house import PEOPLE  # noqa: PLC0415

    async with house(database_urls.app, tmp_path, issuer, people=PEOPLE.replace("[console]", "[console, bot-app]")) as shop:
        answer = await shop.ask("GET", "/v1/controls", token=shop.token(sub="oki", groups=["operators"]))
        assert answer.status_code == 401


async def test_a_release_that_no_longer_trusts_an_issuer_is_obeyed(shop):
    token = shop.token()
    await shop.session(token)
    from tests.identity.house import files  # noqa: PLC0415

    changed = files(shop.issuer.url)
    changed["issuers.yaml"] = changed["issuers.yaml"].replace("delegated: true", "delegated: false")
    await shop.system.plane.releases.put_in_force(changed, by="test")
    await shop.system.heartbeat()
    assert (await shop.call(token)).status_code == 401


async def test_no_release_and_no_database_let_nobody_in(shop):
    token = shop.token()
    pool, shop.system.database._pool = shop.system.database._pool, None
    try:
        with pytest.raises(AttributeError):
            await shop.session(token)
    finally:
        shop.system.database._pool = pool
    with pytest.raises((TokenRefusedError, ExchangeRefusedError)):
        await shop.session(shop.token(client_id="rogue"))


async def test_the_gate_of_one_process_takes_the_session_that_another_opened(shop, database_urls, tmp_path_factory, issuer):
    async with house(database_urls.app, tmp_path_factory.mktemp("two"), issuer, shop=shop.made.shop) as other:
        session = await shop.session(shop.token())
        proposal = Proposal(operation="shop.pay", arguments=b'{"order_id":"A1","amount":"5.00"}')
        first = await shop.made.gate.call(session, proposal)
        again = await other.made.gate.call(session, proposal)
        assert first.structured == again.structured
        assert shop.made.shop.count("pay") == 1
    assert LOOK_AGAIN_S < 60


async def test_sessions_that_are_to_be_looked_up_again_anyway_are_forgotten_as_others_come(shop):
    delegated = shop.system.plane.doors._delegated
    for number in range(8):
        await shop.session(shop.token(sid=f"login-{number}"))
    real = shop.system.clock.monotonic_s
    shop.system.clock.monotonic_s = lambda: real() + LOOK_AGAIN_S
    for number in range(8):
        await shop.session(shop.token(sid=f"later-{number}"))
    assert len(delegated._known) == 8
