"""What each form of a fact about the past means, on small timelines. The golden file is to be read by people."""

import pytest

from interlock.core.history import PastCall, keep
from interlock.policy.history import Present, recall
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from tests.support.golden import golden
from tests.support.shop import FILES

HISTORY = """
read_person: {formerly: shop.person, within: 10m}
person_now_or_before: {once: shop.person, within: 10m}
paid_it_before: {formerly: shop.pay, matching: [order_id], within: 10m}
payments: {count: shop.pay, within: 10m}
payments_with_this: {count: shop.pay, within: 10m, with_this: true}
payments_here: {count: shop.pay, per: session}
payments_done: {count: shop.pay, within: 10m, done: true}
paid: {sum: shop.pay.amount, within: 10m}
paid_with_this: {sum: shop.pay.amount, within: 10m, with_this: true}
paid_for_it: {sum: shop.pay.amount, matching: [order_id], within: 10m}
orders: {distinct: shop.pay.order_id, within: 10m}
orders_with_this: {distinct: shop.pay.order_id, within: 10m, with_this: true}
paid_since_look: {formerly: shop.pay, since: shop.stock, per: session}
looked_up_since_pay: {formerly: shop.stock, since: shop.pay, per: session, done: true}
paid_a1: {formerly: shop.pay, where: {order_id: [A1, A2]}, within: 10m}
"""
RELEASE = from_files({**FILES, "history.yaml": HISTORY})
CONTRACTS = RELEASE.contracts
FACTS = {fact.name: fact for fact in RELEASE.history}
NOW_US = 1_000_000_000_000
LINEAGE = "lin_1"


def past(operation, ago_s, state="succeeded", session="s1", unsent=False, known=True, **arguments):
    contract = CONTRACTS[f"shop.{operation}"]
    kept = keep(contract, arguments, arguments if known else (), LINEAGE)
    identity = f"{operation}@{ago_s}{session}"
    return PastCall(
        claim_id=identity,
        call_id=f"call {operation} {ago_s:g} s ago",
        session_id=session,
        lineage_id=LINEAGE,
        keyed_by=LINEAGE,
        operation=contract.operation,
        at_us=NOW_US - int(ago_s * 1_000_000),
        state=state,
        unsent=unsent,
        values=kept.v,
        units=kept.u,
    )


def says(name, *calls, call="pay", is_complete=True, **arguments):
    contract = CONTRACTS[f"shop.{call}"]
    arguments = arguments or ({"order_id": "A1", "amount": "5.00"} if call == "pay" else {})
    present = Present(contract=contract, arguments=arguments, lineage_id=LINEAGE, session_id="s1", at_us=NOW_US)
    return recall(FACTS[name], calls, present, CONTRACTS, is_complete=is_complete).value


def pay(order_id, amount, ago_s, **more):
    return past("pay", ago_s, order_id=order_id, amount=amount, **more)


A1, A1_OLD, A2 = pay("A1", "20.00", 60), pay("A1", "7.50", 601), pay("A2", "30.00", 120)
TIMELINES = [
    # fact, what happened (oldest first), present call
    ("read_person", "nothing", (), {}),
    ("read_person", "a person read 60 s ago", (past("person", 60),), {}),
    ("read_person", "one read just now", (past("person", 0),), {}),
    ("read_person", "one read exactly 10 min ago: the edge counts", (past("person", 600),), {}),
    ("read_person", "one read a millionth of a second before that", (past("person", 600.000001),), {}),
    ("read_person", "the clock of the database is 2 s ahead", (past("person", -2),), {}),
    ("read_person", "a read under way", (past("person", 1, state="claimed"),), {}),
    ("read_person", "a read that failed at the tool", (past("person", 1, state="failed"),), {}),
    ("read_person", "a read that never reached the tool", (past("person", 1, state="failed", unsent=True),), {}),
    ("read_person", "a read in doubt", (past("person", 1, state="in_doubt"),), {}),
    ("read_person", "another operation", (past("stock", 1),), {}),
    ("read_person", "in another session of the lineage", (past("person", 1, session="s0"),), {}),
    ("person_now_or_before", "nothing; this call is no such call", (), {}),
    ("person_now_or_before", "nothing; this call is one", (), {"call": "person"}),
    ("read_person", "nothing; this call is one, which is not before itself", (), {"call": "person"}),
    ("paid_it_before", "the same order paid", (A1,), {}),
    ("paid_it_before", "another order paid", (A2,), {}),
    ("paid_it_before", "paid before anybody kept its arguments", (pay("A9", "1.00", 5, known=False),), {}),
    ("paid_it_before", "another order paid; this call names none", (A2,), {"call": "note"}),
    ("payments", "two, and one too old", (A1_OLD, A2, A1), {}),
    ("payments_with_this", "two, and one too old", (A1_OLD, A2, A1), {}),
    ("payments_here", "one here, one in another session", (A1, pay("A2", "1.00", 9, session="s0")), {}),
    ("payments_here", "one a day ago, in this session", (pay("A1", "1.00", 86_400),), {}),
    ("payments_done", "one done, one under way, one failed", (A1, pay("A2", "1", 2, state="claimed"), pay("A3", "1", 1, state="failed")), {}),
    ("payments", "one done, one under way, one failed", (A1, pay("A2", "1", 2, state="claimed"), pay("A3", "1", 1, state="failed")), {}),
    ("paid", "20.00 and 30.00, and 7.50 too long ago", (A1_OLD, A2, A1), {}),
    ("paid", "nothing", (), {}),
    ("paid_with_this", "20.00 and 30.00, and this 5.00", (A2, A1), {}),
    ("paid_for_it", "20.00 for this order and 30.00 for another", (A2, A1), {}),
    ("paid", "an amount that nobody kept is more than any limit", (A1, pay("A9", "1.00", 5, known=False)), {}),
    ("orders", "two orders in three payments", (A1, A2, pay("A1", "1.00", 5)), {}),
    ("orders", "one known and one that nobody kept", (A1, pay("A9", "1.00", 5, known=False)), {}),
    ("orders_with_this", "one order, and this call's, which is the same", (A1,), {}),
    ("orders_with_this", "one order, and this call's, which is another", (A2,), {}),
    ("paid_since_look", "look, then pay", (past("stock", 20), pay("A1", "1", 10)), {}),
    ("paid_since_look", "pay, then look", (pay("A1", "1", 20), past("stock", 10)), {}),
    ("paid_since_look", "pay, and never a look", (pay("A1", "1", 20),), {}),
    ("paid_since_look", "pay, then a look under way", (pay("A1", "1", 20), past("stock", 10, state="claimed")), {}),
    ("paid_since_look", "pay, then a look that failed", (pay("A1", "1", 20), past("stock", 10, state="failed")), {}),
    ("paid_since_look", "both began together", (past("stock", 10), pay("A1", "1", 10)), {}),
    ("looked_up_since_pay", "pay, then look", (pay("A1", "1", 20), past("stock", 10)), {}),
    ("looked_up_since_pay", "look, then pay", (past("stock", 20), pay("A1", "1", 10)), {}),
    ("looked_up_since_pay", "look, and never a payment", (past("stock", 20),), {}),
    ("looked_up_since_pay", "both began together", (pay("A1", "1", 10), past("stock", 10)), {}),
    ("paid_a1", "A2 paid, which is one of the two", (A2,), {}),
    ("paid_a1", "A3 paid", (pay("A3", "1.00", 5),), {}),
    ("paid_a1", "paid before anybody kept its arguments", (pay("A3", "1.00", 5, known=False),), {}),
    ("read_person", "older calls were left out", (), {"is_complete": False}),
    ("payments_done", "older calls were left out", (A1,), {"is_complete": False}),
]  # fmt: skip


def test_each_form_says_what_it_is_meant_to():
    lines = []
    for name, what, calls, more in TIMELINES:
        lines.append(f"{name:22} {what:62} {says(name, *calls, **more)}".rstrip())
    golden("history/golden/forms.txt", HISTORY.lstrip() + "\n" + "\n".join(lines) + "\n")


def test_what_made_it_so_is_told_with_what_it_brought():
    present = Present(contract=CONTRACTS["shop.note"], arguments={}, lineage_id=LINEAGE, session_id="s1", at_us=NOW_US)
    because = recall(FACTS["read_person"], (past("person", 60), past("person", 5)), present, CONTRACTS).because
    assert [(item.call_id, item.brought) for item in because] == [
        ("call person 60 s ago", ("untrusted content", "pii data")),
        ("call person 5 s ago", ("untrusted content", "pii data")),
    ]


def test_what_is_kept_of_an_argument_means_nothing_in_another_lineage():
    contract = CONTRACTS["shop.pay"]
    one, other = (keep(contract, {"order_id": "A1"}, ["order_id"], lineage) for lineage in ("lin_1", "lin_2"))
    assert one.v["order_id"] != other.v["order_id"]
    assert "A1" not in str(one)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("x: {formerly: shop.nothing, within: 1h}", "there is no operation 'shop.nothing'"),
        ("x: {formerly: destructive, within: 1h}", "no operation of this release is meant by that"),
        ("x: {formerly: shop.pay}", "say how far back it looks"),
        ("x: {formerly: shop.pay, within: 40d}", "31d at most"),
        ("x: {formerly: shop.pay, count: shop.pay, within: 1h}", "say one of formerly, once, count, distinct, sum"),
        ("x: {within: 1h}", "say one of"),
        ("x: {sum: shop.pay.order_id, within: 1h}", "not a number among an operation's arguments"),
        ("x: {distinct: shop.pay.nothing, within: 1h}", "not an argument of an operation"),
        ("x: {count: shop.pay, matching: [item], within: 1h}", "shop.pay has no argument 'item'"),
        ("x: {count: shop.pay, matching: {order_id: nowhere}, within: 1h}", "no operation has an argument 'nowhere'"),
        ("x: {count: shop.pay, where: {order_id: null}, within: 1h}", "give order_id a value"),
        ("x: {once: shop.pay, with_this: true, within: 1h}", "looks at the present call anyway"),
        ("x: {distinct: shop.pay.order_id, per: work, within: 1h, done: true}", "cannot be told apart surely enough"),
        ("x: {formerly: shop.pay, per: work}", "say how far back it looks"),
        ("X-1: {count: shop.pay, within: 1h}", "cannot be a fact's name"),
        ("x: {count: shop.pay, within: 1h, per: planet}", "per"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_named(declared, told):
    with pytest.raises(ReleaseError) as error:
        from_files({**FILES, "history.yaml": declared})
    assert told in str(error.value)
    assert "history.yaml:1" in str(error.value)


def test_a_policy_that_reads_what_is_not_declared_does_not_load():
    policy = '@id("x") @owner("security") forbid (principal, action, resource) when { context.history.nothing };'
    with pytest.raises(ReleaseError):
        from_files({**FILES, "history.yaml": HISTORY, "policies/guard/x.cedar": policy})
