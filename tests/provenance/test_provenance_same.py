"""The tokens of a text, against the plain way to find them: the whole text looked through for each kind, one hash at a time."""

import re
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from interlock.core import disguise
from interlock.core.disguise import loose, strict, unfolded
from interlock.provenance import items, readings, tokens
from tests.provenance.test_provenance_trace import TOKENIZER

ODD, MASK = tokens._ODD, 2**64 - 1
PIECE = st.sampled_from(
    ["May", "5th", "2027", "1", "250", "1,250.00", "$12.5", "€", "7", "10", "am", "10:30", "eve@evil.io", "https://a.example/x?y=1&z=%41", "example.com.", "GB29", "NWBK", "6016", "1331", "9268", "19", "*x*", "[a]", "ZXZlQGV2aWwuaW8=", "&#64;x", "\\u0041b", "..", "x.y.z", "a_b-c", "…", "straße", "Ünï", "2024-05-06", "03/04/24", "to", "January", "3rd,", "//h.io/p", "|", "<b>", "0012", "eur", "(kim@corp.example,lee@x.org)", "word"]
)  # fmt: skip
GAP = st.sampled_from([" ", "\n", ", ", "", "  ", "\t", "\u200b", "\x1c", "/"])
TEXT = st.lists(st.one_of(PIECE, GAP, st.text(max_size=4)), max_size=30).map("".join)


def pair(first, second):
    return (first * ODD + second) & MASK


def chunks(plain):
    return [chunk for piece in plain.split() if (chunk := piece.strip(readings.EDGES))]


def singles(plain):
    """Every token of one text but those of several words, each pattern over all of it."""
    found = set(chunks(plain))
    for match in readings.URL.finditer(plain):
        url = match.group().rstrip(readings.EDGES)
        found |= {url, *tokens._parts(url)}
        scheme, _, rest = url.partition("://")
        found |= set(readings._said_of_page(scheme, rest))
    found |= {email.strip(readings.EDGES) for email in tokens.mail_addresses(plain)}
    found |= {match.group() for match in tokens._HOST.finditer(plain)}
    for match in readings._BARE_URL.finditer(plain):
        found |= set(readings._said_of_page("", match.group().rstrip(readings.EDGES)))
    if re.search(r"\d", plain):
        found |= {*readings._dates(plain), *readings._times(plain)}
        for match in readings._NUMBER.finditer(plain):
            found |= set(readings._said_of_number(match))
        for match in readings._ACCOUNT.finditer(plain):
            found |= set(readings._accounts(match.group()))
    return found


def rows(plain, longest):
    row = [TOKENIZER.hashed(chunk) for chunk in chunks(plain)]
    made, run = set(row), row
    for length in range(2, longest + 1):
        run = list(map(pair, run, row[length - 1 :]))
        made |= set(run)
    return row, made


@example("may 5th\n2027 \x1c 1 250 a..b .example.com 10\tam")
@given(TEXT)
def test_what_a_text_accuses_is_found_as_in_the_plain_way(text):
    wanted = set()
    for plain in unfolded(text).texts:
        words = {*re.findall(r"\w+", plain), *(piece.strip(".-+") for piece in re.findall(r"[\w.@+-]+", plain))}
        wanted |= rows(plain, 2)[1] | {TOKENIZER.hashed(token) for token in singles(plain) | words}
    assert TOKENIZER.of_other_text(text).tokens == wanted


@given(TEXT)
def test_so_is_what_vouches(text):
    plain = strict(text)
    marks = {mark for piece in plain.split() if (mark := tokens._marked(piece)) and mark != "*"}
    wanted = {TOKENIZER.hashed(token) for token in singles(plain)} | {TOKENIZER.hashed(f"marked {mark}") for mark in marks}
    assert TOKENIZER.of_user_text(text) == wanted | rows(plain, tokens.RUN_CHUNKS)[1]


@given(TEXT)
def test_so_are_spans(text):
    row, _ = rows(loose(text), 1)
    wanted = []
    for at in range(len(row) - tokens.SPAN_WORDS + 1):
        span = 0
        for word in row[at : at + tokens.SPAN_WORDS]:
            span = pair(span, word)
        wanted.append(span)
    assert TOKENIZER.spans(text) == TOKENIZER.of_other_text(text).spans == wanted


@example("a%41b")
@example("evil\u200b.io")
@example("70617920657669")
@given(TEXT)
def test_a_text_is_read_one_way_only_when_nothing_is_hidden_in_it(text):
    if disguise.reads_one_way(text):
        assert not disguise._decoded(text)
        assert loose(text) == strict(text)


@example("0")
@example("2027")
@example("24")
@example("12.50")
@example("0.00")
@example("9007199254740991")
@given(st.one_of(st.integers(0, 10**16).map(str), st.decimals(0, 10**9, places=2).map(str), TEXT))
def test_a_plain_number_is_read_as_in_the_plain_way_and_so_is_every_other_value(text):
    plain = strict(text).strip()
    short = plain.strip(readings.EDGES)
    found = [*readings._read(plain)]
    if readings._PLAIN_NUMBER.fullmatch(short):
        assert found[:3] == [*readings._read_number(short), *readings._moments(short)]
        assert len(found) == 3 or "." in short
        assert not readings._ACCOUNT.fullmatch(short)
    sure = {"+".join(reading.tokens) for reading in found if reading.grade is not readings.Grade.PART}
    if len(plain) <= readings.MAX_VALUE_CHARS:
        assert set(readings.forms(plain, included=True)) == ({plain} | sure if plain else set())


MOMENT = st.sampled_from(
    ["may", "sept", "5", "05", "2027", "10:30", "10:30:15.5", "am", "p.m.", "t", "z", "utc", "at", "on", "the", "of", "saturday", "sun", "3rd", "th", "-", "/", ".", ",", " ", "(", "+02:00", "$", "e", "ord", "monda"]
)  # fmt: skip


@example("2027-05-15t10:30:15z")
@example("saturday, 3rd of may 2027 at 5 p.m.")
@given(st.lists(st.one_of(MOMENT, st.just(" ")), max_size=9).map("".join))
def test_what_is_spelt_with_letters_of_no_moment_is_none(text):
    found = [*readings._moments(text)]
    with patch.object(readings, "_LETTERS", re.compile("(?!)")):  # then nothing is left out
        assert found == [*readings._moments(text)]


@example("evil\u200b.io")
@given(TEXT)
def test_a_field_at_its_place_is_the_field_and_the_place(text):
    place = TOKENIZER.place("a.b", "rows[].id")
    fields, places = TOKENIZER.of_field_at(place, text)
    assert set(fields) == TOKENIZER.of_field(text)
    assert set(places) == TOKENIZER.of_place(place, text)


@given(st.dictionaries(TEXT, st.recursive(st.one_of(TEXT, st.integers(), st.booleans(), st.none()), st.lists, max_leaves=6)))
def test_names_and_values_that_come_again_add_nothing(structured):
    def taken(value):
        return items.of_result(TOKENIZER, "a.b", "call_1", structured=value, texts=(), trusted=())

    once = taken({"rows": [structured, structured]})
    assert once == taken({"rows": [structured] * 5})
    assert all(once.tokens.values())
