"""The mark itself: what was written is read, and what was changed, cut off or left out is said."""

import os
import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.claim import Claimed, Stale
from interlock.gateway.messages import Returned
from interlock.store.mark import Ended, Last, Mark, Opened, forget_older, last_of, other_databases, parts_of, read_part
from tests.support.shop import counter

SECRET = b"s" * 32
ends = st.builds(
    Ended,
    claim_id=st.text(max_size=8),
    attempt=st.integers(1, 9),
    state=st.sampled_from(["succeeded", "failed", "in_doubt"]),
    not_done=st.booleans(),
    outcome=st.none() | st.text(max_size=20),
)


def written(folder, lines, *, closed=True):
    mark = Mark(folder, process_id="prc_1", environment="test", secret=SECRET)
    mark.belongs_to("db")
    for line in lines:
        mark.write(line, at_us=7)
    mark.sync()
    if closed:
        mark.close(9)
    return parts_of(folder, "db")


@given(st.lists(ends, min_size=1, max_size=5), st.booleans())
@settings(max_examples=20)
def test_what_was_written_is_read_again(lines, closed):
    with tempfile.TemporaryDirectory() as folder:
        (path,) = written(Path(folder), lines, closed=closed)
        part = read_part(path, SECRET)
        assert part.lines[1 : 1 + len(lines)] == tuple(lines)
        assert isinstance(part.lines[0], Opened)
        assert (part.fault, part.closed, part.process_id) == ("", closed, "prc_1")


@given(st.lists(ends, min_size=2, max_size=4), st.data())
@settings(max_examples=40)
def test_whatever_is_changed_cut_off_or_left_out_in_between_is_said(lines, data):
    with tempfile.TemporaryDirectory() as folder:
        (path,) = written(Path(folder), lines)
        text = path.read_bytes()
        at = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["changed", "cut off", "left out"]))
        if how == "changed":
            path.write_bytes(text[:at] + bytes([text[at] ^ data.draw(st.integers(1, 255))]) + text[at + 1 :])
        elif how == "cut off":
            path.write_bytes(text[:at])
        else:
            whole = text.splitlines(keepends=True)
            del whole[data.draw(st.integers(0, len(whole) - 2))]
            path.write_bytes(b"".join(whole))
        part = read_part(path, SECRET)
        # A file that ends with a whole line is not closed: that is what tells of a lost end.
        assert part.fault or not part.closed


def test_with_another_key_nothing_is_read_and_that_is_said(tmp_path):
    (path,) = written(tmp_path, [Ended(claim_id="clm_1", attempt=1, state="succeeded", not_done=False)])
    part = read_part(path, b"t" * 32)
    assert (part.lines, last_of(path, b"t" * 32)) == ((), Last(unread=f"{path.name}:3"))
    assert last_of(path, b"t" * 32, SECRET) == Last()
    assert "another key" in part.fault


def test_a_part_that_was_moved_to_another_process_or_database_is_not_believed(tmp_path):
    (path,) = written(tmp_path, [Ended(claim_id="clm_1", attempt=1, state="succeeded", not_done=False)])
    (tmp_path / "other").mkdir()
    for place in (path.with_name("prc_2-0001.mark"), tmp_path / "other" / path.name):
        place.write_bytes(path.read_bytes())
        assert read_part(place, SECRET).lines == ()
    assert other_databases(tmp_path, "db") == ("other",)


def test_a_mark_is_kept_for_nobody_elses_eyes(tmp_path):
    (path,) = written(tmp_path, [Ended(claim_id="clm_1", attempt=1, state="succeeded", not_done=False, outcome="jane@x")])
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert b"jane" not in path.read_bytes()


def test_a_part_that_could_be_forgotten_is_written_to_no_more_and_only_old_ones_are(tmp_path):
    mark = Mark(tmp_path, process_id="prc_1", environment="test", secret=SECRET)
    mark.belongs_to("db")
    end = Ended(claim_id="clm_1", attempt=1, state="succeeded", not_done=False)
    day_us = 24 * 3600 * 1_000_000
    began = [mark.write(end, at_us=at_us) for at_us in (day_us, day_us + 5, 2 * day_us + 6, 2 * day_us + 7)]
    mark.close(2 * day_us + 8)
    assert began == [True, False, True, False]
    old, young = parts_of(tmp_path, "db")
    os.utime(old, (100, 100))
    assert forget_older(tmp_path, "db", 101.0) == 1
    assert parts_of(tmp_path, "db") == (young,)


async def test_of_reads_that_were_not_claimed_or_are_over_nothing_is_remembered(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        session = await made.session()
        marked, claims = made.system.desk, []
        real = marked._desk.claim

        async def claim(request):
            if len(claims) < 2:  # what it was decided on has changed, twice
                request = msgspec.structs.replace(request, facts_version=request.facts_version - 1)
            claims.append(await real(request))
            return claims[-1]

        marked._desk.claim = claim
        assert isinstance(await made.call(session, "stock", item="tea"), Returned)
        assert [type(answer) for answer in claims] == [Stale, Stale, Claimed]
        assert not marked._unkeyed
