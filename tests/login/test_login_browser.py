"""The page's login: one-time codes, a cookie that is renewed while the login goes on, and an end that everybody sees."""

import asyncio

from interlock.server.login.browser import LOGIN_COOKIE
from tests.login.world import DIRECTORY, PROOF, claims, hidden

PERSON = "interlock_person"


async def test_a_login_code_logs_in_once_on_whichever_process(town):
    code = town.login_code("oki")
    async with town.browser() as browser:
        answer = await browser.post("/login", token=code)
        assert answer.status_code == 200
        said = " ".join(answer.headers.get_list("set-cookie"))
        assert said.count("HttpOnly") == said.lower().count("samesite=strict") == 2
        assert (await town.house.plane.person(browser.http.cookies[PERSON])).user == "oki"
    async with town.browser(house=town.other) as browser:
        assert (await browser.post("/login", token=code)).status_code == 401


async def test_a_login_code_written_otherwise_is_the_same_code(town):
    # The last letter of an Ed25519 signature carries four bits that mean nothing, so a text can be changed and still verify.
    code = town.login_code("oki")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = [code[:-1] + letters[letters.index(code[-1]) // 16 * 16 + spare] for spare in range(16)]
    answers = await asyncio.gather(*(town.token(grant_type=PROOF, assertion=text) for text in same))
    assert sum(answer.status_code == 200 for answer in answers) <= 1
    assert (await town.token(grant_type=PROOF, assertion=code)).status_code == 400


async def test_of_many_that_use_one_code_at_once_one_is_let_in(town):
    code = town.login_code("oki")
    answers = await asyncio.gather(
        *(town.token(house, grant_type=PROOF, assertion=code) for house in (town.house, town.other) * 3)
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[400] * 5]


async def test_what_is_no_login_code_logs_nobody_in(town):
    issuer = town.issuer()
    session = await town.house.made.session()
    for wrong in (
        issuer.user_token("oki"),
        issuer.agent_token("bot"),
        town.house.plane._tokens.issue(session),
        "nonsense",
        "",
        issuer._sign("oki", "login", {"tenant": "acme"}, 600),
        issuer._sign("oki", "login", {"tenant": "globex"}),
        issuer._sign("eve", "login", {"tenant": "acme"}),
    ):
        assert (await town.token(grant_type=PROOF, assertion=wrong)).json()["error"] == "invalid_grant"


async def test_the_cookie_is_renewed_while_the_login_goes_on_with_the_roles_of_now_and_forms_stay_good(town):
    async with town.browser("oki") as browser:
        form = hidden((await browser.get("/device")).text)["form_token"]
        before = browser.http.cookies[PERSON]
        browser.http.cookies.delete(PERSON)
        town.say(DIRECTORY.replace("[Operator]", "[Auditor]"))
        shown = await browser.get("/device")
        assert shown.status_code == 200
        after = browser.http.cookies[PERSON]
        assert claims(before)["roles"] == ["Operator"]
        assert claims(after)["roles"] == ["Auditor"]
        assert hidden(shown.text)["form_token"] == form, "a page that was open goes on working"
        town.say(DIRECTORY.replace("  oki:", "  oko:"))
        browser.http.cookies.delete(PERSON)
        assert (await browser.get("/device")).status_code == 303, "who is not in the directory any more is out"
        town.say(DIRECTORY)
        assert (await browser.get("/device")).status_code == 303, "and stays out"


async def test_a_login_ends_after_its_time_whatever_is_renewed(town):
    async with town.browser("oki") as browser:
        await town.sql("UPDATE login SET expires_at = clock_timestamp() - interval '1 second'")
        assert (await browser.get("/device")).status_code == 303


async def test_logging_out_ends_the_login_everywhere_at_once(town):
    async with town.browser("oki") as browser:
        token, key = browser.http.cookies[PERSON], browser.http.cookies[LOGIN_COOKIE]
        answer = await browser.post("/logout", form_token=hidden((await browser.get("/device")).text)["form_token"])
        assert answer.status_code == 303
        assert not browser.http.cookies.get(PERSON)
        assert not browser.http.cookies.get(LOGIN_COOKIE)
    async with town.browser(house=town.other) as browser:
        for cookies in ({PERSON: token}, {LOGIN_COOKIE: key}, {PERSON: token, LOGIN_COOKIE: key}):
            browser.http.cookies.clear()
            browser.http.cookies.update(cookies)
            assert (await browser.get("/device")).status_code == 303


async def test_logging_in_ends_what_somebody_else_may_have_put_into_the_browser(town):
    async with town.browser("gus") as thief:
        planted = thief.http.cookies[LOGIN_COOKIE]
    async with town.browser() as browser:
        sent = {"cookie": f"{LOGIN_COOKIE}={planted}"}
        assert (await browser.post("/login", sent, token=town.login_code("oki"))).status_code == 200
        assert browser.http.cookies[LOGIN_COOKIE] != planted
    async with town.browser() as thief:
        assert (await thief.get("/device", cookie=f"{LOGIN_COOKIE}={planted}")).status_code == 303


async def test_two_keys_of_the_same_name_are_none(town):
    async with town.browser("oki") as browser:
        key = browser.http.cookies[LOGIN_COOKIE]
    async with town.browser() as other:
        cookie = f"{LOGIN_COOKIE}={key}; {LOGIN_COOKIE}={key}"
        assert (await other.get("/device", cookie=cookie)).status_code == 303
        assert (await other.get("/device", cookie=f"{LOGIN_COOKIE}={key}")).status_code == 200


async def test_the_key_of_a_browser_is_no_token_and_renews_nothing_elsewhere(town):
    async with town.browser("oki") as browser:
        key = browser.http.cookies[LOGIN_COOKIE]
    for text in (key, key[2:]):
        async with town.house.http() as http:
            assert (await http.get("/v1/controls", headers={"authorization": f"Bearer {text}"})).status_code == 401
    assert (await town.refresh("interlock-cli", key[2:])).status_code == 400
    async with town.browser() as browser:
        answer = await browser.get("/device", cookie=f"{LOGIN_COOKIE}={key}")
        assert answer.status_code == 303, "shown by another client it has ended the login"
