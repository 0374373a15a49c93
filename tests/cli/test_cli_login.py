"""`interlock login`, `logout`, `whoami`: what is kept on the machine, renewed silently, and ended."""

import asyncio
import os
import stat
import subprocess
import sys

import msgspec
import pytest

from interlock.cli import login as commands
from interlock.cli import stored
from interlock.cli.caller import Caller
from interlock.cli.output import OK, USAGE, Failure
from interlock.cli.people import status, token
from tests.login.world import DIRECTORY, claims, world


@pytest.fixture
async def town(database_urls, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERLOCK_CONFIG", str(tmp_path / "config"))
    async with world(database_urls, tmp_path) as made:
        yield made


def caller(town, **more):
    state, directory = town.folder / "state", town.folder / "directory.yaml"
    return Caller(server=town.house.url, environment="test", state=state, directory=directory, **more)


async def run(command, *arguments, **options):
    return await asyncio.to_thread(command, *arguments, **options)


def kept(town):
    (path,) = (town.folder / "config" / "logins").glob("*.json")
    return path


async def test_a_person_logs_in_on_the_page_and_every_command_knows_them(town, capsys, monkeypatch):
    me, loop, typed = caller(town), asyncio.get_running_loop(), []

    async def approve():
        code = capsys.readouterr().out.split()[-1]
        typed.append(code)
        async with town.browser("oki") as browser:
            assert "Let in" in (await browser.answer(code)).text
        await town.sql("UPDATE login_code SET polled_at = NULL")

    def pause(_):
        asyncio.run_coroutine_threadsafe(approve(), loop).result(30)

    monkeypatch.setattr(commands, "pause", pause)
    assert await run(commands.login, caller=me) == OK
    assert "oki of acme" in capsys.readouterr().out
    assert typed
    path = kept(town)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert await run(status, caller=me) == OK
    capsys.readouterr()
    assert await run(commands.whoami, caller=me, as_json=True) == OK
    assert msgspec.json.decode(capsys.readouterr().out)["roles"] == ["Operator"]
    assert await run(commands.logout, caller=me) == OK
    assert not path.exists()
    with pytest.raises(Failure, match="nobody is logged in") as caught:
        await run(status, caller=me)
    assert "interlock login --server" in caught.value.hint
    rows = await town.sql("SELECT ended_because FROM login WHERE client_id = 'interlock-cli'")
    assert [row["ended_because"] for row in rows] == ["logged out"]


async def test_who_holds_the_key_folder_logs_in_by_it_and_the_token_is_renewed_with_the_roles_of_now(town, capsys):
    assert await run(commands.login, caller=caller(town, as_="ana")) == OK
    me = caller(town)
    first = await run(me.token)
    assert await run(me.token) == first, "a token that is good is not renewed"
    town.say(DIRECTORY.replace("[Staff]", "[Staff, Lead]"))
    path = kept(town)
    login = msgspec.json.decode(path.read_bytes(), type=stored.StoredLogin)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(login, expires_at_s=0.0)))
    renewed = await asyncio.gather(*(run(me.token) for _ in range(4)))
    assert len(set(renewed)) == 1, "commands at once renew once, for a refresh token used twice ends the login"
    assert claims(renewed[0])["roles"] == ["Staff", "Lead"]
    capsys.readouterr()
    assert await run(token, agent="bot", task="selling", caller=me) == OK
    session = town.house.plane.session(capsys.readouterr().out.strip())
    assert (session.lineage.agent, session.lineage.user) == ("bot", "ana")


async def test_a_login_that_ended_says_how_to_begin_another(town):
    assert await run(commands.login, caller=caller(town, as_="ana")) == OK
    await town.sql("UPDATE login SET ended_at = clock_timestamp()")
    with pytest.raises(Failure, match="has ended") as caught:
        await run(commands.whoami, caller=caller(town))
    assert caught.value.code == USAGE
    assert not list((town.folder / "config" / "logins").glob("*.json"))


async def test_a_file_that_others_may_read_is_not_used(town):
    assert await run(commands.login, caller=caller(town, as_="ana")) == OK
    os.chmod(kept(town), 0o644)
    with pytest.raises(Failure, match="may be read by others"):
        await run(caller(town).token)


async def test_a_code_for_the_page_is_printed_and_good_once(town, capsys):
    assert await run(commands.login, code=True, caller=caller(town, as_="ana")) == OK
    code = capsys.readouterr().out.strip()
    async with town.browser() as browser:
        assert (await browser.post("/login", token=code)).status_code == 200
        assert (await browser.post("/login", token=code)).status_code == 401
    with pytest.raises(Failure, match="whose code"):
        await run(commands.login, code=True, caller=caller(town))


async def test_nobody_logs_in_at_another_computer_in_the_open():
    for server in ("http://interlock.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "http://localhost.example:80"):
        with pytest.raises(Failure, match="not https"):
            stored.refuse_in_the_open(server)
    for server in ("https://interlock.example", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"):
        stored.refuse_in_the_open(server)


def test_the_commands_say_what_they_are_for():
    for command in ("login", "logout", "whoami"):
        done = subprocess.run(
            [sys.executable, "-m", "interlock", command, "--help"], capture_output=True, text=True, check=False
        )
        assert f"Usage: interlock {command}" in done.stdout
