"""Which earlier call counts as the same one."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.canonical import canonical
from interlock.core.contract import Contract, RecordShape, Repeat
from interlock.core.terms import Effect
from interlock.core.who import Lineage
from interlock.gateway.keys import call_hash, sameness

LINEAGE = Lineage(tenant="acme", environment="prod", agent="support-bot", user="ana")
REFUND = Contract(
    operation="payments.refund",
    tool="payments",
    upstream_name="refund",
    effects=frozenset({Effect.WRITE}),
    input_schema="{}",
    arguments=RecordShape(fields={}),
)


def same(contract=REFUND, lineage=LINEAGE, *, caller_key="", repeat_of="", **arguments):
    return sameness(contract, lineage, arguments, canonical(arguments), caller_key=caller_key, repeat_of=repeat_of)


def key(*args, **kwargs):
    return same(*args, **kwargs).idempotency.key


def test_a_read_has_no_key():
    reading = msgspec.structs.replace(REFUND, effects=frozenset({Effect.READ}))
    assert same(reading, order="A1").idempotency is None


def test_a_fetch_that_also_sends_out_is_not_a_read():
    fetching = msgspec.structs.replace(REFUND, effects=frozenset({Effect.READ, Effect.EGRESS}))
    assert same(fetching, url="x").idempotency is not None


def test_without_a_key_the_same_arguments_are_the_same_call_for_ten_minutes():
    found = same(order="A1", amount=5).idempotency
    assert found.source == "arguments"
    assert found.window_s == 600
    assert found.key == key(amount=5, order="A1")
    assert found.key != key(order="A1", amount=6)


def test_the_callers_key_comes_first_and_does_not_hide_other_arguments():
    first, second = same(caller_key="k1", amount=5), same(caller_key="k1", amount=6)
    assert first.idempotency == second.idempotency
    assert first.same_hash != second.same_hash


def test_once_per_arguments_decide_sameness_whatever_the_others_say():
    contract = msgspec.structs.replace(REFUND, once_per=("order", "amount"), once_window_s=60)
    first, second = same(contract, order="A1", amount=5, note="x"), same(contract, order="A1", amount=5, note="y")
    assert first == second
    assert first.idempotency.window_s == 60


def test_a_contract_may_let_identical_calls_repeat():
    assert same(msgspec.structs.replace(REFUND, repeat=Repeat.ALLOW), text="hi").idempotency is None


def test_repeating_on_purpose_is_a_new_call_that_is_itself_done_once():
    again = key(order="A1", repeat_of="call_1")
    assert again != key(order="A1")
    assert again == key(order="A1", repeat_of="call_1")


@given(st.tuples(*[st.text(max_size=3)] * 4), st.tuples(*[st.text(max_size=3)] * 4))
def test_no_two_lineages_share_a_key(one, two):
    def of(parts):
        return key(REFUND, Lineage(tenant=parts[0], environment=parts[1], agent=parts[2], user=parts[3]), a=1)

    assert (of(one) == of(two)) == (one == two)


@given(st.text(), st.binary(), st.text(), st.binary())
def test_different_calls_have_different_hashes(operation, arguments, other_operation, other_arguments):
    same_call = (operation, arguments) == (other_operation, other_arguments)
    assert (call_hash(operation, arguments) == call_hash(other_operation, other_arguments)) == same_call
