"""A program without a browser is let in by a person who reads its code (RFC 8628)."""

import asyncio

from interlock.identity.exchange import GRANT_TYPE
from interlock.identity.login.codes import MAX_TYPED_CODES, USER_CODE_LENGTH, USER_CODE_SIGNS
from tests.login.world import DEVICE, DIRECTORY, FOREIGN, claims


async def test_a_person_lets_the_command_line_in_and_it_is_them_until_they_log_out(town):
    town.say(DIRECTORY.replace("[Operator]", "[Operator, Staff]"))
    asked = await town.ask_device(device_name="laptop")
    assert set(asked["user_code"].replace("-", "")) <= set(USER_CODE_SIGNS)
    assert len(asked["user_code"]) == USER_CODE_LENGTH + 1
    assert asked["verification_uri"] == f"{town.house.url}/device"
    assert (await town.poll(asked)).json()["error"] == "authorization_pending"
    async with town.browser("oki", town.other) as browser:
        shown = await browser.form("/device", user_code=asked["user_code"].lower().replace("-", " "))
        assert "the interlock command line" in shown.text
        assert "be logged in as <strong>oki</strong>" in shown.text
        assert "laptop" in shown.text
        assert "If somebody else gave you this code, say no" in shown.text
        assert "Let in" in (await browser.answer(asked["user_code"])).text
    issued = (await town.poll(asked)).json()
    assert (await town.house.plane.person(issued["access_token"])).user == "oki"
    assert claims(issued["access_token"])["exp"] - claims(issued["access_token"])["iat"] == issued["expires_in"] == 300
    assert (await town.post("/oauth/revoke", token=issued["refresh_token"])).status_code == 200
    async with town.other.http() as http:
        answer = await http.get("/v1/controls", headers={"authorization": f"Bearer {issued['access_token']}"})
    assert answer.status_code == 401
    assert (await town.refresh("interlock-cli", issued["refresh_token"])).json()["error"] == "invalid_grant"
    exchanged = await town.token(
        grant_type=GRANT_TYPE,
        subject_token=issued["access_token"],
        actor_token=town.issuer().agent_token("bot"),
        task="selling",
    )
    assert exchanged.json()["error"] == "invalid_grant", "and opens no session for an agent either"
    kinds = [(kind, body.get("user", "")) for kind, body in await town.control_chain() if kind.startswith("login.")]
    assert ("login.started", "oki") in kinds
    assert kinds[-1][0] == "login.ended"


async def test_who_says_no_lets_nobody_in_and_nobody_can_change_it(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        assert "Not let in" in (await browser.answer(asked["user_code"], "deny")).text
        assert (await town.poll(asked)).json()["error"] == "access_denied"
        assert (await browser.answer(asked["user_code"])).status_code == 400
    assert (await town.poll(asked)).json()["error"] == "access_denied"


async def test_who_asks_too_often_is_told_to_slow_down_and_more_each_time(town):
    asked = await town.ask_device()
    form = {"grant_type": DEVICE, "client_id": "interlock-cli", "device_code": asked["device_code"]}
    answers = [(await town.token(house, **form)).json()["error"] for house in (town.house, town.other, town.house)]
    assert answers == ["authorization_pending", "slow_down", "slow_down"]
    assert [row["pause_s"] for row in await town.sql("SELECT pause_s FROM login_code")] == [15]


async def test_a_code_that_ran_out_is_of_no_use_to_device_or_person(town):
    asked = await town.ask_device()
    await town.sql("UPDATE login_code SET expires_at = clock_timestamp() - interval '1 second'")
    assert (await town.poll(asked)).json()["error"] == "expired_token"
    async with town.browser("oki") as browser:
        assert "nothing waits under this code" in (await browser.answer(asked["user_code"])).text


async def test_two_people_on_two_processes_answer_one_code_and_the_first_one_counts(town):
    asked = await town.ask_device()
    async with town.browser("oki") as one, town.browser("ana", town.other) as other:
        answers = await asyncio.gather(one.answer(asked["user_code"]), other.answer(asked["user_code"]))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    issued = (await town.poll(asked)).json()
    winner = "oki" if answers[0].status_code == 200 else "ana"
    assert claims(issued["access_token"])["sub"] == winner


async def test_of_many_that_fetch_one_device_code_at_once_one_gets_it_and_the_rest_end_it(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        await browser.answer(asked["user_code"])
    await town.sql("UPDATE login_code SET polled_at = NULL, pause_s = 0")
    form = {"grant_type": DEVICE, "client_id": "interlock-cli", "device_code": asked["device_code"]}
    answers = await asyncio.gather(*(town.token(house, **form) for house in (town.house, town.other) * 4))
    got = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(got) <= 1
    for issued in got:
        assert (await town.refresh("interlock-cli", issued["refresh_token"])).status_code == 400


async def test_guessing_codes_is_stopped_after_a_few_for_good_and_bad_guesses_alike(town):
    asked = await town.ask_device()
    async with town.browser("gus") as browser:
        for guess in range(MAX_TYPED_CODES):
            assert (await browser.form("/device", user_code=f"BBBBBBB{USER_CODE_SIGNS[guess]}")).status_code == 400
        answer = await browser.answer(asked["user_code"])
        assert "too many codes were typed" in answer.text
    async with town.browser("gus", town.other) as browser:
        assert "too many codes were typed" in (await browser.answer(asked["user_code"])).text
    assert (await town.poll(asked)).json()["error"] == "authorization_pending"


async def test_only_registered_clients_may_ask(town):
    for client_id in ("interlock-page", "nobody", ""):
        answer = await town.post("/oauth/device_authorization", client_id=client_id)
        assert answer.json()["error"] == "invalid_client"


async def test_another_client_has_no_use_of_a_device_code(town):
    other = await town.register()
    asked = await town.ask_device()
    assert (await town.poll(asked, other)).json()["error"] == "invalid_grant"
    async with town.browser("oki") as browser:
        await browser.answer(asked["user_code"])
    assert (await town.poll(asked, other)).json()["error"] == "invalid_grant"
    assert (await town.poll(asked)).status_code == 400, "a code that was in two hands is of no use to either"


async def test_a_registered_client_without_a_browser_becomes_the_agent_that_the_person_picks(town):
    client_id = await town.register(name="A terminal")
    asked = await town.ask_device(client_id)
    async with town.browser("ana") as browser:
        assert (await browser.answer(asked["user_code"], choice="bot everything")).status_code == 400
        assert "Let in" in (await browser.answer(asked["user_code"], choice="bot selling")).text
    issued = (await town.poll(asked, client_id)).json()
    session = town.house.plane.session(issued["access_token"])
    assert (session.lineage.agent, session.lineage.user, session.task) == ("bot", "ana", "selling")


async def test_no_other_site_lets_a_device_in(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        for headers in FOREIGN:
            answer = await browser.form("/device", headers, user_code=asked["user_code"], answer="approve")
            assert answer.status_code == 403, headers
        wrong = await browser.post("/device", user_code=asked["user_code"], answer="approve", form_token="0" * 64)
        assert wrong.status_code == 403
    assert (await town.poll(asked)).json()["error"] == "authorization_pending"


async def test_a_link_with_a_code_lets_nothing_in_by_itself(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        shown = await browser.get(f"/device?user_code={asked['user_code']}")
        assert "Only a code that you see in your own terminal" in shown.text
        assert shown.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    assert (await town.poll(asked)).json()["error"] == "authorization_pending"


async def test_what_is_kept_opens_nothing(town):
    asked = await town.ask_device()
    rows = await town.sql("SELECT login_code::text AS kept FROM login_code")
    for secret in (asked["device_code"], asked["user_code"].replace("-", "")):
        assert secret not in rows[0]["kept"]
        assert secret.encode().hex() not in rows[0]["kept"]


async def test_a_login_started_at_one_process_goes_on_at_another_with_the_roles_of_now(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        await browser.answer(asked["user_code"])
    issued = (await town.poll(asked, house=town.other)).json()
    town.say(DIRECTORY.replace("[Operator]", "[Auditor]"))
    issued = (await town.refresh("interlock-cli", issued["refresh_token"], town.other)).json()
    assert claims(issued["access_token"])["roles"] == ["Auditor"]
    town.say(DIRECTORY.replace("  oki:", "  oko:"))
    assert (await town.refresh("interlock-cli", issued["refresh_token"])).json()["error"] == "invalid_grant"
    town.say(DIRECTORY)
    assert (await town.refresh("interlock-cli", issued["refresh_token"])).json()["error"] == "invalid_grant"


async def test_while_the_directory_is_broken_nobody_logs_in_and_nothing_is_lost(town):
    asked = await town.ask_device()
    async with town.browser("oki") as browser:
        await browser.answer(asked["user_code"])
    issued = (await town.poll(asked)).json()
    code = town.login_code("oki")
    town.say("users: [broken")
    assert (await town.refresh("interlock-cli", issued["refresh_token"])).json()["error"] == "temporarily_unavailable"
    async with town.browser() as browser:
        assert (await browser.post("/login", token=code)).status_code == 401
    town.say(DIRECTORY)
    assert (await town.refresh("interlock-cli", issued["refresh_token"])).status_code == 200
