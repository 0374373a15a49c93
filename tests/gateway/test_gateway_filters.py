"""Obligations on outputs: what may not be seen is taken out, and what cannot be taken out is withheld."""

import jsonschema_rs
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.contract import Contract, RecordShape
from interlock.core.decision import Columns, Obligations, RowFilter
from interlock.core.terms import Effect
from interlock.gateway import filters

SCHEMA = {
    "type": "object",
    "required": ["rows"],
    "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}}},
    "$defs": {
        "Row": {
            "type": "object",
            "required": ["id", "email", "tenant"],
            "properties": {"id": {"type": "integer"}, "email": {"type": "string"}, "tenant": {"type": "string"}},
        }
    },
}
SEARCH = Contract(
    operation="customers.search",
    tool="customers",
    upstream_name="search",
    effects=frozenset({Effect.READ}),
    input_schema="{}",
    output_schema=msgspec.json.encode(SCHEMA).decode(),
    arguments=RecordShape(fields={}),
    fields={"rows[].email": frozenset({"pii", "email"}), "rows[].iban": frozenset({"pii", "iban"})},
)
ROWS = {"rows": [{"id": 1, "email": "a@x", "tenant": "acme"}, {"id": 2, "email": "b@y", "tenant": "globex"}]}


def test_a_redacted_tag_is_gone_from_every_row_and_named():
    out = filters.apply(SEARCH, Obligations(redact=frozenset({"email"})), ROWS)
    assert out.structured == {"rows": [{"id": 1, "tenant": "acme"}, {"id": 2, "tenant": "globex"}]}
    assert out.redacted == ("rows[].email",)
    assert ROWS["rows"][0]["email"] == "a@x"


def test_the_text_is_rendered_again_from_what_is_left():
    out = filters.apply(SEARCH, Obligations(redact=frozenset({"pii"})), ROWS)
    (block,) = filters.text_of(out.structured)
    assert "a@x" not in block["text"]


def test_a_tag_nobody_declared_redacts_every_tagged_field():
    out = filters.apply(SEARCH, Obligations(redact=frozenset({"emial"})), ROWS)
    assert set(out.redacted) == set(SEARCH.fields)


def test_a_result_without_structure_is_withheld_when_anything_must_be_filtered():
    assert filters.apply(SEARCH, Obligations(redact=frozenset({"email"})), None).withheld
    assert not filters.apply(SEARCH, Obligations(), None).withheld


def test_a_contract_that_names_no_fields_withholds_rather_than_guesses():
    bare = msgspec.structs.replace(SEARCH, fields={})
    assert filters.apply(bare, Obligations(redact=frozenset({"pii"})), ROWS).withheld


def test_a_result_of_another_shape_is_withheld():
    for odd in ({"rows": {"email": "a@x"}}, {"rows": ["a@x"]}, {"rows": "a@x"}):
        assert filters.apply(SEARCH, Obligations(redact=frozenset({"email"})), odd).withheld


def test_row_filters_keep_only_matching_rows_and_all_must_match():
    mine = RowFilter(path="rows[]", field="tenant", value="acme")
    second = RowFilter(path="rows[]", field="id", value="2")
    assert filters.apply(SEARCH, Obligations(rows=(mine,)), ROWS).structured == {"rows": ROWS["rows"][:1]}
    assert filters.apply(SEARCH, Obligations(rows=(mine, second)), ROWS).structured == {"rows": []}


def test_a_row_without_the_filtered_field_is_dropped():
    rule = RowFilter(path="rows[]", field="owner", value="ana")
    assert filters.apply(SEARCH, Obligations(rows=(rule,)), ROWS).structured == {"rows": []}


def test_columns_keep_only_what_is_named():
    rule = Columns(path="rows[]", keep=frozenset({"id"}))
    assert filters.apply(SEARCH, Obligations(columns=(rule,)), ROWS).structured == {"rows": [{"id": 1}, {"id": 2}]}


@given(st.sets(st.sampled_from(["pii", "email", "iban"])), st.sets(st.sampled_from(["id", "email", "tenant"])))
def test_the_published_schema_accepts_whatever_filtering_leaves(tags, keep):
    columns = (Columns(path="rows[]", keep=frozenset(keep)),) if keep else ()
    duties = Obligations(redact=frozenset(tags), columns=columns)
    out = filters.apply(SEARCH, duties, ROWS)
    assert jsonschema_rs.validator_for(filters.schema_as_seen(SEARCH, duties)).is_valid(out.structured)
