"""Evidence is honest: only a mark that is the call's own proves it, and only a complete reading disproves it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.contract import KEY, Evidence, Sign
from interlock.gateway.evidence import Told, judge
from interlock.gateway.released import RawOutput

MARK = Evidence(read="t.list", arguments={}, signs=(Sign(path="rows[].key", argument=KEY),))
GREW = Evidence(read="t.list", arguments={}, signs=(Sign(path="total", argument="amount", at_least=True),))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["rows", "key", "total", "x"]), inside),
    max_leaves=10,
)


@settings(deadline=None)
@given(keys=st.lists(st.sampled_from(["mine", "other", "another", None])))
def test_a_complete_list_tells_exactly_whether_the_key_is_in_it(keys):
    reading = judge(MARK, {}, "mine", RawOutput(structured={"rows": [{"key": key} for key in keys]}))
    assert reading.told is (Told.DONE if "mine" in keys else Told.NOT_DONE)


@settings(deadline=None)
@given(record=st.dictionaries(st.sampled_from(["rows", "total", "x"]), JSON))
def test_whatever_a_tool_says_done_needs_the_key_itself(record):
    assert judge(MARK, {}, "the key", RawOutput(structured=record)).told is not Told.DONE
    assert judge(GREW, {"amount": 3}, "the key", RawOutput(structured=record)).told is not Told.DONE


@settings(deadline=None)
@given(record=st.dictionaries(st.sampled_from(["x", "y"]), JSON))
def test_a_record_without_the_place_says_nothing(record):
    for evidence in (MARK, GREW):
        assert judge(evidence, {"amount": 3}, "k", RawOutput(structured=record)).told is Told.UNCLEAR


def test_a_number_only_disproves():
    for total, told in (("2.99", Told.NOT_DONE), ("3.00", Told.UNCLEAR), (3, Told.UNCLEAR), ("much", Told.UNCLEAR)):
        assert judge(GREW, {"amount": "3.00"}, "k", RawOutput(structured={"total": total})).told is told


def test_an_error_or_a_text_says_nothing():
    for raw in (RawOutput(is_error=True, structured={"rows": []}), RawOutput(content=({"type": "text", "text": "none"},))):
        assert judge(MARK, {}, "mine", raw).told is Told.UNCLEAR


def test_a_list_of_which_one_row_cannot_be_read_does_not_disprove():
    assert judge(MARK, {}, "mine", RawOutput(structured={"rows": [{"id": 1}]})).told is Told.UNCLEAR
