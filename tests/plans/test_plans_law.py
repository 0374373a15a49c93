"""How a call stands to a plan: a pure function of both."""

import pytest

from interlock.core.plan import NONE_PLANNED, Plan, PlannedOperation, PlannedSource, planned
from interlock.release.load import from_files
from tests.support.shop import FILES

TOOL = FILES["tools/shop.yaml"].replace("pay: {effects: [write],", "pay: {effects: [write], targets: [order_id, amount],")
CONTRACT = from_files({**FILES, "tools/shop.yaml": TOOL}).contracts["shop.pay"]


def nowhere(_value, _sources):
    return False


@pytest.mark.parametrize("value", ["20", "20.0", 20])
def test_numbers_are_what_they_are_and_texts_what_they_say(value):
    plan = Plan(operations=(PlannedOperation(operation="shop.pay", targets={"order_id": ("007",), "amount": ("20",)}),))
    assert planned(plan, "", CONTRACT, {"order_id": "007", "amount": value}, nowhere)[0].fixed
    assert not planned(plan, "", CONTRACT, {"order_id": "7", "amount": value}, nowhere)[0].agrees


def test_what_one_entry_says_belongs_together():
    plan = Plan(
        operations=(
            PlannedOperation(operation="shop.pay", targets={"order_id": ("A",), "amount": ("5",)}),
            PlannedOperation(operation="shop.pay", targets={"order_id": ("B",), "amount": ("900",)}),
        )
    )
    assert planned(plan, "", CONTRACT, {"order_id": "B", "amount": "900"}, nowhere)[0].fixed
    stands, names = planned(plan, "", CONTRACT, {"order_id": "A", "amount": "900"}, nowhere)
    assert (stands.operation, stands.agrees, names) == (True, False, NONE_PLANNED)


def test_a_value_from_another_place_than_planned_contradicts_the_plan_as_much_as_another_value():
    source = PlannedSource(operation="shop.stock", field="item")
    entry = PlannedOperation(operation="shop.pay", targets={"amount": ("5",)}, sources={"order_id": (source,)})
    plan = Plan(operations=(entry,))

    def held(value, sources):
        return (value, sources) == ("A", (source,))

    stands, targets = planned(plan, "", CONTRACT, {"order_id": "A", "amount": "5"}, held)
    assert (stands.agrees, stands.fixed, targets.fixed, targets.sourced) == (True, False, {"amount"}, {"order_id"})
    anywhere = PlannedOperation(operation="shop.pay", sources={"order_id": (PlannedSource(operation="shop.stock"), source)})
    for value, expected in (("A", ({"order_id"}, set())), ("A1", (set(), {"order_id"}))):

        def somewhere(asked, sources):
            return asked == "A" or any(not place.field for place in sources)

        _, targets = planned(Plan(operations=(anywhere,)), "", CONTRACT, {"order_id": value}, somewhere)
        assert (targets.sourced, targets.quoted) == expected
    for arguments in ({"order_id": "B", "amount": "5"}, {"order_id": "A", "amount": "6"}, {"amount": "5"}):
        assert planned(plan, "", CONTRACT, arguments, held)[0].agrees is False
