"""What ends a person's login to the page, and in every process at once."""

import time

import pytest

from tests.identity.lobby import PERSON, lobby
from tests.identity.test_identity_page_login import ask
from tests.login.world import claims


@pytest.fixture
async def town(database_urls, tmp_path, issuer):
    async with lobby(database_urls, tmp_path, issuer) as made:
        yield made


async def test_a_login_that_took_too_long_begins_again(town):
    async with town.browser() as browser:
        back = await browser.at_issuer(await browser.begin())
        now_us = town.system.clock.wall_us()
        town.system.clock.wall_us = lambda: now_us + 601_000_000
        assert "too long ago" in (await browser.get(back)).text


async def test_a_role_that_was_lost_at_the_issuer_is_noticed_when_the_browser_goes_there_again(town):
    async with town.browser() as browser:
        await browser.login()
        assert claims(browser.token)["roles"] == ["Operator"]
        town.be("oki")
        late_us = town.system.clock.wall_us() + 601_000_000
        old = browser.token
        browser.http.cookies.delete(PERSON)
        # Its time over, the browser is sent there by itself, and nobody has to click.
        answer = await browser.get("/login?next=/")
        assert answer.headers["location"] == "/login/oidc/corp?next=%2F"
        answer = await browser.get(await browser.at_issuer(await browser.begin()))
        assert claims(browser.token)["roles"] == []
        approvals = await town.sql("SELECT roles FROM person WHERE user_id = 'oki'")
        assert [list(row["roles"]) for row in approvals] == [[]], "what they approved counts no longer either"
        town.system.clock.wall_us = lambda: late_us
        assert (await ask(town.house, "/v1/me", old)).status_code == 401


async def test_a_persons_token_lives_an_hour_at_most_whatever_the_issuer_says(town):
    town.issuer.provider.said = {"exp": int(time.time()) + 40_000}
    async with town.browser() as browser:
        await browser.login()
        told = claims(browser.token)
        assert told["exp"] - told["iat"] == 3_600


async def test_a_revocation_reaches_logins_in_every_process_and_what_the_issuer_said_before_it(town):
    async with town.browser() as browser, town.browser(town.other) as elsewhere:
        town.issuer.provider.said = {"iat": int(time.time()) - 30}
        await browser.login()
        await elsewhere.login()
        town.be("boss", "operators")
        town.issuer.provider.said = {}
        async with town.browser() as opened:
            await opened.login()
            body = {"target": "user:oki", "reason": "lost laptop"}
            assert (await ask(town.house, "/v1/revocations", opened.token, body)).status_code == 200
        for house in (town.house, town.other):
            for token in (browser.token, elsewhere.token):
                assert (await ask(house, "/v1/me", token)).status_code == 401
        town.be("oki", "operators")
        town.issuer.provider.said = {"iat": int(time.time()) - 30}
        answer = await browser.login()
        assert "you are refused here (revoked)" in answer.text
        later = await town.sql("SELECT count(*)::int AS n FROM login WHERE user_id = 'oki' AND ended_at IS NULL")
        assert later[0]["n"] == 0


async def test_logging_out_ends_the_login_everywhere_and_nobody_is_logged_in_again_by_itself(town):
    async with town.browser() as browser:
        await browser.login()
        token = browser.token
        done = await browser.post("/logout", form_token=await browser.form_token())
        assert done.status_code == 303
        assert not browser.token
        assert (await browser.get("/login")).status_code == 200
    for house in (town.house, town.other):
        assert (await ask(house, "/v1/me", token)).status_code == 401
    kind, ended = (await town.control_chain())[-1]
    assert (kind, ended["because"]) == ("login.ended", "logged out")


async def test_two_people_of_two_issuers_in_one_browser_are_never_mixed(town):
    # A login at the built-in issuer would be renewed into the place of the person who logged in afterwards.
    from tests.login.world import World  # noqa: PLC0415

    code = World(town.house, town.other, town.folder, town.urls).login_code("dev")
    async with town.browser() as browser:
        assert (await browser.post("/login", token=code)).status_code == 200
        assert browser.http.cookies.get("interlock_login")
        town.be("ana", "staff")
        await browser.login()
        assert not browser.http.cookies.get("interlock_login")
        assert (await ask(town.house, "/v1/me", browser.token)).json()["user"] == "ana"


async def test_an_issuer_that_the_release_trusts_no_longer_has_logged_in_nobody(town):
    async with town.browser() as browser:
        await browser.login()
        token = browser.token
        files = {name: text for name, text in town.system.settings.release_files.items() if name != "issuers.yaml"}
        await town.system.plane.releases.put_in_force(files, by="test")
        assert (await ask(town.house, "/v1/me", token)).status_code == 401
        assert "Corp" not in (await browser.get("/login")).text
        assert (await browser.get("/login/oidc/corp")).status_code == 400
