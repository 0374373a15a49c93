"""How a call stands to a plan: a pure function of both."""

import pytest

from interlock.core.plan import Plan, PlannedOperation, planned
from interlock.release.load import from_files
from tests.support.shop import FILES

TOOL = FILES["tools/shop.yaml"].replace("pay: {effects: [write],", "pay: {effects: [write], targets: [order_id, amount],")
CONTRACT = from_files({**FILES, "tools/shop.yaml": TOOL}).contracts["shop.pay"]


@pytest.mark.parametrize("value", ["20", "20.0", 20])
def test_numbers_are_what_they_are_and_texts_what_they_say(value):
    plan = Plan(operations=(PlannedOperation(operation="shop.pay", targets={"order_id": ("007",), "amount": ("20",)}),))
    assert planned(plan, "", CONTRACT, {"order_id": "007", "amount": value})[0].fixed
    assert not planned(plan, "", CONTRACT, {"order_id": "7", "amount": value})[0].agrees


def test_what_one_entry_says_belongs_together():
    plan = Plan(
        operations=(
            PlannedOperation(operation="shop.pay", targets={"order_id": ("A",), "amount": ("5",)}),
            PlannedOperation(operation="shop.pay", targets={"order_id": ("B",), "amount": ("900",)}),
        )
    )
    assert planned(plan, "", CONTRACT, {"order_id": "B", "amount": "900"})[0].fixed
    stands, names = planned(plan, "", CONTRACT, {"order_id": "A", "amount": "900"})
    assert (stands.operation, stands.agrees, names) == (True, False, frozenset())
