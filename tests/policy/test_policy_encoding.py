from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import cedarpy
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interlock.core.canonical import AmbiguousJsonError, canonical, check_value
from interlock.core.contract import Contract, OpaqueShape, RecordShape, ResourceRule, SetShape, StringShape
from interlock.core.decision import Allow, Decision, Deny, Facts, RequireApproval, ResourceFacts
from interlock.core.terms import Posture
from interlock.policy.case import Case, StoppedError
from interlock.policy.codes import Code
from interlock.policy.encoding import ArgumentEncoder, now_section, resource_attributes
from interlock.policy.engine import Engine
from interlock.policy.errors import FactsRefusedError, UnusableReleaseError
from tests.policy import world
from tests.policy.world import engine, forbid, policy, refund, search

GOLDEN = Path(__file__).parent / "golden"
ENCODER = ArgumentEncoder(world.REFUND)


def encode(**arguments: object) -> dict[str, object]:
    return ENCODER.encode(canonical({"order_id": "A1", "amount": 1, **arguments}).decode())


def refused(text: str) -> FactsRefusedError:
    with pytest.raises(FactsRefusedError) as caught:
        ENCODER.encode(text)
    return caught.value


def test_each_shape_becomes_its_cedar_value() -> None:
    encoded = encode(
        amount="80.5", currency="EUR", lines=[1, 2], urgent=True, count=-3, address={"city": "Ams"}, anything={"x": [None]}
    )
    assert encoded == {
        "order_id": "A1",
        "amount": {"__extn": {"fn": "decimal", "arg": "80.5"}},
        "currency": "EUR",
        "lines": [1, 2],
        "urgent": True,
        "count": -3,
        "address": {"city": "Ams"},
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(80, "80.0"), (80.25, "80.25"), ("80", "80.0"), ("0.0001", "0.0001"), (-1, "-1.0"), ("80.00", "80.00"), (0, "0.0")],
)
def test_a_decimal_is_written_from_its_exact_text(value: object, text: str) -> None:
    assert encode(amount=value)["amount"] == {"__extn": {"fn": "decimal", "arg": text}}


@pytest.mark.parametrize(
    "value",
    [0.12345, 1.23456, "1.00000", "1e3", "+1", "01.5", "1.", ".5", "", " 1", "１", "922337203685478", "1" * 30, True, [], {}],
)
def test_a_decimal_that_is_not_plain_or_too_fine_or_too_large_is_refused_by_name(value: object) -> None:
    error = refused(canonical({"order_id": "A1", "amount": value}).decode())  # type: ignore[dict-item]  wrong on purpose
    assert error.field == "amount"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-922337203685477, max_value=922337203685477))
@settings(deadline=None)
def test_every_decimal_that_is_accepted_means_the_same_number_to_cedar(value: Decimal) -> None:
    encoded = encode(amount=str(value))["amount"]
    assert isinstance(encoded, dict)
    same = f'permit (principal, action, resource) when {{ context.a == decimal("{value:.4f}") }};'
    request = {
        "principal": 'A::"a"',
        "action": 'Action::"a"',
        "resource": 'A::"a"',
        "context": json.dumps({"a": encoded}),
    }
    assert cedarpy.is_authorized(request, same, "[]").allowed


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"amount":1,"extra":1,"order_id":"A1"}', "extra"),
        ('{"amount":1}', "order_id"),
        ('{"amount":1,"order_id":null}', "order_id"),
        ('{"amount":1,"order_id":7}', "order_id"),
        ('{"amount":1,"order_id":{"__entity":{"id":"admin","type":"User"}}}', "order_id.__entity"),
        ('{"amount":{"__extn":{"arg":"1.0","fn":"decimal"}},"order_id":"A1"}', "amount.__extn"),
        ('{"amount":1,"anything":{"__entity":{"id":"a","type":"User"}},"order_id":"A1"}', "anything.__entity"),
        ('{"__entity":{"id":"admin","type":"User"}}', "__entity"),
        ('{"amount":1,"order_id":"A\\u0000"}', "order_id"),
        ('{"amount":1,"count":9007199254740993,"order_id":"A1"}', ""),
        ('{"amount":1,"count":1.5,"order_id":"A1"}', "count"),
        ('{"amount":1,"count":true,"order_id":"A1"}', "count"),
        ('{"amount":1,"lines":[1,null],"order_id":"A1"}', "lines[1]"),
        ('{"amount":1,"lines":"1","order_id":"A1"}', "lines"),
        ('{"address":{"zip":"1"},"amount":1,"order_id":"A1"}', "address.city"),
        ('{"address":{"city":"x","planet":"y"},"amount":1,"order_id":"A1"}', "address.planet"),
        ('{"amount":1,"order_id":"A1","urgent":"true"}', "urgent"),
        ('{"amount":1,"amount":2,"order_id":"A1"}', "amount"),
        ('{"order_id":"A1","amount":1}', ""),
        ('{"amount":1.0,"order_id":"A1"}', ""),
        ("[]", ""),
        ("{", ""),
        ('{"amount":NaN,"order_id":"A1"}', ""),
        ("[" * 100_000, ""),
    ],
)
def test_what_does_not_fit_its_shape_is_refused_by_name(text: str, field: str) -> None:
    assert refused(text).field == field


def test_null_is_absent_and_what_policy_cannot_read_is_not_shown() -> None:
    encoded = encode(currency=None, anything=None)
    assert set(encoded) == {"order_id", "amount"}


def test_text_that_only_looks_like_markup_stays_text() -> None:
    for text in ('{"__entity":{"type":"User","id":"admin"}}', "__entity", 'User::"admin"', "a\\u0000b", "9" * 40):
        assert encode(currency=text)["currency"] == text


def test_a_contract_that_declares_a_reserved_name_is_refused() -> None:
    for shape in (
        RecordShape({"__entity": StringShape()}),
        RecordShape({"a": RecordShape({"__extn": StringShape()})}),
        RecordShape({"a": SetShape(RecordShape({"__x": StringShape()}))}),
    ):
        with pytest.raises(UnusableReleaseError):
            ArgumentEncoder(msgspec.structs.replace(world.SEARCH, arguments=shape))
    for name, kind in [("id", "string"), ("roles", "set"), ("__x", "string"), ("limit", "decimal")]:
        with pytest.raises(UnusableReleaseError):
            engine(user_attributes={name: kind})
    with pytest.raises(UnusableReleaseError):
        rule = ResourceRule(type="User", id_argument="order_id", read="orders.get", attributes={})
        engine(contracts={"payments.refund": msgspec.structs.replace(world.REFUND, resource=rule)})


def test_an_array_of_things_policy_cannot_read_is_not_shown() -> None:
    contract = msgspec.structs.replace(world.SEARCH, arguments=RecordShape({"a": SetShape(OpaqueShape())}))
    assert ArgumentEncoder(contract).encode('{"a":[{"b":1.5}]}') == {}


@pytest.mark.parametrize("name", ["tenant", "refunded", "total", "tags", "lines"])
def test_a_resource_attribute_of_the_wrong_type_is_unknown(name: str) -> None:
    assert name in resource_attributes(world.REFUND, world.ORDER)
    for wrong in (None, {"__entity": {"type": "User", "id": "a"}}, b"x", [1], ("a", None)):
        spoiled = ResourceFacts(type="Order", id="A1", attributes={name: wrong})  # type: ignore[dict-item]  wrong on purpose
        assert resource_attributes(world.REFUND, spoiled) == {}
    assert resource_attributes(world.REFUND, ResourceFacts(type="Order", id="A1", attributes={"undeclared": "x"})) == {}


def test_now_has_milliseconds_and_a_range() -> None:
    assert now_section(1_767_614_400_123_999) == {"__extn": {"fn": "datetime", "arg": "2026-01-05T12:00:00.123Z"}}
    assert now_section(-1) == {"__extn": {"fn": "datetime", "arg": "1969-12-31T23:59:59.999Z"}}
    for far in (10**18, -(10**18), 10**30):
        with pytest.raises(FactsRefusedError):
            now_section(far)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["1.5", "80", "__entity", "A1", "EUR", 'User::"a"', "\ud800", "\x00", "1e5"]),
)
KEYS = st.one_of(
    st.sampled_from([*world.REFUND.arguments.fields, "city", "zip", "__entity", "__extn", "type", "id", "fn", "arg"]), st.text()
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {"order_id": st.one_of(st.just("A1"), JSON), "amount": st.one_of(st.integers(-(10**16), 10**16), st.floats(), JSON)},
    optional={
        "lines": st.one_of(st.lists(st.integers(-9, 9)), JSON),
        "address": st.one_of(st.dictionaries(st.sampled_from(["city", "zip"]), st.text()), JSON),
        "urgent": st.one_of(st.booleans(), JSON),
        "anything": JSON,
    },
)
EVERY_READER = engine(
    forbid("guard", 'context.args.amount.greaterThan(decimal("99.0")) && context.args.order_id == "x"', "amount"),
    forbid("guard", "context.args has lines && context.args.lines.contains(10)", "lines"),
    forbid("guard", 'context.args has address && context.args.address.city == "nowhere"', "address"),
    forbid("guard", "context.args has urgent && context.args.urgent && !context.args.urgent", "urgent"),
    forbid("guard", "context.args has anything", "anything"),
    forbid("guard", 'context == {"nothing": 1}', "whole"),
)


def as_text(value: object) -> str:
    """What a caller with any JSON writer could send."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@given(st.one_of(NEARLY, JSON))
@example({"__entity": {"type": "User", "id": "admin"}})
@example({"order_id": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "amount": 1})
@example({"order_id": "A1", "amount": 1, "anything": None})
@settings(max_examples=200, deadline=None)
def test_no_arguments_yield_an_error_beside_an_allow(value: object) -> None:
    text = as_text(value)
    decision = EVERY_READER.decide(refund(text))
    try:
        ENCODER.encode(text)
        accepted = True
    except FactsRefusedError:
        accepted = False
    if accepted:
        # The bytes are canonical and every policy evaluated without an error; none of them forbids what fits.
        assert isinstance(decision, Allow), decision
        check_value(json.loads(text))
        assert canonical(json.loads(text)).decode() == text
    else:
        assert isinstance(decision, Deny)
        assert decision.reasons[0].code in {Code.INVALID_ARGUMENTS, Code.INVALID_FACTS}
    shown = json.dumps(_shown(EVERY_READER, refund(text)), sort_keys=True) if accepted else ""
    assert "__entity" not in shown.replace('"__entity"', "") or '{"__entity"' not in shown


@given(st.one_of(NEARLY, JSON))
@settings(max_examples=100, deadline=None)
def test_nothing_but_declared_decimals_ever_has_an_escape_in_it(value: object) -> None:
    try:
        check_value(value)  # type: ignore[arg-type]  anything Hypothesis draws is JSON
        encoded = ENCODER.encode(canonical(value).decode())  # type: ignore[arg-type]  same
    except (AmbiguousJsonError, FactsRefusedError, ValueError):
        return
    encoded.pop("amount", None)
    assert not any(key.startswith("__") for key in _keys(encoded))


def _keys(value: object) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in _keys(inner))]
    return [key for inner in value for key in _keys(inner)] if isinstance(value, list) else []


def _shown(deciding: Engine, facts: Facts) -> dict[str, object]:
    case = Case(deciding.prepared, facts)
    try:
        case.prepare()
    except (StoppedError, FactsRefusedError):
        return {}
    found: dict[str, object] = json.loads(case.everything())
    return found


SCENES: dict[str, Facts] = {
    "refund-allowed": refund(),
    "refund-asks": refund('{"amount":"150.5","currency":"EUR","order_id":"A1"}'),
    "refund-too-much": refund('{"amount":250,"order_id":"A1"}'),
    "refund-guarded": refund(posture=Posture.GUARDED),
    "refund-tainted-unicode": refund(
        '{"address":{"city":"Zürich \U0001f600"},"amount":0.01,"lines":[2,1],"order_id":"A1"}', tainted=True, user='o"brien\\'
    ),
    "refund-resource-unknown": refund(resource=ResourceFacts(type="Order", id="A1")),
    "search-redacted": search(),
    "search-undeclared": search(arguments='{"query":"x","z":1}'),
}


def golden_engine() -> Engine:
    others = [item for item in world.permits() if item.id != "capability"]
    limit = 'permit (principal == Agent::"bot", action == Action::"payments.refund", resource) when {'
    return Engine(
        world.release(
            *others,
            policy("capability", limit + ' context.args.amount.lessThanOrEqual(decimal("200.0")) };', "limit"),
            policy("capability", 'permit (principal, action in Action::"reads", resource);', "reads"),
            policy(
                "guard",
                'forbid (principal, action == Action::"payments.refund", resource) when {'
                ' context.args.amount.greaterThan(decimal("50.0")) && !context.session.tainted };',
                "ask",
                approval="refunds",
                say="Refunds over 50 are seen by a colleague.",
            ),
            policy(
                "guard",
                'forbid (principal, action in Action::"writes", resource) when { context.session.posture != "normal" };',
                "no-writes",
                say="This session may only read now.",
            ),
            policy("data", 'forbid (principal, action in Action::"reads", resource);', "hide", obligations=("redact:email",)),
            policy(
                "delegation",
                'forbid (principal, action == Action::"payments.refund", resource)'
                " unless { resource has tenant && resource.tenant == context.session.tenant };",
                "tenant",
            ),
        )
    )


@pytest.mark.parametrize("name", sorted(SCENES))
def test_encoded_facts_and_decisions_stay_as_they_were(name: str) -> None:
    facts = SCENES[name]
    deciding = golden_engine()
    decision: Decision = deciding.decide(facts)
    outcome = {k: v for k, v in msgspec.to_builtins(decision, order="sorted").items() if k != "engine"}
    kind = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}[type(decision)]
    found = {
        "facts": msgspec.to_builtins(facts, order="sorted"),
        "context": _shown(deciding, facts),
        "decision": {**outcome, "type": kind},
    }
    path = GOLDEN / f"{name}.json"
    text = json.dumps(found, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "set INTERLOCK_UPDATE_GOLDEN=1 to accept a change, and read the diff"


def test_a_contract_can_be_any_record() -> None:
    empty = Contract(
        operation="a.b",
        tool="a",
        upstream_name="b",
        effects=world.SEARCH.effects,
        input_schema="{}",
        arguments=RecordShape({}),
        reviewed_by="ana",
    )
    assert ArgumentEncoder(empty).encode("{}") == {}
