"""A release is loaded whole or refused whole, with every problem and its place."""

import re
from pathlib import Path

import cedarpy
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.contract import DecimalShape, LongShape, OpaqueShape, SetShape, StringShape
from interlock.policy.testing import run_tests
from interlock.release.cedar import pattern_literal, statements, text_literal
from interlock.release.errors import ReleaseError
from interlock.release.load import digest_of, from_files, load
from interlock.release.shapes import arguments_shape, expand
from interlock.release.show import cedar_text, schema_text
from tests.support.shop import FILES

ACME = Path(__file__).resolve().parents[2] / "examples" / "acme" / "release"


def problems(**changed):
    files = {**FILES, **{name.replace("__", "/"): text for name, text in changed.items()}}
    with pytest.raises(ReleaseError) as caught:
        from_files(files)
    return [str(problem) for problem in caught.value.problems]


def change(file, old, new):
    assert old in FILES[file]
    return {file: FILES[file].replace(old, new)}


def found(file, old, new):
    files = {**FILES, **change(file, old, new)}
    with pytest.raises(ReleaseError) as caught:
        from_files(files)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_release_loads_and_its_digest_changes_with_every_byte():
    release = from_files(FILES)
    assert release.digest == digest_of(FILES)
    assert digest_of({**FILES, "tasks.yaml": FILES["tasks.yaml"] + " "}) != release.digest
    assert from_files(dict(reversed(FILES.items()))).digest == release.digest


def test_the_demo_release_passes_its_own_tests():
    results = run_tests(load(ACME))
    assert results
    assert all(result.passed for result in results), [result.why for result in results if not result.passed]


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "says"),
    [
        ("agents.yaml", "ask: {rule: refunds", "ask: {rule: refundz", 15, "no approval rule 'refundz'"),
        ("agents.yaml", "shop.hurried, for", "shop.hurry, for", 6, "there is no operation 'shop.hurry'"),
        ("agents.yaml", 'rate: "2/60s"', 'rate: "2 a minute"', 6, "rate is written"),
        ("agents.yaml", "task: selling}}", "task: buying}}", 5, "no task 'buying'"),
        ("agents.yaml", "data: {max: pii", "data: {max: internal", 7, "returns pii data"),
        ("agents.yaml", "amount: {max:", "amuont: {max:", 12, "no argument 'amuont'"),
        ("agents.yaml", 'max: "100.00"', "max: 100.00", 14, "write the number in quotes"),
        ("agents.yaml", "in: user.teams}}}\n    - on: shop.refund", "near: user.teams}}}\n    - on: shop.refund", 10, "not understood"),
        ("agents.yaml", "data: {max: pii, redact", "data: {max: pii, redakt", 9, "did you mean 'redact'"),
        ("tasks.yaml", "agents: [bot, idle]", "agents: [bot, ghost]", 1, "no agent 'ghost'"),
        ("release.yaml", "teams: set", "teams: list", 3, "user_attributes.teams is one of"),
        ("tools/shop.yaml", "read: shop.lookup", "read: shop.pay", 0, "must only read"),
        ("tools/shop.yaml", "once_per: [order_id", "once_per: [order", 30, "no argument"),
        ("tools/shop.yaml", "amount: decimal}, output: {n: integer}, reviewed", "amount: money}, output: {n: integer}, reviewed", 13, "no type"),
        ("tools/shop.yaml", "repeat: allow, reviewed: {by: a}}\n  hurried", "repeat: allow}\n  hurried", 14, "was not reviewed"),
        ("policies/guard/rules.cedar", '@owner("security")', '@owner("marketing")', 2, "needs @owner"),
        ("policies/guard/rules.cedar", '@id("worried")\n', "", 2, "no @id"),
        ("policies/guard/rules.cedar", "context.session.posture", "context.session.mood", 2, "mood"),
        ("policies/guard/rules.cedar", "forbid (principal", "forbid (principle", 2, "not valid Cedar"),
        ("policies/guard/rules.cedar", "forbid (principal", "permit (principal", 2, "only forbids"),
        ("policies/guard/rules.cedar", '@say("Only', '@obligation("dance") @say("Only', 2, "not one that the gateway can enforce"),
        ("policies/guard/rules.cedar", '@say("Only', '@approval("nobody") @say("Only', 2, "no approval rule"),
        ("policies/guard/rules.cedar", 'Action::"egress"', 'Action::"shop.ghost"', 2, "unrecognized action"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_file_and_line(file, old, new, line, says):
    listed = found(file, old, new)
    place = f"{file}:{line}: " if line else f"{file}: "
    assert any(problem.startswith(place) and says in problem for problem in listed), listed


def test_all_problems_come_at_once():
    listed = problems(
        **{"tasks.yaml": "selling: {purpose: sell}\n", "approvals.yaml": "refunds: {}\n", "tools/bad name.yaml": "url: x\n"}
    )
    assert len({problem.split(":")[0] for problem in listed}) >= 3


def test_an_operation_nobody_can_reach_is_named():
    tool = FILES["tools/shop.yaml"] + "  orphan: {effects: [read], input: {}, reviewed: {by: a}}\n"
    assert any("nobody can reach shop.orphan" in problem for problem in problems(**{"tools/shop.yaml": tool}))


def test_a_draft_cannot_be_called():
    tool = FILES["tools/shop.yaml"] + "  later: {effects: [read], input: {}, draft: true}\n"
    assert "shop.later" not in from_files({**FILES, "tools/shop.yaml": tool}).contracts


def test_a_secret_in_the_release_is_refused():
    tool = FILES["tools/shop.yaml"].replace('python: "shop:"', "url: https://x.example\ncredential: hunter2")
    assert any("it never is one" in problem for problem in problems(**{"tools/shop.yaml": tool}))


def test_a_variable_that_is_not_set_is_named_when_variables_are_filled_in():
    files = {**FILES, "tools/shop.yaml": FILES["tools/shop.yaml"].replace('python: "shop:"', "url: ${SHOP_URL}")}
    with pytest.raises(ReleaseError, match="SHOP_URL"):
        from_files(files, {})
    release = from_files(files, {"SHOP_URL": "http://x"})
    assert release.tools["shop"].sources["test"].url == "http://x"
    assert release.digest == from_files(files, {"SHOP_URL": "http://y"}).digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: [" + "*x, " * 60_000 + "*x]\n", "more than"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag"),
        ("a: 1\na: 2\n", "duplicate"),
        ("a: [1\n", "expected"),
        ("a: 1.5\n", "quotes"),
    ],
)
def test_hostile_or_broken_yaml_is_refused(text, says):
    assert any(says in problem for problem in problems(**{"tasks.yaml": text}))


@given(st.text(max_size=40))
def test_no_text_can_break_out_of_a_cedar_literal(text):
    policy = f'@id("x") permit (principal, action, resource) when {{ context.a == {text_literal(text)} }};'
    (parsed,) = statements(policy)
    body = parsed.est["conditions"][0]["body"]
    assert body["=="]["right"] == {"Value": text}


@given(st.text(max_size=20))
def test_no_pattern_can_break_out_of_a_cedar_literal(text):
    policy = f'@id("x") permit (principal, action, resource) when {{ context.a like {pattern_literal(text)} }};'
    assert len(list(statements(policy))) == 1
    assert next(iter(statements(policy))).est is not None


@settings(deadline=None, max_examples=15)
@given(st.text("ab\"\\)}|&*;: 'é", min_size=1, max_size=12))
def test_a_role_of_any_name_compiles_to_a_check_of_exactly_that_role(role):
    files = {
        **FILES,
        "agents.yaml": FILES["agents.yaml"].replace("roles: [Staff]", "roles: [" + msgspec.json.encode(role).decode() + "]", 1),
    }
    release = from_files(files)
    policy = next(policy for policy in release.policies if policy.layer == "delegation")
    roles = re.findall(r'"id":\s*("(?:[^"\\]|\\.)*")', policy.est)
    assert any(msgspec.json.decode(found) == role for found in roles)


def test_shapes_say_what_policy_can_see():
    schema = expand({"a": "integer", "b?": "decimal", "c": ["string"], "d": {"type": "string", "enum": ["x"]}})
    shape = arguments_shape(schema)
    assert shape.fields == {"a": LongShape(), "b": DecimalShape(), "c": SetShape(item=StringShape()), "d": StringShape()}
    assert shape.required == {"a", "c", "d"}
    nullable = {
        "type": "object",
        "properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "y": {}},
        "required": ["x"],
    }
    assert arguments_shape(nullable).fields == {"x": LongShape(), "y": OpaqueShape()}
    assert arguments_shape(nullable).required == frozenset()


def test_what_is_shown_is_what_decides():
    release = from_files(FILES)
    shown = cedar_text(release)
    assert cedarpy.policies_to_json_str(shown).count('"effect"') == len(release.policies)
    assert cedarpy.validate_policies(shown, schema_text(release)).validation_passed
