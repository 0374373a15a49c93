"""Which row of a result a plan means: worked out by pure code, and nothing whenever anything about it is odd."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.choice import Choice, Pick, chosen, fits
from interlock.core.plan import PlannedSource
from interlock.provenance.index import Index
from interlock.provenance.items import of_result
from interlock.provenance.tokens import Tokenizer
from interlock.provenance.trace import held

FILES = {
    "files": [
        {"id": "11", "size": 4200, "owner": "ana", "at": "2024-05-01T10:00:00"},
        {"id": "13", "size": 900, "owner": "bo", "at": "2024-05-03T10:00:00"},
        {"id": "19", "size": "1500.5", "owner": "ana", "at": "2024-05-02T10:00:00"},
    ]
}
LARGEST = Choice(pick=Pick.MAX, by="files[].size")
TOKENIZER = Tokenizer("lin_test")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (LARGEST, ("11",)),
        (Choice(pick=Pick.MIN, by="files[].size"), ("13",)),
        (Choice(pick=Pick.MAX, by="files[].at"), ("13",)),
        (Choice(pick=Pick.FIRST), ("11",)),
        (Choice(pick=Pick.LAST), ("19",)),
        (Choice(where=(("files[].owner", "ana"),)), ("11", "19")),
        (Choice(pick=Pick.MIN, by="files[].size", where=(("files[].owner", "ana"),)), ("19",)),
        (Choice(where=(("files[].owner", "eve"),)), ()),
    ],
)
def test_a_choice_comes_to_the_rows_that_it_describes(choice, expected):
    assert chosen(FILES, "files[].id", choice) == expected


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"id": "1", "size": 5}, {"id": "2", "size": 5}],
        [{"id": "1", "size": 5}, {"id": "2"}],
        [{"id": "1", "size": 5}, {"id": "2", "size": "large"}],
        [{"id": "1", "size": 5}, {"id": "2", "size": True}],
        [{"id": "1", "size": 5}, {"id": "2", "size": "NaN"}],
        [{"id": "1", "size": "2024-05-01"}, {"id": "2", "size": "2024-05-01T10:00:00+00:00"}],
        [{"id": ["1"], "size": 5}],
        [{"id": None, "size": 5}],
        ["1", {"size": 5}],
        "files",
    ],
)
def test_what_is_not_certain_proves_nothing(rows):
    assert chosen({"files": rows}, "files[].id", LARGEST) == ()
    assert chosen(None, "files[].id", LARGEST) == ()


@pytest.mark.parametrize(
    ("field", "choice"),
    [
        ("files[].id", Choice()),
        ("files[].id", Choice(pick=Pick.MAX)),
        ("files[].id", Choice(pick=Pick.FIRST, by="files[].size")),
        ("files[].id", Choice(pick=Pick.MAX, by="others[].size")),
        ("files[].id", Choice(where=(("name", "x"),))),
        ("files.id", LARGEST),
        ("files[].parts[].id", LARGEST),
        ("files[]id", Choice(pick=Pick.FIRST)),
    ],
)
def test_a_choice_that_is_not_about_the_rows_of_the_field_fits_nothing(field, choice):
    assert not fits(field, choice)
    assert chosen(FILES, field, choice) == ()


@given(st.lists(st.integers(-5, 5) | st.sampled_from(["x", "", "3", "-4.5"]), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_decides_nothing_and_nobody_is_larger_than_the_largest(sizes, random):
    rows = [{"id": f"f{number}", "size": size} for number, size in enumerate(sizes)]
    found = chosen({"files": rows}, "files[].id", LARGEST)
    random.shuffle(rows)
    assert chosen({"files": rows}, "files[].id", LARGEST) == found
    if found:
        best = float(next(row["size"] for row in rows if row["id"] == found[0]))
        assert all(float(row["size"]) < best for row in rows if row["id"] != found[0])


def test_only_the_chosen_row_is_held_by_a_source_with_a_choice():
    source = PlannedSource(operation="drive.list", field="files[].id", choose=LARGEST)
    other = PlannedSource(operation="drive.list", field="files[].id", choose=Choice(pick=Pick.LAST))

    def holds(value, asked, *, choices=(source,), structured=FILES):
        index = Index()
        index.add(of_result(TOKENIZER, "drive.list", "call_1", structured=structured, texts=(), trusted=(), choices=choices))
        return held(index, TOKENIZER, value, (asked,))

    assert holds("11", source)
    assert not holds("13", source)
    assert not holds(["11", "13"], source)
    assert not holds("19", other)
    assert holds("19", other, choices=(source, other))
    assert not holds("11", source, choices=())
    assert holds("13", PlannedSource(operation="drive.list", field="files[].id"))
