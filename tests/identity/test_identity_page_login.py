"""People of an outside issuer log in to the page: what holds, and what is refused."""

import asyncio
import time

import pytest

from interlock.identity.persons import KEY
from interlock.identity.tokens import OURS, sign
from tests.identity.lobby import PERSON, asked_of, changed, lobby
from tests.login.world import claims
from tests.support.issuer import DIRECTORY, FOREIGN, local_issuer


@pytest.fixture
async def town(database_urls, tmp_path, issuer):
    async with lobby(database_urls, tmp_path, issuer) as made:
        yield made


async def ask(house, path, token, body=None):
    async with house.http() as http:
        headers = {"authorization": f"Bearer {token}"}
        return await (http.get(path, headers=headers) if body is None else http.post(path, headers=headers, json=body))


async def logged_out(browser):
    return (await browser.get("/v1/me")).status_code == 401 and PERSON not in browser.http.cookies


async def test_a_person_logs_in_at_the_issuer_and_every_process_knows_them_by_its_claims(town):
    async with town.browser() as browser:
        shown = await browser.get("/login?next=/page/trace/x")
        assert 'href="/login/oidc/corp?next=%2Fpage%2Ftrace%2Fx"' in shown.text
        assert "Log in with Corp" in shown.text
        url = await browser.begin(next_path="/page/trace/x")
        asked = asked_of(url)
        assert url.startswith(town.issuer.url)
        assert (asked["client_id"], asked["code_challenge_method"], asked["scope"]) == ("page", "S256", "openid")
        assert asked["redirect_uri"] == f"{town.house.url}/login/oidc/corp/callback"
        assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
        answer = await browser.get(await browser.at_issuer(url), sec_fetch_site="cross-site")
        assert answer.status_code == 200
        assert 'content="0;url=/page/trace/x"' in answer.text
        said = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(PERSON))
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in said.split(";")}
        token = browser.token
    told = claims(token)
    assert (told["iss"], told["interlock_use"]) == (OURS, "user")
    assert told["exp"] - told["iat"] <= 600, "no longer than the issuer's own"
    for house in (town.house, town.other):
        assert (await ask(house, "/v1/me", token)).json() == {"user": "oki", "tenant": "acme", "roles": ["Operator"]}
        assert (await ask(house, "/v1/controls", token)).status_code == 200
    kind, started = (await town.control_chain())[-1]
    assert (kind, started["how"], started["user"], started["client_id"]) == (
        "login.started",
        "the issuer corp",
        "oki",
        "interlock-page",
    )


async def test_what_waits_for_a_person_is_approved_on_the_page_by_a_lead_of_the_issuer(town):
    session = await town.house.made.session()
    told = await town.house.made.call(session, "refund", order_id="A1", amount="80.00")
    (asked,) = told.details["approvals"]
    town.be("lee", "leads")
    async with town.browser(town.other) as browser:
        assert (await browser.login()).status_code == 200
        assert asked["id"] in (await browser.get("/")).text
        form = {"form_token": await browser.form_token(), "to": "approve"}
        done = await browser.post(f"/page/approvals/{asked['id']}", **form)
        assert done.status_code == 200, done.text
    approval = await town.system.approvals.get(asked["id"])
    assert (approval.state.value, approval.answered_by) == ("approved", "lee")
    done = await town.house.made.call(session, "refund", order_id="A1", amount="80.00")
    assert type(done).__name__ == "Returned"


async def test_the_token_speaks_for_the_person_to_the_control_plane_and_opens_nothing_else(town):
    town.be("ana", "staff")
    async with town.browser() as browser:
        await browser.login()
        token = browser.token
        attempt = next(
            cookie.value
            for cookie in [*(await _begun(browser)).http.cookies.jar]
            if cookie.name.startswith("interlock_attempt_")
        )
    plane = town.house.plane
    issuer = town.house.made.system.keys
    assert (await ask(town.house, "/mcp", token, {})).status_code == 401
    assert (await ask(town.house, "/v1/sessions", token, {})).status_code in (400, 401, 405)
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "actor_token": token,
        "task": "selling",
    }
    async with town.house.http() as http:
        assert (await http.post("/oauth/token", data=form)).json()["error"] == "invalid_grant"
    assert (await ask(town.house, "/v1/me", attempt)).status_code == 401, "nor is what the browser holds meanwhile a token"
    session = plane._tokens.issue(await town.house.made.session())
    assert (await ask(town.house, "/v1/me", session)).status_code == 401
    told = claims(token)
    for wrong in (
        {"interlock_use": "session"},
        {"interlock_use": "agent"},
        {"interlock_by": "other"},
        {"interlock_iss": "https://elsewhere.example"},
        {"interlock_told_us": None},
        {"interlock_login": None},
        {"aud": "interlock:prod"},
        {"exp": told["iat"] + 3_700},
    ):
        forged = sign({**told, **wrong}, issuer.signing(KEY))
        assert (await ask(town.house, "/v1/me", forged)).status_code == 401, wrong
    with_session_key = sign(told, issuer.signing("session"))
    assert (await ask(town.house, "/v1/me", with_session_key)).status_code == 401


async def _begun(browser):
    await browser.begin()
    return browser


async def test_a_stolen_answer_is_of_no_use_without_the_browser_that_asked(town):
    async with town.browser() as browser, town.browser() as thief:
        back = await browser.at_issuer(await browser.begin())
        assert "did not begin this login" in (await thief.get(back)).text
        # With a login of their own under way the thief has a cookie, and it is of another login.
        await thief.begin()
        answer = await thief.get(back)
        assert (answer.status_code, thief.token) == (400, "")
        own = next(c.value for c in thief.http.cookies.jar if c.name.startswith("interlock_attempt_"))
        name = next(c.name for c in browser.http.cookies.jar if c.name.startswith("interlock_attempt_"))
        answer = await thief.get(back, cookie=f"{name}={own}")
        assert "belongs to another login" in answer.text
        assert (await browser.get(back)).status_code == 200, "and the person goes on"


async def test_nobody_is_logged_in_by_somebody_elses_answer(town):
    async with town.browser() as attacker, town.browser() as victim:
        back = await attacker.at_issuer(await attacker.begin())
        await victim.begin()
        assert (await victim.get(back)).status_code == 400
        assert victim.token == ""


async def test_an_answer_is_taken_once_by_all_processes_together(town):
    async with town.browser() as browser, town.browser(town.other) as other:
        back = await browser.at_issuer(await browser.begin())
        cookie = next(f"{c.name}={c.value}" for c in browser.http.cookies.jar if c.name.startswith("interlock_attempt_"))
        there = {"host": town.house.url.removeprefix("http://"), "cookie": cookie}
        path = back.removeprefix(town.house.url)
        answers = await asyncio.gather(*(one.get(path, **there) for one in (browser, other) * 3))
        assert sorted(answer.status_code for answer in answers) == [200, *[400] * 5]
        assert (await other.get(path, **there)).status_code == 400
        assert sum("oidc" in form.get("code", "") for form in town.issuer.provider.forms) == 1, "the code is not shown twice"


async def test_an_answer_that_began_at_one_process_ends_at_another(town):
    async with town.browser() as browser, town.browser(town.other) as other:
        back = await browser.at_issuer(await browser.begin())
        cookie = next(f"{c.name}={c.value}" for c in browser.http.cookies.jar if c.name.startswith("interlock_attempt_"))
        host = town.house.url.removeprefix("http://")
        answer = await other.get(back.removeprefix(town.house.url), host=host, cookie=cookie)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("said", "because"),
    [
        ({"nonce": "another"}, "claims"),
        ({"nonce": None}, "claims"),
        ({"aud": "console"}, "audience"),
        ({"aud": ["page", "console"]}, "audience"),
        ({"azp": "console"}, "audience"),
        ({"iss": "https://elsewhere.example"}, "issuer"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "claims"),
        ({"iat": None}, "claims"),
        ({"iat": int(time.time()) - 86_400}, "expired"),
        ({"iat": int(time.time()) + 86_400}, "not_yet"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "claims"),
        ({"org": "unknown-corp"}, "foreign_tenant"),
        ({"org": None}, "claims"),
        ({"sub": None}, "claims"),
        ({"sub": "page"}, "not_a_person"),
        ({"groups": {"a": 1}}, "claims"),
    ],
)
async def test_an_id_token_that_is_not_of_this_very_login_logs_nobody_in(town, said, because):
    town.issuer.provider.said = said
    async with town.browser() as browser:
        answer = await browser.login()
        assert (answer.status_code, browser.token) == (400, "")
        assert f"({because})" in answer.text
        town.issuer.provider.said = {}
        assert (await browser.login()).status_code == 200


async def test_an_id_token_of_another_signature_or_kind_logs_nobody_in(town):
    issuer = town.issuer
    async with town.browser() as browser:
        for header in ({"typ": "at+jwt"}, {"kid": "unknown"}, {"kid": None}):
            issuer.provider.header = header
            assert (await browser.login()).status_code == 400, header
        issuer.provider.header = {}
        assert (await browser.login()).status_code == 200


async def test_an_id_token_is_no_access_token_afterwards(town):
    town.be("oki", "operators")
    provider, given = town.issuer.provider, []
    tokens = provider.tokens

    def noted(*arguments, **more):
        given.append(tokens(*arguments, **more))
        return given[-1]

    provider.tokens = noted
    async with town.browser() as browser:
        assert (await browser.login()).status_code == 200
    for name in ("id_token", "access_token"):
        # Nor is the access token of the page's own client one of a person's own channel.
        assert (await ask(town.house, "/v1/me", given[0][name])).status_code == 401


async def test_answers_of_mixed_up_issuers_are_refused(database_urls, tmp_path, issuer):
    async with local_issuer() as evil:
        more = f"""
evil:
  kind: oidc
  issuer: {evil.url}
  environments: {{test: ["{issuer.url}/other"]}}
  people: {{user: sub, tenant: {{fixed: globex}}, roles: {{claim: groups}}, clients: [console]}}
  login: {{client_id: page}}
"""
        async with lobby(database_urls, tmp_path, issuer, more=more) as town, town.browser() as browser:
            for place in (town.house, town.other):
                evil.provider.clients.setdefault("page", {"secret": "", "redirects": []})
                evil.provider.clients["page"]["redirects"].append(f"{place.url}/login/oidc/evil/callback")
            # The person begins at the evil issuer, which sends them on to the honest one and catches the code there.
            url = await browser.begin("evil")
            at_corp = changed(url.replace(evil.url, issuer.url), redirect_uri=f"{town.house.url}/login/oidc/corp/callback")
            back = await browser.at_issuer(at_corp)
            assert "belongs to another login" in (await browser.get(back)).text
            to_evil = back.replace("/corp/", "/evil/")
            url = await browser.begin("evil")
            said = changed(to_evil, state=asked_of(url)["state"])
            assert "another issuer" in (await browser.get(said)).text, "iss says whose answer it is (RFC 9207)"
            url = await browser.begin("evil")
            said = changed(to_evil, state=asked_of(url)["state"], iss=None)
            assert "another issuer" in (await browser.get(said)).text, "an issuer that says who it is does so always"
            assert not evil.provider.forms, "the honest issuer's code is shown to nobody else"
            # An evil issuer that gives an ID token of the honest one: right signature, wrong door.
            evil.provider.said = {"iss": issuer.url}
            evil.keys, evil.newest = issuer.keys, issuer.newest
            assert (await browser.login("evil")).status_code == 400
            assert browser.token == ""


async def test_what_the_answer_says_must_fit_and_stand_once(town):
    async with town.browser() as browser:
        for wrong, words in (
            ({"iss": "https://elsewhere.example"}, "another issuer"),
            ({"code": None, "error": "access_denied"}, "let nobody in"),
            ({"error": "access_denied"}, "let nobody in"),
            ({"code": "x" * 5_000}, "gave no answer"),
            ({"code": "made-up"}, "refuses the login"),
            ({"state": ""}, "did not begin"),
            ({"state": "é"}, "did not begin"),
        ):
            back = await browser.at_issuer(await browser.begin())
            answer = await browser.get(changed(back, **wrong))
            assert (answer.status_code, words in answer.text) == (400, True), (wrong, answer.text)
        back = await browser.at_issuer(await browser.begin())
        assert "more than once" in (await browser.get(back + "&code=other")).text
        assert browser.token == ""


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_after_the_issuer_nobody_is_sent_elsewhere(town, target):
    async with town.browser() as browser:
        assert 'content="0;url=/"' in (await browser.login(next_path=target)).text


async def test_pictures_frames_and_scripts_begin_no_login(town):
    async with town.browser() as browser:
        for kind in ("image", "iframe", "empty", "script"):
            assert (await browser.get("/login/oidc/corp", sec_fetch_dest=kind)).status_code == 400
        assert (await browser.get("/login/oidc/nobody")).status_code == 400


async def test_the_cookie_of_a_login_under_way_is_lax_hidden_and_short(town):
    async with town.browser() as browser:
        said = (await browser.get("/login/oidc/corp")).headers["set-cookie"]
        parts = {part.strip() for part in said.split(";")}
        assert {"HttpOnly", "SameSite=lax", "Path=/login/oidc/", "Max-Age=600"} <= parts
        assert "Secure" not in parts


async def test_an_agents_client_is_no_persons_page(database_urls, tmp_path, issuer):
    agents = "page-bot:\n  test: {issuer: corp, subject: page}\n"
    login = "{client_id: page}\n  agents: {delegated: true}"
    async with lobby(database_urls, tmp_path, issuer, agents=agents, login=login) as town, town.browser() as browser:
        assert "(client)" in (await browser.login()).text


@pytest.mark.parametrize("basic", [True, False])
async def test_a_client_with_a_secret_proves_it_as_the_issuer_wants(database_urls, tmp_path, issuer, monkeypatch, basic):
    monkeypatch.setenv("PAGE_SECRET", "s:e/c%ret")
    issuer.provider.clients["page"] = {"secret": "s:e/c%ret", "redirects": []}
    issuer.provider.document = {} if basic else {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    login = "{client_id: page, secret: env:PAGE_SECRET}"
    async with lobby(database_urls, tmp_path, issuer, login=login) as town, town.browser() as browser:
        assert (await browser.login()).status_code == 200
        assert ("client_secret" in issuer.provider.forms[-1]) is not basic
        monkeypatch.delenv("PAGE_SECRET")
        assert (await browser.login()).status_code == 400


async def test_roles_come_from_userinfo_where_the_release_says_so(database_urls, tmp_path, issuer):
    login = "{client_id: page, claims: userinfo}"
    async with lobby(database_urls, tmp_path, issuer, login=login) as town, town.browser() as browser:
        issuer.provider.said = {"groups": None}
        issuer.provider.more_userinfo = {"groups": ["leads"], "org": "globex-corp"}
        await browser.login()
        told = claims(browser.token)
        assert (told["roles"], told["tenant"]) == (["Lead"], "acme"), "what is signed is not overruled by what is not"
        browser.http.cookies.delete(PERSON)
        issuer.provider.more_userinfo = {"groups": ["leads"], "sub": "somebody else"}
        assert (await browser.login()).status_code == 400
        assert not browser.token


async def test_roles_come_from_the_access_token_where_the_release_says_so(database_urls, tmp_path, issuer):
    login = "{client_id: page, claims: access_token}"
    async with lobby(database_urls, tmp_path, issuer, login=login) as town, town.browser() as browser:
        issuer.provider.said = {"groups": None, "org": None}
        assert (await browser.login()).status_code == 200
        assert claims(browser.token)["roles"] == ["Operator"]
        issuer.provider.audience = "https://elsewhere.example"
        assert (await browser.login()).status_code == 400


async def test_people_of_an_entra_directory_log_in_by_their_oid_and_those_of_another_do_not(database_urls, tmp_path, issuer):
    more = f"""
entra:
  kind: entra
  issuer: {issuer.url}
  sts: {issuer.url}/sts
  environments: {{test: ["api://interlock"]}}
  tenants: {{{DIRECTORY}: acme, {FOREIGN}: globex}}
  people: {{roles: {{claim: roles}}, clients: [cli]}}
  login: {{client_id: page, directory: {DIRECTORY}}}
"""
    async with lobby(database_urls, tmp_path, issuer, more=more) as town, town.browser() as browser:
        town.knows(town.house, name="entra")
        issuer.user = {"sub": "pairwise", "oid": "o-1", "tid": DIRECTORY, "ver": "2.0", "roles": ["Operator"]}
        issuer.provider.answer_iss = ""
        issuer.provider.said = {"iss": f"{issuer.url}/{DIRECTORY}/v2.0"}
        assert (await browser.login("entra")).status_code == 200
        told = claims(browser.token)
        assert (told["sub"], told["tenant"], told["roles"]) == ("o-1", "acme", ["Operator"])
        assert (await ask(town.other, "/v1/me", browser.token)).status_code == 200
        for said, because in (
            ({"iss": f"{issuer.url}/{FOREIGN}/v2.0", "tid": FOREIGN}, "foreign_tenant"),
            ({"iss": f"{issuer.url}/{DIRECTORY}/v2.0", "tid": FOREIGN}, "claims"),
            ({"iss": f"{issuer.url}/sts/{DIRECTORY}/", "ver": "1.0"}, "foreign_tenant"),
            ({"iss": f"{issuer.url}/{DIRECTORY}/v2.0", "xms_sub_fct": "13"}, "not_a_person"),
        ):
            issuer.provider.said = said
            assert f"({because})" in (await browser.login("entra")).text


@pytest.mark.parametrize(
    "document",
    [
        {"authorization_endpoint": "http://login.corp.example/authorize"},
        {"token_endpoint": "http://login.corp.example/token"},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"issuer": "https://elsewhere.example"},
    ],
)
async def test_an_issuer_whose_document_is_not_to_be_trusted_logs_nobody_in(town, document):
    town.issuer.provider.document = document
    async with town.browser() as browser:
        answer = await browser.get("/login/oidc/corp")
        assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize("trouble", ["broken", "elsewhere", "garbage", "huge"])
async def test_an_issuer_in_trouble_logs_nobody_in(town, trouble):
    town.issuer.trouble = trouble
    async with town.browser() as browser:
        assert (await browser.get("/login/oidc/corp")).status_code == 400
        town.issuer.trouble = None
        assert (await browser.login()).status_code == 200


async def test_behind_a_proxy_the_public_url_is_what_issuer_and_cookies_see(town):
    town.house.router._doors = town.house.plane.doors
    town.house.plane.doors.public_url = "https://interlock.corp.example"
    async with town.browser() as browser:
        answer = await browser.get("/login/oidc/corp")
        assert asked_of(answer.headers["location"])["redirect_uri"] == "https://interlock.corp.example/login/oidc/corp/callback"
        assert "Secure" in answer.headers["set-cookie"]


async def test_people_of_the_issuer_come_in_beside_a_directory_with_rs256_tokens(town):
    town.issuer.rotate("RS256", "rsa1")
    own = town.issuer.token(
        sub="oki", org="acme-corp", groups=["operators"], aud=town.issuer.provider.audience, client_id="console"
    )
    assert claims(own)["sub"] == "oki"
    for house in (town.house, town.other):
        assert (await ask(house, "/v1/me", own)).json()["roles"] == ["Operator"]
        assert (await ask(house, "/v1/controls", own)).status_code == 200
    async with town.browser() as browser:
        answer = await browser.login()
        assert answer.status_code == 200, answer.text
        assert "built-in issuer logs in people of its own directory only" in (await browser.get("/device")).text
    pasted = town.issuer.token(
        sub="oki", org="acme-corp", groups=["operators"], aud=town.issuer.provider.audience, client_id="console"
    )
    async with town.browser() as browser:
        assert (await browser.post("/login", token=pasted)).status_code == 200
