"""The keys of an installation: made once by a command, and the same for every gateway of it."""

import asyncio
import json

import pytest

from interlock.app.system import Settings, running
from interlock.cli.main import app
from interlock.cli.output import Failure
from interlock.identity.keys import SHARED
from tests.support.shop import FILES


def made(state):
    return {path.name: path.read_bytes() for path in (state / "keys").iterdir()}


async def a_life(database_urls, state):
    """A gateway that is used by nobody signs its heads and leaves."""
    settings = Settings(
        state=state, database_url=database_urls.app, environment="test", release_files=FILES, trust_dev_issuer=False
    )
    async with running(settings) as system:
        await system.sign_heads()


async def test_the_command_makes_all_that_a_gateway_makes_for_itself(database_urls, tmp_path):
    await a_life(database_urls, tmp_path / "alone")
    assert {name.rpartition("-")[0] for name in made(tmp_path / "alone")} == set(SHARED)


async def test_a_gateway_makes_none_where_the_command_has_and_the_command_leaves_what_is_there(database_urls, tmp_path, capsys):
    words = ["keys", "--state", str(tmp_path), "--json"]
    assert await asyncio.to_thread(app, words, result_action="return_value") == 0
    told, before = json.loads(capsys.readouterr().out), made(tmp_path)
    assert set(told["keys"]) == set(SHARED)
    await a_life(database_urls, tmp_path)
    assert await asyncio.to_thread(app, words, result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out) == told
    assert made(tmp_path) == before


def test_a_folder_that_others_may_read_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(Failure, match="may be read by others"):
        app(["keys", "--state", str(tmp_path)], exit_on_error=False, result_action="return_value")
