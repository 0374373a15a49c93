"""The file of signed heads outside the database: each line is there whole or not at all, and what was changed is noticed."""

import json
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from interlock.ledger.witness import append_witness, read_witness
from interlock.store.errors import WitnessError
from tests.support.shop import counter


def line(number, size=40):
    return {"n": number, "body": "b" * size, "key_id": "k", "signature": "00ff"}


@pytest.fixture
def witness(tmp_path):
    path = tmp_path / "heads.jsonl"
    for number in (1, 2, 3):
        append_witness(path, line(number))
    return path


def numbers(path):
    return [found["n"] for found in read_witness(path)]


def test_half_a_line_that_a_crash_has_left_counts_as_not_written_and_the_next_one_is_whole(witness):
    whole = witness.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        witness.write_bytes(whole[:cut])
        assert numbers(witness) == [1, 2]
        append_witness(witness, line(4))
        assert numbers(witness) == [1, 2, 4]
        assert witness.read_bytes().startswith(whole[:start])


def test_half_a_line_longer_than_is_looked_at_at_once_is_found_too(witness):
    whole = witness.read_bytes()
    witness.write_bytes(whole + json.dumps(line(4, size=300_000)).encode())
    append_witness(witness, line(5, size=300_000))
    assert numbers(witness) == [1, 2, 3, 5]
    witness.write_bytes(b"x" * 200_000)
    append_witness(witness, line(6))
    assert numbers(witness) == [6]


@pytest.mark.parametrize("damage", ["half", "empty", "another shape", "no signature", "bytes", "deep"])
def test_a_line_that_cannot_be_read_anywhere_else_is_named_and_nothing_is_believed(witness, damage):
    first, second, third = witness.read_bytes().splitlines(keepends=True)
    changed = {
        "half": second[:20],
        "empty": b"",
        "another shape": b"[1]",
        "no signature": b'{"n":2,"body":"b","key_id":"k","signature":"zz"}',
        "bytes": b"\xff\x00",
        "deep": b"[" * 100_000,
    }[damage]
    witness.write_bytes(first + changed.rstrip(b"\n") + b"\n" + third)
    with pytest.raises(WitnessError, match="line 2 of the witness"):
        read_witness(witness)


async def test_a_process_does_not_start_beside_a_witness_that_was_damaged(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        await made.call(await made.session(), "note", text="x")
        await made.system.sign_heads()
    witness = tmp_path / "heads.jsonl"
    witness.write_bytes(b"nothing that we wrote\n" + witness.read_bytes())
    with pytest.raises(WitnessError, match="line 1 of the witness"):
        async with counter(database_urls.app, tmp_path):
            raise AssertionError


def test_where_only_half_a_line_has_room_none_of_it_stays(witness):
    before = witness.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match=r"No space left|File too large"):
            append_witness(witness, line(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert witness.read_bytes() == before
    append_witness(witness, line(4))
    assert numbers(witness) == [1, 2, 3, 4]


def test_those_who_share_a_witness_take_no_line_from_each_other(witness):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: append_witness(witness, line(number, size=5_000)), range(4, 104)))
    assert sorted(numbers(witness)) == list(range(1, 104))
