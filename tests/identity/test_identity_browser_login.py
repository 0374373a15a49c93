"""Logging in with a real Chromium: at an outside issuer, and through the consent and device pages of the built-in one."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import expect

from tests.identity.lobby import LOGIN, lobby
from tests.login.world import DEVICE, VERIFIER, World, authorize, claims
from tests.page.browser import DEADLINE_MS, browser

expect.set_options(timeout=DEADLINE_MS)
CALLBACK = "http://127.0.0.1:9/callback"


@pytest.fixture
async def town(database_urls, tmp_path, issuer):
    async with lobby(database_urls, tmp_path, issuer, login=LOGIN) as made:
        issuer.provider.interactive = True
        yield made


@pytest.fixture
async def window(running_chromium):
    """A window of one person, in which no script and no policy may complain."""
    async with browser(running_chromium) as opened:
        context = await opened.new_context()
        context.set_default_timeout(DEADLINE_MS)
        page = await context.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message) if message.type == "error" else None)
        yield page
        # The issuer has no icon, and browsers ask for one; everything else that goes wrong is ours.
        assert not [str(error) for error in wrong if "favicon" not in getattr(error, "location", {}).get("url", "")], wrong
        await context.close()


async def test_a_browser_logs_in_at_the_issuer_looks_logs_out_and_is_not_let_in_again(town, window):
    await window.goto(town.house.url + "/")
    await window.get_by_role("link", name="Log in with Corp").click()
    await window.get_by_role("link", name="Go on as oki").click()
    await expect(window.get_by_role("heading", name="Live calls")).to_be_visible()
    assert window.url == town.house.url + "/"
    assert await window.evaluate("document.cookie") == ""
    cookies = {cookie["name"]: cookie for cookie in await window.context.cookies()}
    assert set(cookies) == {"interlock_person", "interlock_way"}
    assert cookies["interlock_person"]["httpOnly"]
    assert cookies["interlock_person"]["sameSite"] == "Strict"
    await window.locator(".who summary").click()
    await expect(window.locator(".menu")).to_contain_text("Operator")
    # Its hour over, the browser goes through the issuer again, with the roles of now.
    await window.goto("about:blank")
    await window.context.clear_cookies(name="interlock_person")
    town.be("oki", "staff")
    await window.goto(town.house.url + "/")
    await window.get_by_role("link", name="Go on as oki").click()
    await window.locator(".who summary").click()
    await expect(window.locator(".menu")).to_contain_text("Staff")
    await window.get_by_role("button", name="Log out").click()
    await expect(window.get_by_label("A login code")).to_be_visible()
    await window.goto(town.house.url + "/")
    await expect(window.get_by_label("A login code")).to_be_visible()


async def test_a_browser_goes_through_the_device_page_and_the_consent_page_of_the_built_in_issuer(town, window):
    world = World(town.house, town.other, town.folder, town.urls)
    asked = await world.ask_device(device_name="a terminal")
    await window.goto(f"{town.house.url}/device?user_code={asked['user_code']}")
    await window.get_by_label("A login code").fill(world.login_code("dev"))
    await window.get_by_role("button", name="Log in with this code").click()
    await window.get_by_role("button", name="Go on").click()
    await expect(window.get_by_role("heading", name="Is this you?")).to_be_visible()
    await expect(window.get_by_text("a terminal")).to_be_visible()
    await window.get_by_role("button", name="Yes, I started this").click()
    await expect(window.get_by_role("heading", name="Let in")).to_be_visible()
    form = {"grant_type": DEVICE, "client_id": "interlock-cli", "device_code": asked["device_code"]}
    issued = (await world.token(**form)).json()
    assert claims(issued["access_token"])["sub"] == "dev"

    client = await world.register(CALLBACK)
    answered = []

    async def caught(route):
        answered.append(route.request.url)
        await route.fulfill(status=200, body="caught")

    await window.route(re.compile(r"127\.0\.0\.1:9/"), caught)
    (town.folder / "directory.yaml").write_text(
        "users: {dev: {tenant: acme, roles: [Staff]}}\nagents: {bot: {subjects: {test: bot}}}\n"
    )
    await window.goto(town.house.url + authorize(town.house.url, client, redirect_uri=CALLBACK))
    await expect(window.get_by_text("An editor")).to_be_visible()
    await window.get_by_label("It acts as").select_option("bot selling")
    await window.get_by_role("button", name="Let it act for me").click()
    await expect(window.get_by_text("caught")).to_be_visible()
    said = {name: values[0] for name, values in parse_qs(urlsplit(answered[0]).query).items()}
    assert said["iss"] == town.house.url
    got = await world.fetch(client, said["code"], redirect_uri=CALLBACK, code_verifier=VERIFIER)
    session = claims(got.json()["access_token"])
    assert (session["sub"], session["act"]["sub"]) == ("dev", "bot")
