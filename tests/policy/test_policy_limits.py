"""Which limit stood in the way: said in words, never of a call that no limit stops, and with no part in the decision."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.policy.limits import first_unmet
from interlock.release.load import from_files
from interlock.release.model import Limit
from tests.support.shop import FILES


def limits(**rules):
    encode = msgspec.json.encode
    return tuple(
        Limit(argument=name, verb=verb, value=encode(value).decode())
        for name, rule in rules.items()
        for verb, value in rule.items()
    )


def said(*grants, **arguments):
    found = first_unmet(grants, msgspec.json.encode(arguments).decode())
    return None if found is None else (found.argument, found.say)


MONEY = limits(amount={"min": "0.01", "max": "200.00"}, currency={"in": ["EUR", "USD"]})


@pytest.mark.parametrize(
    ("grants", "arguments", "expected"),
    [
        ([MONEY], {"amount": "9999.00", "currency": "EUR"}, ("amount", "`amount` has to be at most 200.00.")),
        ([MONEY], {"amount": "-1", "currency": "GBP"}, ("amount", "`amount` has to be at least 0.01.")),
        ([MONEY], {"amount": 5, "currency": "GBP"}, ("currency", "`currency` has to be one of EUR, USD.")),
        ([MONEY], {"amount": "5.00"}, ("currency", "`currency` has to be given.")),
        ([MONEY], {"amount": "200.0", "currency": "USD"}, None),
        ([limits(to={"like": "*@a.example"})], {"to": "x@b.example"}, ("to", "`to` has to be like *@a.example.")),
        ([limits(to={"like": "*@a.example"})], {"to": "@a.example"}, None),
        ([limits(to={"like": "a*b*a"})], {"to": "aba"}, None),
        ([limits(to={"like": "a*ba"})], {"to": "a"}, ("to", "`to` has to be like a*ba.")),
        ([limits(n={"over": 1, "under": 3})], {"n": 3}, ("n", "`n` has to be less than 3.")),
        ([limits(ok={"is": True})], {"ok": False}, ("ok", "`ok` has to be True.")),
        ([limits(tags={"in": ["a", "b"]})], {"tags": ["a", "c"]}, ("tags", "`tags` has to be one of a, b.")),
        (
            [MONEY, limits(amount={"max": "10"})],
            {"amount": "300", "currency": "GBP"},
            ("amount", "`amount` has to be at most 10."),
        ),
        ([], {"amount": "1"}, None),
        ([MONEY, ()], {"amount": "9999"}, None),
    ],
)
def test_the_nearest_grant_tells_its_first_limit_that_is_not_met(grants, arguments, expected):
    assert said(*grants, **arguments) == expected


@settings(max_examples=60, deadline=None)
@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_like_is_said_as_it_is_decided(pattern, text):
    import re  # noqa: PLC0415

    matches = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    assert (said(limits(a={"like": pattern}), a=text) is None) == matches


@settings(max_examples=60, deadline=None)
@given(st.decimals(Decimal(-3), Decimal(3), places=2), st.decimals(Decimal(-3), Decimal(3), places=2))
def test_numbers_are_compared_as_numbers(value, bound):
    assert (said(limits(a={"max": str(bound)}), a=str(value)) is None) == (value <= bound)


def test_a_release_carries_the_limits_of_its_grants_and_of_nothing_else():
    carrying = {policy.id: policy.limits for policy in from_files(FILES).policies if policy.limits}
    assert carrying
    assert all(name.startswith("grant:") and name.endswith(":capability") for name in carrying)
