"""URI templates: what a URI is decided as is what is asked for, byte for byte."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.mirrored import mirrored_parameters, mismatch, parameter_headers
from interlock.core.uris import TemplateError, expand, match, variables
from interlock.server.envelope import decoded_header

TEMPLATES = ("test://template/{id}/data", "file:///{+path}", "db://{schema}/{table}?key={key}")


@settings(max_examples=150)
@given(st.sampled_from(TEMPLATES), st.text(st.characters(codec="utf-8"), max_size=40))
def test_whatever_a_uri_is_taken_for_makes_that_very_uri(template, text):
    for uri in (text, template.replace("{id}", text).replace("{+path}", text), f"db://a/{text}?key=k"):
        values = match(template, uri)
        assert values is None or expand(template, values) == uri
        assert values is None or not any(part in {".", ".."} for value in values.values() for part in value.split("/"))


@settings(max_examples=100)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40))
def test_a_value_that_climbs_nowhere_is_found_again(value):
    found = match("test://template/{id}/data", expand("test://template/{id}/data", {"id": value}))
    climbs = any(part in {".", ".."} for part in value.replace("\\", "/").split("/"))
    assert found == (None if climbs else {"id": value})


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("test://t/{id}", "test://t/../secret"),
        ("test://t/{id}", "test://t/%2e%2e"),
        ("file:///{+path}", "file:///a/../../etc/passwd"),
        ("file:///{+path}", "file:///a/%2E%2E/b"),
        ("test://t/{id}", "test://t/a/b"),
        ("test://t/{id}", "test://t/%41"),
        ("test://t/{id}", "test://t/%ff"),
        ("test://t/{id}", "test://t/"),
        ("test://t/{id}", "test://t/a#b"),
    ],
)
def test_what_could_be_read_two_ways_is_no_resource(template, uri):
    assert match(template, uri) is None


@pytest.mark.parametrize("template", ["a:{id}{id}", "a:{?q}", "a:{id*}", "a:{", "a:}"])
def test_other_templates_are_refused(template):
    with pytest.raises(TemplateError):
        variables(template)


SCHEMA = """{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"},"n":{"type":"number",
"x-mcp-header":"N"},"b":{"type":"boolean","x-mcp-header":"B"},"free":{"type":"string"}}}"""


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "r": st.text(max_size=20),
            "n": st.integers(-(2**53), 2**53),
            "b": st.booleans(),
            "free": st.text(max_size=5),
        },
    )
)
def test_the_headers_that_we_send_say_what_the_arguments_say_and_one_less_does_not(arguments):
    mirrored = mirrored_parameters(SCHEMA)
    sent = parameter_headers(mirrored, msgspec.json.encode(arguments))
    heard = {name.removeprefix("Mcp-Param-").lower(): decoded_header(value) for name, value in sent.items()}
    assert mismatch(mirrored, arguments, heard) == ""
    for name in heard:
        assert mismatch(mirrored, arguments, {other: value for other, value in heard.items() if other != name})
        assert mismatch(mirrored, arguments, {**heard, name: None})
    assert mismatch(mirrored, {}, {"region": "north"}) == "r"
