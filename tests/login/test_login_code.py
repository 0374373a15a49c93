"""A client with a browser: registration, consent, the code, the session it becomes, and everything that tries to get between."""

import asyncio
from urllib.parse import urlsplit

from interlock.identity.login.redirects import is_registered, may_register, origin_of
from tests.login.world import CALLBACK, DIRECTORY, FOREIGN, VERIFIER, answered, authorize, challenge, claims, hidden, process


async def test_a_client_becomes_the_agent_that_the_person_picks_by_the_same_exchange_as_everybody(town):
    client_id = await town.register(name="An <editor>")
    async with town.browser("ana") as browser:
        shown = await browser.get(authorize(browser.url, client_id))
        assert "An &lt;editor&gt;" in shown.text
        assert CALLBACK in shown.text
        assert "nobody has checked it" in shown.text
        back = await browser.consent(client_id)
    said = answered(back)
    assert said["state"] == "state of the client's & own"
    assert said["iss"] == town.house.url
    assert back.headers["location"].startswith(f"{CALLBACK}?")
    answer = await town.fetch(client_id, said["code"])
    assert answer.headers["cache-control"] == "no-store"
    issued = answer.json()
    assert issued["token_type"] == "Bearer"
    session = town.house.plane.session(issued["access_token"])
    assert (session.lineage.tenant, session.lineage.agent, session.lineage.user) == ("acme", "bot", "ana")
    assert (session.task, session.roles, dict(session.attributes)) == ("selling", ("Staff",), {"teams": ("north",)})
    again = (await town.refresh(client_id, issued["refresh_token"], town.other)).json()
    assert again["session_id"] == issued["session_id"]
    assert again["refresh_token"] != issued["refresh_token"]
    started = [body for kind, body in await town.control_chain() if kind == "login.started"][-1]
    assert (started["user"], started["agent"], started["client"]) == ("ana", "bot", "An <editor>")
    assert started["session_id"] == issued["session_id"]


async def test_who_says_no_sends_the_client_home_without_a_code(town):
    client_id = await town.register()
    async with town.browser("ana") as browser:
        said = answered(await browser.consent(client_id, answer="deny"))
    assert said["error"] == "access_denied"
    assert "code" not in said


async def test_people_whose_roles_open_no_task_can_let_nobody_act(town):
    client_id = await town.register()
    async with town.browser("gus") as browser:
        shown = await browser.get(authorize(browser.url, client_id))
        assert "no agent that you may let it be" in shown.text
        form = {"client_id": client_id, "response_type": "code", "redirect_uri": CALLBACK, "code_challenge": challenge()}
        token = hidden((await browser.get("/device")).text)["form_token"]
        more = {"code_challenge_method": "S256", "form_token": token, "answer": "approve", "choice": "bot selling"}
        assert (await browser.post("/oauth/authorize", **form, **more)).status_code == 400


async def test_a_client_stays_the_agent_it_became(town):
    client_id = await town.register()
    await town.code(client_id, choice="bot selling")
    async with town.browser("ana") as browser:
        shown = await browser.get(authorize(browser.url, client_id))
        assert "idle" not in shown.text
        assert (await browser.consent(client_id, choice="idle selling")).status_code == 400


async def test_a_code_is_used_once_and_a_second_use_ends_what_came_of_the_first(town):
    client_id = await town.register()
    code = await town.code(client_id)
    issued = (await town.fetch(client_id, code)).json()
    assert (await town.fetch(client_id, code)).json()["error"] == "invalid_grant"
    assert (await town.refresh(client_id, issued["refresh_token"])).json()["error"] == "invalid_grant"
    rows = await town.sql("SELECT revoked FROM session WHERE session_id = $1", issued["session_id"])
    assert rows[0]["revoked"], "the session that the first use opened is over, on every process"
    ended = [body for kind, body in await town.control_chain() if kind == "login.ended"]
    assert "twice" in ended[-1]["because"]


async def test_of_many_that_fetch_one_code_at_once_at_most_one_gets_it(town):
    client_id = await town.register()
    code = await town.code(client_id)
    answers = await asyncio.gather(*(town.fetch(client_id, code) for _ in range(6)))
    got = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(got) <= 1
    for issued in got:
        assert (await town.refresh(client_id, issued["refresh_token"])).status_code == 400
    live = await town.sql("SELECT 1 FROM session WHERE NOT revoked")
    assert not live


async def test_a_refresh_token_is_used_once_and_a_second_use_ends_the_login(town):
    client_id = await town.register()
    first = (await town.fetch(client_id, await town.code(client_id))).json()
    second = (await town.refresh(client_id, first["refresh_token"])).json()
    assert (await town.refresh(client_id, first["refresh_token"], town.other)).json()["error"] == "invalid_grant"
    assert (await town.refresh(client_id, second["refresh_token"])).json()["error"] == "invalid_grant"
    rows = await town.sql("SELECT revoked FROM session WHERE session_id = $1", first["session_id"])
    assert rows[0]["revoked"]


async def test_of_two_processes_that_renew_at_once_one_does_and_the_login_is_over(town):
    client_id = await town.register()
    first = (await town.fetch(client_id, await town.code(client_id))).json()
    answers = await asyncio.gather(
        *(town.refresh(client_id, first["refresh_token"], house) for house in (town.house, town.other))
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 400], [400, 400])
    for issued in (answer.json() for answer in answers if answer.status_code == 200):
        assert (await town.refresh(client_id, issued["refresh_token"])).status_code == 400


NOT_BOUND = (
    {"code_verifier": "w" * 43},
    {"code_verifier": ""},
    {"code_verifier": None},
    {"code_verifier": challenge()},
    {"redirect_uri": "http://127.0.0.1:4712/callback"},
    {"redirect_uri": None},
    {"resource": "https://elsewhere.example/mcp"},
    {"client_id": "interlock-cli"},
    {"client_id": ""},
)


async def test_a_code_is_of_no_use_to_who_does_not_hold_all_it_is_bound_to_and_is_spent_by_trying(town):
    client_id = await town.register()
    async with town.browser("ana") as browser:
        for change in NOT_BOUND:
            code = await town.code(client_id, browser=browser)
            answer = await town.fetch(**{"client_id": client_id, "code": code, **change})
            assert answer.json()["error"] == "invalid_grant", change
            assert (await town.fetch(client_id, code)).json()["error"] == "invalid_grant", change
    assert not await town.sql("SELECT 1 FROM session WHERE NOT revoked")


async def test_a_code_of_one_client_is_of_no_use_to_another(town):
    one, other = await town.register(), await town.register()
    code = await town.code(one)
    assert (await town.fetch(other, code)).json()["error"] == "invalid_grant"
    assert (await town.fetch(one, code)).json()["error"] == "invalid_grant"


async def test_a_refresh_token_in_another_clients_hands_ends_the_login(town):
    one, other = await town.register(), await town.register()
    issued = (await town.fetch(one, await town.code(one))).json()
    assert (await town.refresh(other, issued["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await town.refresh(one, issued["refresh_token"])).json()["error"] == "invalid_grant"


async def test_codes_and_refresh_tokens_of_one_kind_are_none_of_another(town):
    client_id = await town.register()
    code = await town.code(client_id)
    assert (await town.refresh(client_id, code)).json()["error"] == "invalid_grant"
    issued = (await town.fetch(client_id, code)).json()
    for wrong in (issued["refresh_token"], issued["access_token"]):
        assert (await town.fetch(client_id, wrong)).json()["error"] == "invalid_grant"
    async with town.house.http() as http:
        for wrong in (issued["refresh_token"], issued["access_token"]):
            answer = await http.get("/v1/controls", headers={"authorization": f"Bearer {wrong}"})
            assert answer.status_code == 401, "what a client holds never speaks as the person"


async def test_a_code_that_is_older_than_a_minute_is_refused(town):
    client_id = await town.register()
    code = await town.code(client_id)
    await town.sql("UPDATE login_code SET expires_at = clock_timestamp() - interval '1 second'")
    assert (await town.fetch(client_id, code)).json()["error"] == "invalid_grant"


BROKEN = (
    ({"code_challenge": None, "code_challenge_method": None}, "PKCE"),
    ({"code_challenge_method": "plain", "code_challenge": VERIFIER}, "PKCE"),
    ({"code_challenge_method": None}, "PKCE"),
    ({"code_challenge": "short"}, "PKCE"),
    ({"response_type": "token"}, "code"),
    ({"response_mode": "fragment"}, "query"),
    ({"resource": "https://elsewhere.example/mcp"}, "something else"),
    ({"redirect_uri": "https://evil.example/"}, "has not registered"),
    ({"redirect_uri": "http://127.0.0.1:4711/callback/../evil"}, "has not registered"),
    ({"redirect_uri": "http://127.0.0.1:4711/callback?x=1"}, "has not registered"),
    ({"redirect_uri": "http://127.0.0.1:4711/callback#x"}, "has not registered"),
    ({"redirect_uri": "http://localhost:4711/callback"}, "has not registered"),
    ({"redirect_uri": "http://127.0.0.1@evil.example:4711/callback"}, "has not registered"),
    ({"redirect_uri": None}, "has not registered"),
    ({"state": "s" * 601}, "state"),
    ({"client_id": "cli_nobody"}, "not registered here"),
    ({"client_id": "interlock-cli"}, "not registered here"),
)


async def test_a_request_that_does_not_hold_is_told_to_the_person_and_sends_nobody_anywhere(town):
    client_id = await town.register()
    async with town.browser("ana") as browser:
        good = hidden((await browser.get(authorize(browser.url, client_id))).text)
        for change, said in BROKEN:
            answer = await browser.get(authorize(browser.url, **{"client_id": client_id, **change}))
            assert answer.status_code == 400, change
            assert said in answer.text
            assert "location" not in answer.headers
            changed = {name: value for name, value in {**good, **change}.items() if value is not None}
            answer = await browser.post("/oauth/authorize", **changed, choice="bot selling", answer="approve")
            assert answer.status_code == 400, change
            assert "location" not in answer.headers
    assert not await town.sql("SELECT 1 FROM login_code")


async def test_a_parameter_that_stands_twice_is_refused(town):
    client_id = await town.register()
    async with town.browser("ana") as browser:
        answer = await browser.get(authorize(browser.url, client_id) + "&redirect_uri=https%3A%2F%2Fevil.example%2F")
    assert answer.status_code == 400


async def test_a_port_of_the_loopback_address_may_be_another_and_nothing_else(town):
    client_id = await town.register("http://127.0.0.1/callback", "http://[::1]:1/callback")
    for uri in ("http://127.0.0.1:50123/callback", "http://[::1]:50123/callback"):
        said = await town.code(client_id, redirect_uri=uri)
        assert (await town.fetch(client_id, said, redirect_uri=uri)).status_code == 200


async def test_no_other_site_consents_for_a_person(town):
    client_id = await town.register()
    async with town.browser("oki") as other:
        stolen = hidden((await other.get("/device")).text)["form_token"]
    async with town.browser("ana") as browser:
        shown = await browser.get(authorize(browser.url, client_id))
        fields = {**hidden(shown.text), "choice": "bot selling", "answer": "approve"}
        for headers in FOREIGN:
            assert (await browser.post("/oauth/authorize", headers, **fields)).status_code == 403, headers
        # What is read into one login's page is of no use in another's.
        for wrong in ("", "0" * 64, stolen):
            assert (await browser.post("/oauth/authorize", **{**fields, "form_token": wrong})).status_code == 403
    assert not await town.sql("SELECT 1 FROM login_code")


async def test_the_consent_page_may_not_be_framed_and_sends_its_form_here_or_to_the_client_only(town):
    client_id = await town.register()
    async with town.browser("ana") as browser:
        headers = (await browser.get(authorize(browser.url, client_id))).headers
    assert headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:4711;" in policy
    assert "script-src 'self'" in policy


async def test_an_address_on_another_computer_is_said_to_be_one(town):
    client_id = await town.register("https://far.example/cb")
    async with town.browser("ana") as browser:
        shown = await browser.get(authorize(browser.url, client_id, redirect_uri="https://far.example/cb"))
    assert "That is another computer" in shown.text


async def test_who_is_not_logged_in_logs_in_first_and_comes_back_to_the_same_question(town):
    client_id = await town.register()
    async with town.browser() as browser:
        sent = await browser.get(authorize(browser.url, client_id))
        assert sent.status_code == 303
        there = urlsplit(sent.headers["location"])
        assert there.path == "/login"
        from_elsewhere = await browser.get(authorize(browser.url, client_id), **{"sec-fetch-site": "cross-site"})
        assert 'http-equiv="refresh"' in from_elsewhere.text, "a Strict cookie comes along only with the next step"
        asked = await browser.get(sent.headers["location"])
        back = await browser.post("/login", token=town.login_code("ana"), **hidden(asked.text))
        assert f"client_id={client_id}" in back.text


NEEDED_BY_NOBODY = (
    (),
    ("http://evil.example/",),
    ("javascript:alert(1)",),
    ("data:text/html,x",),
    ("file:///etc/passwd",),
    ("https://user@evil.example/",),
    ("https://evil.example/#frag",),
    ("https://evil.example;script-src/",),
    ("http://127.0.0.1.evil.example/cb",),
    ("http://localhost.evil.example/cb",),
    ("https://",),
    ("myapp:/cb",),
    ("HTTPS://evil.example/",),
    ("https://evil.example/a b",),
    ("//evil.example/",),
    (CALLBACK,) * 9,
)


async def test_addresses_that_no_honest_client_needs_cannot_be_registered(town):
    async with town.house.http() as http:
        for uris in NEEDED_BY_NOBODY:
            answer = await http.post("/oauth/register", json={"redirect_uris": uris})
            assert answer.status_code == 400, uris
            assert answer.json()["error"] == "invalid_redirect_uri"


def test_addresses_are_compared_to_the_letter_but_for_loopback_ports():
    assert may_register("cursor://anysphere.cursor-mcp/oauth/callback")
    assert may_register("com.example.app:/cb")
    assert origin_of("cursor://anysphere.cursor-mcp/oauth/callback") == "cursor:"
    assert is_registered("http://127.0.0.1:1/cb", ("http://127.0.0.1:2/cb",))
    assert not is_registered("http://127.0.0.1:1/cb", ("http://[::1]:1/cb",))
    assert not is_registered("http://127.0.0.1:1/cb", ("https://127.0.0.1:1/cb",))
    assert not is_registered("https://a.example:1/cb", ("https://a.example:2/cb",))
    assert not is_registered("http://127.0.0.1:1/CB", ("http://127.0.0.1:1/cb",))
    assert not is_registered("http://127.0.0.1:99999/cb", ("http://127.0.0.1:1/cb",))


async def test_clients_cannot_fill_the_database(town):
    await town.sql(
        "INSERT INTO oauth_client (client_id, environment, name, redirect_uris) "
        "SELECT 'c' || n, 'test', 'x', '{}' FROM generate_series(1, 30) n"
    )
    async with town.house.http() as http:
        answer = await http.post("/oauth/register", json={"redirect_uris": [CALLBACK]})
    assert answer.json()["error"] == "temporarily_unavailable"


async def test_the_client_goes_on_only_as_long_as_the_person_may_and_the_session_lasts(town):
    client_id = await town.register()
    issued = (await town.fetch(client_id, await town.code(client_id))).json()
    town.say(DIRECTORY.replace("[Staff]", "[Guest]"))
    assert (await town.refresh(client_id, issued["refresh_token"])).json()["error"] == "invalid_grant"
    town.say(DIRECTORY)
    again = (await town.refresh(client_id, issued["refresh_token"])).json()
    assert again["session_id"] == issued["session_id"], "a refusal that passes costs nobody the login"
    session = town.house.plane.session(again["access_token"])
    rows = await town.sql("SELECT extract(epoch FROM expires_at)::float8 AS until FROM login WHERE client_id = $1", client_id)
    assert abs(rows[0]["until"] - session.expires_at_us / 1e6) < 1
    await town.sql("UPDATE login SET expires_at = clock_timestamp() - interval '1 second' WHERE client_id = $1", client_id)
    assert (await town.refresh(client_id, again["refresh_token"])).json()["error"] == "invalid_grant"


async def test_the_metadata_says_what_is_there(town):
    async with town.house.http() as http:
        said = (await http.get("/.well-known/oauth-authorization-server")).json()
        assert said["issuer"] == town.house.url
        assert said["code_challenge_methods_supported"] == ["S256"]
        assert said["token_endpoint_auth_methods_supported"] == ["none"]
        assert said["authorization_response_iss_parameter_supported"] is True
        for name in ("registration_endpoint", "device_authorization_endpoint", "revocation_endpoint", "token_endpoint"):
            assert said[name].startswith(f"{town.house.url}/oauth/")
            assert (await http.post(said[name])).status_code == 400
        assert (await http.get(said["authorization_endpoint"])).status_code == 400


async def test_a_token_of_a_client_is_a_token_for_this_environment_alone(town):
    client_id = await town.register()
    issued = (await town.fetch(client_id, await town.code(client_id))).json()
    assert claims(issued["access_token"])["aud"] == "interlock:test"


async def test_a_process_that_goes_in_the_middle_takes_nothing_along(town):
    async with process(town.urls, town.folder, town.house.shop) as going, town.browser("ana", going) as browser:
        client_id = await town.register()
        code = answered(await browser.consent(client_id))["code"]
        key = browser.http.cookies["interlock_login"]
    issued = await town.fetch(client_id, code, resource=None)
    assert town.house.plane.session(issued.json()["access_token"]).lineage.user == "ana"
    async with town.browser() as browser:
        assert (await browser.get("/device", cookie=f"interlock_login={key}")).status_code == 200
