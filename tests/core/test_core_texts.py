"""What can hold text that somebody made up, and what cannot."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.texts import MAX_OWN_LETTERS, holds_text
from interlock.release.shapes import DECIMAL

BINDING = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["integer", "null"]},
    {"enum": ["open", "closed", "a sentence that a reviewer has read"]},
    {"const": "done, and nothing else"},
    DECIMAL,
    {"type": "string", "maxLength": 3},
    {"type": "string", "pattern": "^A[0-9]{1,8}$"},
    {"type": "string", "pattern": r"^INV-\d+(?:-\d+)?$"},
    {"type": "string", "pattern": "^(?:EUR|USD)$"},
    {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{26}$"},
    {"type": "string", "pattern": "^re_[A-Za-z0-9]{24}$"},
    {"type": "string", "pattern": r"^[A-Z]{2,3}\.\w{4}$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "array", "items": {"type": "number"}},
    {"type": "array", "items": {"enum": ["open", "closed"]}},
    {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{3}$"}, "maxItems": 5},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"allOf": [{"type": "string"}, {"type": "string", "pattern": "^[0-9]+$"}]},
    {"$ref": "#/$defs/id", "$defs": {"id": {"type": "integer"}}},
    {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "additionalProperties": False,
    },
    False,
]
OPEN = [
    True,
    # What stands beside it may let more properties in, so it closes nothing by itself.
    {"type": "object", "unevaluatedProperties": False, "allOf": [{"properties": {"note": {"type": "string"}}}]},
    {"type": "object", "properties": {"n": {"type": "integer"}}, "unevaluatedProperties": False},
    {},
    {"type": "string"},
    {"type": ["integer", "string"]},
    {"title": "no type"},
    {"type": "string", "maxLength": 40},
    {"type": "string", "format": "email"},
    {"type": "string", "pattern": "[0-9]+"},
    {"type": "string", "pattern": "^[0-9]+"},
    {"type": "string", "pattern": "^a|b$"},
    {"type": "string", "pattern": "^.*$"},
    {"type": "string", "pattern": "^[^,]{1,3}$"},
    {"type": "string", "pattern": r"^\S{1,60}$"},
    {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    {"type": "string", "pattern": "^[a-z ]{20}$"},
    {"type": "string", "pattern": "^(?:k|l|m|n)*$"},
    {"type": "string", "pattern": "^(?:k?l?m?)+$"},
    {"type": "string", "pattern": "^(?=x)[0-9]+$"},
    {"type": "string", "pattern": r"^\p{L}+$"},
    {"type": "string", "pattern": "^[0-9"},
    {"type": "string", "pattern": "^" + "(" * 400 + "a" + ")" * 400 + "$"},
    {"type": "array", "items": {"type": "string", "maxLength": 3}},
    {"type": "array"},
    {"type": "object"},
    {"type": "object", "properties": {"n": {"type": "integer"}}},
    {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "patternProperties": {".*": {"type": "integer"}}, "additionalProperties": False},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"$ref": "#/$defs/me", "$defs": {"me": {"$ref": "#/$defs/me"}}},
    {"$ref": "https://elsewhere.example/schema"},
    {"$schema": "http://json-schema.org/draft-04/schema#", "const": 1},
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "#/definitions/any",
        "maxLength": 1,
        "definitions": {"any": {"type": "string"}},
    },
    {"type": "object", "properties": {"a": {"$id": "x", "$ref": "#/$defs/n"}}, "additionalProperties": False},
]


@pytest.mark.parametrize("schema", BINDING, ids=json.dumps)
def test_what_its_schema_binds_holds_no_text(schema):
    assert not holds_text(json.dumps(schema))


@pytest.mark.parametrize("schema", OPEN, ids=lambda schema: json.dumps(schema)[:60])
def test_what_its_schema_leaves_open_may_hold_text(schema):
    assert holds_text(json.dumps(schema))


def test_many_short_strings_are_a_text_together():
    def of(count):
        inside = {f"n{n}": {"type": "string", "pattern": "^[A-Z]{4}$"} for n in range(count)}
        return json.dumps({"type": "object", "properties": inside, "additionalProperties": False})

    assert not holds_text(of(MAX_OWN_LETTERS // 4))
    assert holds_text(of(MAX_OWN_LETTERS // 4 + 1))


def test_a_trusted_path_holds_no_text_and_the_others_beside_it_do():
    line = {"type": "object", "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}, "additionalProperties": False}
    schema = json.dumps(
        {"type": "object", "properties": {"rows": {"type": "array", "items": line}}, "additionalProperties": False}
    )
    assert holds_text(schema)
    assert holds_text(schema, ("rows[].n", "rows"))
    assert not holds_text(schema, ("rows[].id",))


def test_a_schema_that_grows_without_end_is_given_up():
    nested = {"anyOf": [{"$ref": "#/$defs/a"}] * 8}
    assert holds_text(json.dumps({"$ref": "#/$defs/a", "$defs": {"a": nested}}))


@given(
    st.from_regex(r"\A\^(?:[A-Za-z]|\\d|\[[a-z0-9]{1,4}\]|\(\?:[a-z]\|[0-9]\)){0,6}[*+?]?\$\Z"),
    st.text(alphabet="abcxyz019 ", max_size=60),
)
def test_no_long_words_fit_a_pattern_that_is_said_to_hold_none(pattern, text):
    schema = {"type": "string", "pattern": pattern}
    if not holds_text(json.dumps(schema)) and jsonschema_rs.validator_for(schema).is_valid(text):
        free = [letter for letter in text if letter.isalpha() and letter not in "abcdef"]
        assert len(set(free)) <= 1 or len(free) <= MAX_OWN_LETTERS
