"""`interlock login --issuer`: by device code or by a browser on this machine, kept and renewed, at a real issuer."""

import asyncio
import time
import urllib.error
import urllib.request

import msgspec
import pytest

from interlock.cli import login as commands
from interlock.cli import outside, stored
from interlock.cli.caller import Caller
from interlock.cli.output import OK, Failure
from interlock.cli.people import status
from tests.identity.lobby import changed, lobby
from tests.login.world import claims


@pytest.fixture
async def town(database_urls, tmp_path, issuer, monkeypatch):
    monkeypatch.setenv("INTERLOCK_CONFIG", str(tmp_path / "config"))
    async with lobby(database_urls, tmp_path, issuer) as made:
        issuer.provider.clients["console"] = {"secret": "", "redirects": ["loopback"]}
        yield made


async def run(command, *arguments, **options):
    return await asyncio.to_thread(command, *arguments, **options)


def me(town, house=None):
    return Caller(server=(house or town.house).url, environment="test", state=town.folder / "none")


def kept(town):
    (path,) = (town.folder / "config" / "logins").glob("*.json")
    return path


def fetched(url):
    """What a browser on this machine is told; redirects are followed as it does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def person(town, monkeypatch):
    """Somebody at the keyboard, who types the code that the issuer's device endpoint gave."""
    waits = []

    def pause(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            (code,) = [code for code, user in town.issuer.provider.devices.items() if user is None]
            fetched(f"{town.issuer.url}/oidc/activate?user_code={code.upper()}")

    monkeypatch.setattr(commands, "pause", pause)
    return waits


async def test_a_person_logs_in_by_the_issuers_device_code_and_every_command_knows_them(town, person, capsys):
    assert await run(commands.login, issuer="corp", caller=me(town)) == OK
    said = capsys.readouterr().out
    assert f"open {town.issuer.url}/oidc/activate and type DEVICE-1" in said
    assert "oki of acme" in said
    assert person == [5.0, 5.0]
    asked = town.issuer.provider.forms[0]
    assert (asked["client_id"], asked["scope"]) == ("console", "openid offline_access")
    assert asked["resource"] == "https://interlock.example/mcp"
    assert kept(town).stat().st_mode & 0o077 == 0
    assert await run(status, caller=me(town)) == OK
    capsys.readouterr()
    assert await run(commands.whoami, caller=me(town), as_json=True) == OK
    assert msgspec.json.decode(capsys.readouterr().out)["roles"] == ["Operator"]


async def test_its_tokens_are_renewed_at_the_issuer_with_the_roles_of_now(town, person, capsys):
    await run(commands.login, issuer="corp", caller=me(town))
    first = await run(me(town).token)
    assert await run(me(town).token) == first, "a token that is good is not renewed"
    town.be("oki", "staff")
    assert await run(commands.whoami, caller=me(town)) == OK
    assert "roles: Staff" in capsys.readouterr().out
    assert town.issuer.provider.forms[-1]["grant_type"] == "refresh_token"
    town.issuer.provider.rotates = False
    await run(commands.whoami, caller=me(town))
    await run(commands.whoami, caller=me(town))
    town.issuer.provider.refresh.clear()
    with pytest.raises(Failure, match="has ended"):
        await run(commands.whoami, caller=me(town))
    assert not list((town.folder / "config" / "logins").glob("*.json"))


async def test_logging_out_ends_it_at_the_issuer_and_here(town, person):
    await run(commands.login, issuer="corp", caller=me(town))
    key = msgspec.json.decode(kept(town).read_bytes())["refresh_token"]
    assert await run(commands.logout, caller=me(town)) == OK
    assert town.issuer.provider.spent == [key]
    with pytest.raises(Failure, match="nobody is logged in"):
        await run(me(town).token)


async def test_without_device_codes_a_browser_on_this_machine_comes_back_with_a_code(town, monkeypatch, capsys):
    town.issuer.provider.devices_offered = False
    opened = []

    def browser(url):
        opened.append(url)
        # Others on this machine who knock first are told no, and the login goes on.
        there = outside.urlsplit(url)
        back = dict(outside.parse_qsl(there.query))["redirect_uri"]
        assert fetched(f"{back}?code=stolen&state=guess") == 404
        assert fetched(f"{back}?code=stolen") == 404
        assert fetched(url) == 200

    monkeypatch.setattr(outside.webbrowser, "open", browser)
    assert await run(commands.login, issuer="corp", caller=me(town)) == OK
    assert "oki of acme" in capsys.readouterr().out
    (url,) = opened
    assert "code_challenge_method=S256" in url
    assert "redirect_uri=http%3A%2F%2F127.0.0.1%3A" in url
    assert await run(status, caller=me(town)) == OK
    town.issuer.provider.answer_iss = "https://elsewhere.example"
    with pytest.raises(Failure, match="another issuer"):
        await run(commands.login, issuer="corp", caller=me(town))


async def test_a_person_who_says_no_is_not_logged_in(town, monkeypatch):
    town.issuer.provider.devices_offered = False

    def browser(url):
        asked = dict(outside.parse_qsl(outside.urlsplit(url).query))
        iss = town.issuer.url
        assert fetched(changed(asked["redirect_uri"], state=asked["state"], error="access_denied", iss=iss)) == 200

    monkeypatch.setattr(outside.webbrowser, "open", browser)
    with pytest.raises(Failure, match="access_denied"):
        await run(commands.login, issuer="corp", caller=me(town))


async def test_the_server_says_which_issuers_there_are_and_no_secret(town):
    async with town.house.http() as http:
        said = (await http.get("/.well-known/oauth-protected-resource")).json()
    (offer,) = said["interlock_logins"]
    assert offer == {
        "name": "corp",
        "title": "Corp",
        "issuer": town.issuer.url,
        "discovery": f"{town.issuer.url}/.well-known/openid-configuration",
        "client_id": "console",
        "scopes": ["openid", "offline_access"],
        "resource": "https://interlock.example/mcp",
    }
    with pytest.raises(Failure, match="do not log in at 'other'") as caught:
        await run(commands.login, issuer="other", caller=me(town))
    assert "corp" in caught.value.hint


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"issuer": "https://elsewhere.example"}, "speaks for"),
        ({"token_endpoint": "http://login.corp.example/token"}, "not https"),
        ({"device_authorization_endpoint": "http://login.corp.example/device"}, "not https"),
        ({"token_endpoint": None}, "no discovery document"),
    ],
)
async def test_an_issuer_that_sends_people_elsewhere_is_not_followed(town, person, document, words):
    town.issuer.provider.document = document
    with pytest.raises(Failure, match=words):
        await run(commands.login, issuer="corp", caller=me(town))


async def test_a_login_that_the_server_does_not_take_is_not_kept(town, person):
    town.issuer.provider.audience = "https://elsewhere.example"
    with pytest.raises(Failure, match="the token is refused"):
        await run(commands.login, issuer="corp", caller=me(town))
    assert not list((town.folder / "config" / "logins").glob("*.json"))


async def test_without_a_refresh_token_a_login_ends_with_its_access_token(town, person):
    await run(commands.login, issuer="corp", caller=me(town))
    login = msgspec.json.decode(kept(town).read_bytes(), type=stored.StoredLogin)
    short = msgspec.structs.replace(login, refresh_token="", expires_at_s=time.time() + 10)
    kept(town).write_bytes(msgspec.json.encode(short))
    assert claims(await run(me(town).token))["sub"] == "oki"
    kept(town).write_bytes(msgspec.json.encode(msgspec.structs.replace(short, expires_at_s=time.time() - 1)))
    with pytest.raises(Failure, match="has ended"):
        await run(me(town).token)


async def test_where_the_built_in_issuer_logs_in_nobody_people_are_told_where_they_can(town):
    town.house.plane.logins = None
    with pytest.raises(Failure, match="logs in nobody") as caught:
        await run(commands.login, caller=me(town))
    assert caught.value.hint == "run `interlock login --issuer corp`"
