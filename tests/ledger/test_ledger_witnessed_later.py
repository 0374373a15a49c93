"""Heads that were signed while the witness had no room are in it once there is, whoever signed them and whatever moves since."""

from pathlib import Path

import asyncpg
import pytest

from interlock.ledger.reader import verify_database
from interlock.ledger.witness import append_witness, read_witness
from tests.support.shop import counter


@pytest.fixture
async def made(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path / "own") as found:
        yield found


@pytest.fixture(autouse=True)
def not_by_itself(monkeypatch):
    monkeypatch.setattr("interlock.app.chores.SIGN_HEADS_S", 3_600.0)


@pytest.fixture
def witness(made):
    return made.system.settings.state / "heads.jsonl"


def numbers(witness):
    return [line["n"] for line in read_witness(witness) or []]


async def move(made):
    await made.call(await made.session(), "note", text="x")


async def signed_without_room(made, witness, times=2):
    kept = witness.with_suffix(".kept")
    if witness.exists():
        witness.rename(kept)
    witness.symlink_to(Path("/dev/full"))
    for _ in range(times):
        await move(made)
        with pytest.raises(OSError, match="No space left"):
            await made.system.sign_heads()
    witness.unlink()
    if kept.exists():
        kept.rename(witness)


async def test_they_are_witnessed_in_their_order_though_nothing_has_moved_since(made, witness):
    await move(made)
    await made.system.sign_heads()
    await signed_without_room(made, witness)
    assert numbers(witness) == [1]
    assert await made.system.sign_heads() == 0
    assert numbers(witness) == [1, 2, 3]


async def test_also_when_it_was_the_first_line_that_had_no_room(made, witness):
    await signed_without_room(made, witness)
    await move(made)
    await made.system.sign_heads()
    assert numbers(witness) == [1, 2, 3]


async def test_also_by_the_process_that_comes_after(database_urls, made, witness, tmp_path):
    await move(made)
    await made.system.sign_heads()
    await signed_without_room(made, witness)
    async with counter(database_urls.app, tmp_path / "own") as another:
        await another.system.sign_heads()
        assert numbers(witness)[:3] == [1, 2, 3]


async def test_what_others_have_signed_with_the_same_key_is_witnessed_beside_each(database_urls, made, witness, tmp_path):
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "keys").symlink_to(tmp_path / "own" / "keys")
    async with counter(database_urls.app, tmp_path / "other") as another:
        await move(another)
        await another.system.sign_heads()
        await made.system.sign_heads()
        assert numbers(witness) == numbers(tmp_path / "other" / "heads.jsonl") == [1]


async def test_a_head_that_nobody_of_us_has_signed_is_not_taken_up_and_does_not_stand_in_the_way(database_urls, made, witness):
    await move(made)
    await made.system.sign_heads()
    superuser = await asyncpg.connect(database_urls.superuser)
    key_id = await superuser.fetchval("SELECT key_id FROM signed_head")
    await superuser.execute("INSERT INTO signed_head (n, body, key_id, signature) VALUES (2, '{}', $1, '\\x00')", key_id)
    await superuser.close()
    await move(made)
    await made.system.sign_heads()
    assert numbers(witness) == [1, 3]


async def test_what_is_of_another_past_is_not_taken_for_how_far_it_came(made, witness):
    await move(made)
    await made.system.sign_heads()
    (line,) = read_witness(witness)
    append_witness(witness, {**line, "n": 900})
    await move(made)
    await made.system.sign_heads()
    assert numbers(witness) == [1, 900, 2]
    await move(made)
    await made.system.sign_heads()
    assert numbers(witness) == [1, 900, 2, 3]


async def test_a_long_outage_is_made_good_in_rounds(made, witness, monkeypatch):
    monkeypatch.setattr("interlock.ledger.heads.MAX_WITNESSED_AT_ONCE", 2)
    await move(made)
    await made.system.sign_heads()
    await signed_without_room(made, witness, times=5)
    for after in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]):
        await made.system.sign_heads()
        assert numbers(witness) == after


async def test_the_verifier_names_those_that_are_not_witnessed(database_urls, made, witness):
    await move(made)
    await made.system.sign_heads()
    await signed_without_room(made, witness, times=3)
    report = await verify_database(database_urls.auditor, made.system.keys.public_bytes("heads"), witness)
    assert report.intact
    assert report.not_witnessed_heads == 3
    assert any("3 signed heads are not in the witness file given (2 to 4)" in said for said in report.could_not_see())
