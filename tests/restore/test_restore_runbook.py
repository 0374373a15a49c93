"""The runbook for a restored database, typed as it stands, against gateways whose database is lost and loaded from a backup."""

import asyncio
import contextlib
import io
import re
import shlex
from pathlib import Path

from interlock.cli.main import app
from interlock.gateway.messages import Returned
from tests.doubt.world import RELEASE
from tests.support.served import served

PAGE = (Path(__file__).parents[2] / "docs" / "runbooks" / "restore.md").read_text()
OPERATED = "resume: [Security], traces: [Operator], audit: [Operator]"


async def typed(line, place=()):
    """The command line, in a thread of its own with loops of its own: as a process, without starting one."""
    words, out = [*shlex.split(line)[1:], *map(str, place)], io.StringIO()
    with contextlib.redirect_stdout(out):
        code = await asyncio.to_thread(app, words, result_action="return_value")
    assert code == 0, (line, out.getvalue())
    return " ".join(out.getvalue().split())


async def test_what_the_runbook_says_to_type_does_what_it_says(bank, tmp_path, monkeypatch):
    lines = re.findall(r"^    (interlock .*)$", PAGE, re.MULTILINE)
    backup, restore, *after = lines
    bank.files = {**RELEASE, "release.yaml": RELEASE["release.yaml"].replace("resume: [Operator]", OPERATED)}
    where = {
        "OWNER_URL": bank.owner_url,
        "DATABASE_URL": bank.database_url,
        "AUDITOR_URL": bank.auditor_url,
        "STATE": bank.state,
    }
    for name, value in where.items():
        monkeypatch.setenv(f"INTERLOCK_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    async with bank.gateway():
        said = await typed(backup)
        assert "keep it safe" in said
    async with bank.gateway() as made:
        session = await made.session()
        assert isinstance(await made.call(session, "pay", order="A1", amount="1.00"), Returned)
        bank.tool.loses = ["after"]
        assert (await made.call(session, "blind", order="A2")).code == "in_doubt"
    await bank.stands_empty()
    assert "the ledger is intact" in await typed(restore)
    async with bank.gateway() as made, served(made, bank.state) as front:
        refused = await made.call(await made.session(), "pay", order="A1", amount="1.00")
        assert refused.code == "restored"
        people = ("--directory", front.directory, "--environment", "test", "--server", front.url)
        told = {}
        for line in after:
            told[line] = await typed(line, people if "--as" in line else ())
        assert re.search(r"restored . running . read_only", told["interlock status --as oki"])
        assert "done after the backup, and known again: 1" in told["interlock db reconcile --all-marks"]
        assert "shop.blind" in told["interlock doubts list --as oki"]
        resumed = next(said for line, said in told.items() if line.startswith("interlock resume"))
        assert "resumed: restored" in resumed
        story = told["interlock trace show control --as oki"]
        assert "was restored to an earlier point" in story
        assert "writes go on after the restore, by sam: the books agree" in story
        assert "intact" in told["interlock audit verify"]
        assert "NOT INTACT" not in told["interlock audit verify"]
        await made.system.keeper.renew()
        again = await made.call(await made.session(), "pay", order="A1", amount="1.00")
        assert again.meta["interlock/replayed"]
    assert [row["order"] for row in bank.tool.table] == ["A1", "A2"]
