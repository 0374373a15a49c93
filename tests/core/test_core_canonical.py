"""One byte form for every value, and no value that two readers could take differently."""

import contextlib
import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core import canonical as module
from interlock.core.canonical import MAX_SAFE_INTEGER, AmbiguousJsonError, canonical, parse_strict

LIMIT = 100_000

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
numbers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.integers(-(10**9), 10**9).map(lambda n: n / 10_000)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts.filter(lambda key: not key.startswith("__")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_reading_the_canonical_bytes_gives_the_same_canonical_bytes(value):
    once = canonical(parse_strict(json.dumps(value), max_bytes=LIMIT))
    assert canonical(parse_strict(once, max_bytes=LIMIT)) == once


@given(values)
def test_canonical_bytes_mean_the_same_to_an_ordinary_reader(value):
    assert json.loads(canonical(parse_strict(json.dumps(value), max_bytes=LIMIT))) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_either_read_or_refused_as_ambiguous(raw):
    with contextlib.suppress(AmbiguousJsonError):
        canonical(parse_strict(raw, max_bytes=LIMIT))


# Texts that are nearly plain: what the quick way reads, and what it must leave to the strict way.
near = st.lists(
    st.sampled_from(
        ['"a"', '"b"', '"__a"', '"é"', "1", "-0", "1.0", "1e2", "1234567890123456", "9007199254740993", "null", "NaN"]
    )
    | st.sampled_from(["true", '"1.5"', '"x,1.5"', '"\\u0000"', '"\x00"', "{", "}", "[", "]", ":", ",", " "]),
    max_size=12,
).map("".join)
rows = st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"__a"']), near | st.sampled_from(["1", '"x"', "[1,2]"])), max_size=3)
plain_texts = near | rows.map(lambda found: "{" + ",".join(f"{key}:{value}" for key, value in found) + "}")


def strictly(text):
    with mock.patch.object(module, "_read_plain", return_value=module._UNREAD):
        try:
            return repr(parse_strict(text, max_bytes=LIMIT))
        except AmbiguousJsonError as error:
            return str(error)


@given(plain_texts | st.text(max_size=30))
def test_the_quick_way_reads_nothing_that_the_strict_way_reads_otherwise(text):
    quick = module._read_plain(text.encode("utf-8", "surrogatepass"))
    assert quick is module._UNREAD or repr(quick) == strictly(text)


@pytest.mark.parametrize("text", ['{"order":"A1","amount":"25.00","n":-5,"more":[1,{"x":true}]}', "[]", "{}", '"x"'])
def test_what_callers_usually_send_is_read_and_written_the_quick_way(text):
    value = module._read_plain(text.encode())
    assert value == json.loads(text)
    with mock.patch.object(module, "_normal", side_effect=AssertionError):
        assert json.loads(canonical(value)) == value


@given(values)
def test_the_quick_way_writes_what_the_exact_way_writes(value):
    assert canonical(value) == module._EXACT.encode(module._normal(value)).encode()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}])
def test_what_is_no_number_is_not_written(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)


def test_keys_are_sorted_and_numbers_have_one_form():
    assert canonical(parse_strict(b'{"b": 1.50, "a": [80.0, -0, 1e2]}', max_bytes=LIMIT)) == b'{"a":[80,0,100],"b":1.5}'


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"x":{"__entity":{"type":"User","id":"root"}}}', "x.__entity"),
        (b'{"a":"\\u0000"}', "a"),
        (b'{"a":["\\ud800"]}', "a[0]"),
        (b'{"a":9007199254740993}', ""),
        (b'{"a":1e400}', ""),
        (b'{"a":0.1234567890123456789}', ""),
        (b'{"a":1e-30}', ""),
        (b'{"a":NaN}', ""),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b"\xff\xfe", ""),
        (b"", ""),
        (b'{"a":1} x', ""),
    ],
)
def test_what_two_readers_could_take_differently_is_refused_naming_the_field(raw, field):
    with pytest.raises(AmbiguousJsonError) as refused:
        parse_strict(raw, max_bytes=LIMIT)
    if field is not None:
        assert refused.value.field == field


def test_text_longer_than_the_limit_is_refused_before_it_is_read():
    with pytest.raises(AmbiguousJsonError, match="longer than 10 bytes"):
        parse_strict(b"[" + b" " * 20 + b"]", max_bytes=10)
