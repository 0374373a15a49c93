"""`budgets.yaml` and `entities`: what may be written, and where a mistake is found."""

import pytest

from interlock.core.budget import CEILINGS, DAY_S, Budget, Counted, Per
from interlock.core.contract import EntitiesOf
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from tests.support.shop import FILES


def loaded(budgets, **more):
    return from_files({**FILES, "budgets.yaml": budgets, **more})


def problems(budgets):
    with pytest.raises(ReleaseError) as caught:
        loaded(budgets)
    return [str(problem) for problem in caught.value.problems]


def test_a_release_that_says_nothing_has_the_ceilings():
    assert from_files(FILES).budgets == CEILINGS


def test_what_is_written_is_counted_in_exact_units():
    release = loaded(
        'paid: {sum: shop.refund.amount, per: tenant, within: 1d, limit: "1234.5", ask: refunds}\n'
        "writes-per-session: {count: writes, per: session, limit: 7}\n"
    )
    named = {budget.name: budget for budget in release.budgets}
    assert named["paid"] == Budget(
        name="paid",
        counted=Counted.SUM,
        per=Per.TENANT,
        limit=12_345_000,
        window_s=DAY_S,
        on=("shop.refund",),
        argument="amount",
        rule="refunds",
    )
    assert named["writes-per-session"].limit == 7
    assert len(named) == len(CEILINGS) + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a: {count: calls, limit: 1}", "per"),
        ("a: {count: calls, per: tenant, limit: 1}", "needs a window"),
        ("a: {count: calls, per: call, limit: 1, within: 1h}", "not for a single call"),
        ("a: {count: calls, per: run, limit: 1, within: 32d}", "31d at most"),
        ("a: {count: calls, per: run, limit: 1, within: soon}", "a time such as"),
        ("a: {count: calls, per: run, limit: -1}", "zero or more"),
        ('a: {count: calls, per: run, limit: "5"}', "zero or more"),
        ('a: {sum: shop.pay.amount, per: run, limit: "1.00001"}', "four digits"),
        ('a: {sum: shop.pay.amount, per: run, limit: "NaN"}', "four digits"),
        ("a: {sum: shop.pay.order_id, per: run, limit: 5}", "no number"),
        ("a: {sum: shop.gone.amount, per: run, limit: 5}", "no number"),
        ("a: {sum: shop.pay.amount, on: shop.pay, per: run, limit: 5}", "names its operation already"),
        ("a: {count: calls, sum: shop.pay.amount, per: run, limit: 5}", "one of count"),
        ("a: {per: run, limit: 5}", "one of count"),
        ("a: {count: sum, per: run, limit: 5}", "one of count"),
        ("a: {count: calls, per: run, limit: 5, ask: nobody}", "no approval rule"),
        ("a: {count: calls, on: shop.gone, per: run, limit: 5}", "no operation"),
        ("a: {count: lookups, per: run, limit: 5}", "per session or lineage"),
        ("a: {count: lookups, per: session, limit: 5, ask: refunds}", "nobody can be asked"),
        ("A b: {count: calls, per: run, limit: 5}", "cannot be a budget's name"),
        ("handed-down: {count: calls, per: session, limit: 5}", "cannot be a budget's name"),
        ("calls-per-run: {count: writes, per: run, limit: 5}", "is the ceiling of"),
        ("calls-per-run: {count: calls, on: shop.pay, per: run, limit: 5}", "is the ceiling of"),
        ("a: {count: calls, per: run, limit: 5, then: stop}", "then"),
    ],
)
def test_each_mistake_is_named_with_file_and_line(line, message):
    (found,) = problems(f"fine: {{count: calls, per: run, limit: 1}}\n{line}\n")
    assert found.startswith("budgets.yaml:2: ")
    assert message in found


def with_entities(entities):
    tools = FILES["tools/shop.yaml"].replace(
        "note: {effects: [write], input: {text: string}",
        f"note: {{effects: [write], entities: {entities}, input: {{text: string, list?: [{{a: string}}], n?: integer, d?: decimal}}",
    )
    return from_files({**FILES, "tools/shop.yaml": tools}).contracts["shop.note"]


@pytest.mark.parametrize(
    ("written", "arguments", "counted"),
    [
        ("3", {}, 3),
        ("0", {}, 0),
        ("n", {"n": 4}, 4),
        ("n", {"n": -4}, None),
        ("n", {"n": True}, None),
        ("n", {}, None),
        ("len(list)", {"list": [{}, {}]}, 2),
        ("len(list)", {"list": []}, 0),
        ("len(list)", {"list": "ab"}, None),
        ("len(list)", {}, None),
    ],
)
def test_entities_are_counted_by_the_arguments_or_not_at_all(written, arguments, counted):
    assert with_entities(written).entities_in(arguments) == counted


def test_entities_are_a_closed_language():
    assert with_entities("len(list)").entities == EntitiesOf(argument="list", length=True)
    for written in ("-1", "n+1", "len(text)", "len(list)+1", "text", "d", "gone", "len(gone)", "'len (list)'", "__import__"):
        with pytest.raises(ReleaseError, match="entities is a number"):
            with_entities(written)
