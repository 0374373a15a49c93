"""A mark that cannot be read is not taken for one that tells of nothing: whether writes were lost is then not known."""

import shutil
from pathlib import Path

import pytest

from interlock.gateway.messages import Returned
from interlock.identity.keys import KeyRing
from interlock.store.errors import MarkError, StoreUnavailableError
from interlock.store.mark import parts_of
from tests.restore.test_restore import GUARDED
from tests.restore.world import BOSS, made_good, resumed


async def pay(made, order):
    return await made.call(await made.session(), "pay", order=order, amount="1.00")


async def paid(bank, *orders):
    async with bank.gateway() as made:
        for order in orders:
            assert isinstance(await pay(made, order), Returned)
        return made.system.marking.mark.database_id


async def a_part(bank):
    """The part of a gateway that made one payment, in the folder alone."""
    async with bank.gateway():
        pass
    shutil.rmtree(bank.state / "mark")
    database_id = await paid(bank, "A1")
    (part,) = parts_of(bank.state / "mark", database_id)
    return part


async def noticed(made):
    return await made.system.marking.restorations.last()


def is_unread(restoration):
    return restoration is not None and "cannot be read to its end" in restoration.why


def lose_state(bank):
    """The state folder is lost, but for the marks, which were kept elsewhere; gives its mark key, as a backup of it would."""
    key = (bank.state / "keys" / "mark-0001.jwk").read_bytes()
    shutil.rmtree(bank.state / "keys")
    (bank.state / "heads.jsonl").unlink(missing_ok=True)
    return key


def key_is_back(bank, key):
    older = bank.state / "keys" / "mark-0000.jwk"
    older.write_bytes(key)
    older.chmod(0o600)


async def test_a_restore_behind_a_mark_of_a_lost_key_is_noticed_and_pays_nothing_twice(bank):
    await paid(bank)
    await bank.backup()
    await paid(bank, "A1")
    await bank.set_back()
    key = lose_state(bank)
    async with bank.gateway() as made:
        assert (await pay(made, "A1")).code == "restored"
        assert is_unread(await noticed(made))
        report = await made_good(made)
        assert (report.counts, report.complete) == ({}, False)
        assert "another key" in report.faults[0]
    # Whoever finds the key in a backup of the state folder puts it beside the new one.
    key_is_back(bank, key)
    async with bank.gateway() as made:
        assert (await made_good(made)).counts == {"done": 1}
        await resumed(made)
        assert (await pay(made, "A1")).meta["interlock/replayed"]
    assert [row["order"] for row in bank.tool.table] == ["A1"]


async def test_where_the_key_is_gone_for_good_people_accept_it_once_and_each_write_asks_for_a_day(bank):
    bank.files = GUARDED
    await paid(bank, "A1")
    lose_state(bank)
    async with bank.gateway() as made:
        assert is_unread(await noticed(made))
        assert not (await made_good(made)).complete
        assert "each write asks a person" in (await resumed(made, named=True)).note
    # The part is still there, and nobody needs to say it again.
    async with bank.gateway() as made:
        assert (await noticed(made)).n == 1
        assert (await pay(made, "A2")).code == "needs_approval"
    assert len(bank.tool.table) == 1


async def test_what_was_not_among_the_marks_that_people_looked_at_is_not_accepted(bank, tmp_path_factory):
    await paid(bank, "A1")
    lose_state(bank)
    async with bank.gateway() as made:
        await made_good(made, folders=[tmp_path_factory.mktemp("elsewhere")])
        await resumed(made, named=True)
    async with bank.gateway() as made:
        assert (await noticed(made)).n == 2


async def test_a_restore_to_before_it_was_accepted_is_noticed_again(bank):
    await paid(bank, "A1")
    await bank.backup()
    lose_state(bank)
    for _ in range(2):
        async with bank.gateway() as made:
            assert (await noticed(made)).n == 1
            await made_good(made)
            await resumed(made, named=True)
        await bank.set_back()
        (bank.state / "heads.jsonl").unlink(missing_ok=True)


async def test_a_mark_under_a_key_that_was_changed_on_purpose_is_read_as_before(bank):
    await paid(bank)
    await bank.backup()
    await paid(bank, "A1")
    KeyRing(bank.state / "keys").rotate("mark")
    await paid(bank, "A2")
    await bank.set_back()
    (bank.state / "heads.jsonl").unlink()
    async with bank.gateway() as made:
        assert "does not have the claim" in (await noticed(made)).why
        assert (await made_good(made)).counts == {"done": 2}


async def test_a_key_that_was_changed_on_purpose_stops_nobody(bank):
    await paid(bank, "A1")
    KeyRing(bank.state / "keys").rotate("mark")
    async with bank.gateway() as made:
        assert await noticed(made) is None
        assert isinstance(await pay(made, "A2"), Returned)


@pytest.mark.parametrize("tail", [b"", b"17", b"17 c3RvcA", b"\x00" * 4096, b"\xff\xfe"])
async def test_a_part_that_a_crash_cut_off_in_the_middle_of_a_line_stops_nobody(bank, tail):
    part = await a_part(bank)
    *whole, _, _ = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(whole) + tail)
    async with bank.gateway() as made:
        assert await noticed(made) is None
        assert isinstance(await pay(made, "A2"), Returned)


@pytest.mark.parametrize("text", [b"", b"1 c3R"])
async def test_a_part_without_a_whole_line_stops_nobody(bank, text):
    (await a_part(bank)).write_bytes(text)
    async with bank.gateway() as made:
        assert await noticed(made) is None


@pytest.mark.parametrize("line", [b"garbage\n", b"\x00\n", b"9" * 5_000 + b" c3RvcA==\n"])
async def test_a_whole_line_after_the_last_claim_that_cannot_be_opened_is_not_taken_for_none(bank, line):
    part = await a_part(bank)
    part.write_bytes(part.read_bytes() + line)
    async with bank.gateway() as made:
        assert is_unread(await noticed(made))
        assert (await pay(made, "A2")).code == "restored"


async def test_a_line_before_the_last_claim_that_cannot_be_opened_is_for_whoever_reads_it_all(bank):
    part = await a_part(bank)
    part.write_bytes(b"garbage\n" + part.read_bytes())
    async with bank.gateway() as made:
        assert await noticed(made) is None


async def test_the_marks_of_another_installation_are_refused_though_its_keys_are_not_here(bank):
    await paid(bank, "A1")
    lose_state(bank)
    await bank.forget_everything()
    with pytest.raises(MarkError, match="holds marks of another database"):
        await paid(bank)


async def test_a_copy_of_a_database_that_is_shown_the_marks_of_the_original_does_not_write(bank, tmp_path_factory):
    await paid(bank, "A1")
    copied = tmp_path_factory.mktemp("copied")
    shutil.copytree(bank.state / "mark", copied / "mark")
    async with bank.gateway(copied) as made:
        assert is_unread(await noticed(made))


async def test_an_empty_folder_of_marks_beside_a_database_with_a_history_stops_nobody(bank, tmp_path_factory):
    """As of a gateway on one more machine."""
    await paid(bank, "A1")
    async with bank.gateway(tmp_path_factory.mktemp("more")) as made:
        assert await noticed(made) is None
        assert isinstance(await pay(made, "A2"), Returned)


async def test_marks_that_were_removed_stop_nobody_and_the_witness_still_tells_of_a_restore(bank):
    await paid(bank)
    await bank.backup()
    await paid(bank, "A1")
    shutil.rmtree(bank.state / "mark")
    async with bank.gateway() as made:
        assert await noticed(made) is None
    await bank.set_back()
    async with bank.gateway() as made:
        assert "signed head" in (await noticed(made)).why


async def test_marks_that_may_not_be_looked_at_let_nobody_start(bank, monkeypatch):
    part = await a_part(bank)
    broken = {part: Path.read_bytes, part.parent: Path.iterdir}
    for path, method in broken.items():

        def refused(self, path=path, method=method):
            if self == path:
                raise PermissionError(13, "Permission denied")
            return method(self)

        with monkeypatch.context() as patched:
            patched.setattr(Path, method.__name__, refused)
            with pytest.raises(MarkError, match="Permission denied"):
                await paid(bank)


async def test_a_restore_that_lost_a_stop_and_no_write_is_noticed_by_the_mark(bank):
    await paid(bank, "A1")
    await bank.backup()
    async with bank.gateway() as made:
        await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
    await bank.set_back()
    (bank.state / "heads.jsonl").unlink()
    async with bank.gateway() as made:
        assert "stops, postures" in (await noticed(made)).why
        assert any("the books are wrong" in told for told in (await made_good(made)).controls)
        await resumed(made)
        assert (await pay(made, "A2")).code == "halted"
    async with bank.gateway() as made:
        assert (await noticed(made)).n == 1


async def test_lines_go_to_the_disk_though_the_database_is_away(bank, monkeypatch):
    async with bank.gateway() as made:
        await pay(made, "A1")
        marking, asked = made.system.marking, []

        async def away(*_):
            raise StoreUnavailableError("away")

        with monkeypatch.context() as broken:
            broken.setattr(marking.restorations, "missing", away)
            broken.setattr(marking.mark, "sync", lambda: asked.append("sync"))
            with pytest.raises(StoreUnavailableError):
                await marking.tend()
        assert "sync" in asked
