"""What is known of tokens takes no more memory than the tokens that still hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.identity.remembered import Remembered


def test_of_an_endless_stream_of_tokens_only_those_that_hold_are_kept():
    known = Remembered(10_000)
    for now_s in range(5_000):
        known.keep(f"t{now_s}", now_s, until_s=now_s + 100, now_s=now_s)
    assert len(known) <= 200
    assert known.get("t4999") == 4999
    assert known.get("t4000") is None


def test_one_that_holds_for_long_keeps_none_of_the_others():
    known = Remembered(10_000)
    known.keep("long", 0, until_s=1e9, now_s=0)
    for now_s in range(5_000):
        known.keep(f"t{now_s}", now_s, until_s=now_s + 100, now_s=now_s)
    assert known.get("long") == 0
    assert len(known) <= 201


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 100)), max_size=60), st.integers(1, 5))
def test_there_are_never_more_than_were_allowed_and_the_newest_is_among_them(coming, most):
    known = Remembered(most)
    for now_s, (name, holds_s) in enumerate(coming):
        known.keep(f"t{name}", now_s, until_s=now_s + holds_s, now_s=now_s)
        assert known.get(f"t{name}") == now_s
        assert len(known) <= most


def test_a_token_itself_is_not_kept():
    known = Remembered(10)
    token = "a.token.that" * 10
    known.keep(token, 1, until_s=10, now_s=0)
    assert known.get(token) == 1
    assert token not in repr(vars(known))
    known.drop(token)
    assert known.get(token) is None
