"""The runbooks, typed as they stand on a bad day, against a server whose tool has failed."""

import re
import shlex
from pathlib import Path

import pytest

from interlock.gateway.messages import Returned
from tests.breakers.world import code, files, process
from tests.support.commands import typed_aside
from tests.support.served import served

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
ROLES = """
name: shop
user_attributes: {teams: set}
administration:
  operated_by: [acme]
  kill: [Operator]
  resume: [Security]
  lower: [Security]
  propose: [Operator]
  activate: [Operator]
  status: [Operator]
  traces: [Operator]
  audit: [Operator]
"""


@pytest.fixture
async def bad_day(database_urls, tmp_path):
    async with process(database_urls.app, tmp_path, release={**files(), "release.yaml": ROLES}) as made:
        yield made


async def said_to(front, line):
    words = shlex.split(line)[1:]
    place = ("--state", front.state, "--directory", front.directory, "--environment", "test", "--server", front.url)
    code, out, errors = await typed_aside(*words, *place)
    assert code == 0, (line, out, errors)
    return " ".join(out.split())


@pytest.mark.parametrize("page", ["retry-storm.md", "tool-unstable.md"])
async def test_what_a_runbook_says_to_type_does_what_it_says(bad_day, page, tmp_path):
    text = (PAGES / page).read_text()
    lines = re.findall(r"^    (interlock .*)$", text, re.MULTILINE)
    assert len(lines) >= 5
    session = await bad_day.session()
    await bad_day.break_down(session, "crowd")
    await bad_day.system.breakers.tend()
    async with served(bad_day, tmp_path) as front:
        said = {line: await said_to(front, line) for line in lines}
        assert "weak.crowd" in said["interlock status --as oki"]
        assert "shut for" in said["interlock breakers --as oki"]
        stopped = next(line for line in lines if line.startswith("interlock kill"))
        assert lines.index(stopped) < next(n for n, line in enumerate(lines) if line.startswith("interlock resume"))
        bad_day.tool.weak = False
        bad_day.later(80)
        for number in range(2):
            assert isinstance(await bad_day.ask(session, "crowd", item=f"well-{number}"), Returned)
        await bad_day.system.breakers.tend()
        assert "answers again" in await said_to(front, "interlock trace show control --as oki")
        assert "is unstable" in await said_to(front, "interlock trace show control --as oki")
        await bad_day.ask(session, "crowd", item="once more")
        await bad_day.system.breakers.tend()
        assert "goes through" in await said_to(front, "interlock breakers --as oki")
        assert "unstable" not in await said_to(front, "interlock status --as oki")
        written = await bad_day.ask(session, "send", item="new")
        if "posture tool:weak read_only" in text:
            assert code(written) in {"forbidden", "read_only"}
        else:
            assert isinstance(written, Returned)
