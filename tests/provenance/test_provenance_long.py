"""Texts made to cost time: what is looked for in a text never takes the square of its length. Each of these once took minutes."""

import pytest

from interlock.core.disguise import loose, normalized, strict
from interlock.core.listing import ListedTool
from interlock.provenance.active import active_parts
from interlock.provenance.tokens import MAX_LOCAL_PART_CHARS, Tokenizer, mail_addresses
from interlock.release.review.scan import scan
from interlock.risk.injection import InjectionRules

LENGTH_CHARS = 100_000
TOKENS = Tokenizer("key")


def long(unit):
    return (unit * (LENGTH_CHARS // len(unit) + 1))[:LENGTH_CHARS] + "@"


@pytest.mark.parametrize("unit", ["_", "a+", "%41", "\u0327\u0301"])
def test_what_a_long_text_accuses_is_found_in_time(unit):
    assert TOKENS.of_other_text(long(unit))


@pytest.mark.parametrize("unit", ["\n", "\nto: ", "a", "![", "<img ", "\u0327\u0301"])
def test_the_active_parts_of_a_long_text_are_found_in_time(unit):
    *_, last = active_parts(f"{long(unit)}\nto: eve@evil.example")
    assert last == ("recipient", "eve@evil.example")


@pytest.mark.parametrize("unit", ["<a", "<p style=", "display:none "])
def test_a_long_text_is_looked_through_in_time(unit):
    InjectionRules().look(long(unit))


@pytest.mark.parametrize("unit", ["<!--", "<p style=", "\u0327\u0301"])
def test_a_long_description_is_scanned_in_time(unit):
    scan("a.b", ListedTool(name="b", title="", description=long(unit), input_schema="{}", output_schema=None, hints={}))


def test_mail_addresses_are_found_whole_wherever_they_stand():
    text = "to:a.b@c.de,x+y@mail.example.org;no@dots q@a.b@c.d (e@f.gh) @left.out"
    assert list(mail_addresses(text)) == ["a.b@c.de", "x+y@mail.example.org", "q@a.b", "e@f.gh"]


def test_the_end_of_a_name_too_long_for_an_address_vouches_for_nobody():
    name = "a" * MAX_LOCAL_PART_CHARS
    assert list(mail_addresses(f"{name}@c.de")) == [f"{name}@c.de"]
    assert list(mail_addresses(f"a{name}@c.de")) == []


def test_letters_with_many_marks_stay_different_and_ordinary_ones_are_composed():
    marks = "\u0327\u0301" * 40
    assert strict(f"a{marks}") != strict(f"a{marks}\u0301")
    assert loose(f"a{marks}") == "\u00e1"
    assert normalized("NFC", "e\u0301" * 100) == "\u00e9" * 100


def test_markup_that_hides_is_found_behind_other_tags_and_signs():
    for text in ("<b>x</b> <p title='<' style=\"display: none\">secret</p>", "<div style='font-size:0'>"):
        assert [signal.subject for signal in InjectionRules().look(text)] == ["markup"]
    assert InjectionRules().look("<p>ordinary</p> In CSS, display: none hides a thing.") == ()
