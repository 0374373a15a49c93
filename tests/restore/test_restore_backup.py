"""A backup holds all that the database does, is checked before it is believed, and is only loaded where nothing is."""

import json

import asyncpg
import pytest

from interlock.cli.access import AsApp, AsOwner
from interlock.cli.backup import back_up as back_up_command
from interlock.cli.backup import reconcile as reconcile_command
from interlock.cli.backup import restore as restore_command
from interlock.cli.output import Failure
from interlock.gateway.messages import Returned
from interlock.ledger.reader import verify_database
from interlock.store.backup import MANIFEST, back_up, read_manifest, restore
from interlock.store.errors import BackupError
from tests.restore.world import resumed
from tests.store.before import schema


def silent(_table, _rows):
    pass


async def contents(url):
    """Every row of every table, as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        return {
            name: sorted(row[0] for row in await connection.fetch(f'SELECT t::text FROM "{name}" t'))
            for (name,) in names
            if name != "migration"
        }
    finally:
        await connection.close()


async def a_backup(bank, folder):
    async with bank.gateway() as made:
        session = await made.session()
        for order in ("A1", "A2"):
            assert isinstance(await made.call(session, "pay", order=order, amount="1.00"), Returned)
        await made.system.sign_heads()
    return await back_up(bank.owner_url, folder, silent)


async def test_what_is_loaded_is_what_was_backed_up_and_that_it_was_restored(bank, empty_database_urls, tmp_path):
    made = await a_backup(bank, tmp_path / "backup")
    assert read_manifest(tmp_path / "backup") == made
    await restore(empty_database_urls.owner, tmp_path / "backup", silent)
    before, after = await contents(bank.owner_url), await contents(empty_database_urls.owner)
    differ = {name for name in before if before[name] != after[name]}
    assert differ == {"restoration", "control", "epoch", "event", "event_body", "chain", "session"}
    assert set(before["event"]) < set(after["event"])
    report = await verify_database(empty_database_urls.owner, {}, None)
    assert not [finding for finding in report.findings if "key" not in finding.what], report.findings
    # Numbers that the database makes go on where they were.
    connection = await asyncpg.connect(empty_database_urls.owner)
    assert await connection.fetchval("SELECT max(n) FROM restoration") == 1
    await connection.close()
    with pytest.raises(BackupError, match="not empty"):
        await restore(empty_database_urls.owner, tmp_path / "backup", silent)


async def test_a_backup_from_before_the_baseline_is_loaded_when_it_was_made_at_it(bank, empty_database_urls, tmp_path):
    await a_backup(bank, tmp_path / "backup")
    manifest = json.loads((tmp_path / "backup" / MANIFEST).read_text())
    digests = [digest for _number, _name, digest in schema.recorded()["migrations"]]
    manifest["migrations"][:1] = digests[:-1]
    (tmp_path / "backup" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match="not the first of this version's"):
        await restore(empty_database_urls.owner, tmp_path / "backup", silent)
    manifest["migrations"][:40] = digests
    (tmp_path / "backup" / MANIFEST).write_text(json.dumps(manifest))
    await restore(empty_database_urls.owner, tmp_path / "backup", silent)
    assert (await contents(empty_database_urls.owner))["claim"] == (await contents(bank.owner_url))["claim"] != []


async def test_a_backup_is_never_written_over_another_nor_readable_by_others(bank, tmp_path):
    await a_backup(bank, tmp_path / "backup")
    with pytest.raises(BackupError, match="is there already"):
        await back_up(bank.owner_url, tmp_path / "backup", silent)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "backup").iterdir()} == {0}


@pytest.mark.parametrize("harm", ["changed", "lost", "unfinished", "of another kind"])
async def test_a_backup_that_is_not_what_it_says_changes_nothing(bank, empty_database_urls, tmp_path, harm):
    folder = tmp_path / "backup"
    await a_backup(bank, folder)
    match harm:
        case "changed":
            path = folder / "claim.copy.gz"
            path.write_bytes(path.read_bytes()[:-8] + bytes(8))
        case "lost":
            (folder / "event.copy.gz").unlink()
        case "unfinished":
            (folder / MANIFEST).unlink()
        case _:
            manifest = json.loads((folder / MANIFEST).read_text())
            manifest["migrations"][0] = "0" * 64
            (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BackupError):
        await restore(empty_database_urls.owner, folder, silent)
    assert await contents(empty_database_urls.owner) == {}


def test_the_commands_take_a_database_through_it_all(bank, postgres, tmp_path, capsys):
    """Backup, payments, restore, reconcile, resume: as the runbook has it, by the commands themselves."""
    import asyncio  # noqa: PLC0415  # the commands run loops of their own

    def said():
        return json.loads(capsys.readouterr().out)

    asyncio.run(paying(bank, "before"))
    assert (
        back_up_command(tmp_path / "backup", database=AsOwner(database_url=bank.owner_url), state=bank.state, as_json=True) == 0
    )
    assert said()["rows"] > 0
    asyncio.run(paying(bank, "A1", "A2"))
    asyncio.run(bank.stands_empty())
    assert (
        restore_command(tmp_path / "backup", database=AsOwner(database_url=bank.owner_url), state=bank.state, as_json=True) == 0
    )
    assert said()["ledger"]["intact"]
    assert (
        reconcile_command(database=AsApp(database_url=bank.database_url), state=bank.state, all_marks=True, as_json=True) == 0
    )
    told = said()
    assert told["report"]["counts"] == {"done": 2, "known": 1}
    assert told["report"]["complete"]
    asyncio.run(replaying(bank, "before", "A1", "A2"))
    with pytest.raises(Failure, match="no restore was noticed"):
        reconcile_command(database=AsApp(database_url=bank.database_url), state=bank.state, all_marks=True, as_json=True)
    assert [row["order"] for row in bank.tool.table] == ["before", "A1", "A2"]


async def paying(bank, *orders):
    async with bank.gateway() as made:
        session = await made.session()
        for order in orders:
            assert isinstance(await made.call(session, "pay", order=order, amount="1.00"), Returned)


async def replaying(bank, *orders):
    async with bank.gateway() as made:
        refused = await made.call(await made.session(), "pay", order=orders[0], amount="1.00")
        assert refused.code == "restored"
        await resumed(made)
        await paying_again(made, orders)


async def paying_again(made, orders):
    session = await made.session()
    for order in orders:
        told = await made.call(session, "pay", order=order, amount="1.00")
        assert isinstance(told, Returned)
        assert told.meta["interlock/replayed"]
