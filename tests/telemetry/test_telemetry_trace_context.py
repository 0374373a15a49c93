"""`traceparent` of a stranger: what is of the form is read, what is not is nothing."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.trace_context import TraceContext, first_traced, read_traceparent
from interlock.server import envelope as rpc

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_what_is_of_the_form_is_read_and_written_as_version_00(text, sampled):
    found = read_traceparent(text)
    assert found == TraceContext(trace_id=TRACE, span_id=SPAN, sampled=sampled)
    assert found.text == f"00-{TRACE}-{SPAN}-0{int(sampled)}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        7,
        {"traceparent": GOOD},
        [GOOD],
        GOOD.upper(),
        GOOD + "-more",
        GOOD + "\r\nx-evil: 1",
        " " + GOOD,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-" + "a" * 200,
        f"cc-{TRACE}-{SPAN}-01-\r\nx-evil: 1",
        GOOD.replace("4", "٤"),  # a digit, elsewhere
    ],
)
def test_what_is_not_of_the_form_is_nothing(text):
    assert read_traceparent(text) is None


ALTERED = st.builds(
    lambda at, text: GOOD[:at] + text + GOOD[at + len(text) :], st.integers(0, 60), st.text("01af-g\n", max_size=3)
)


@given(st.text(max_size=80) | ALTERED)
@settings(max_examples=60)
def test_whatever_is_read_is_written_in_fifty_five_plain_characters(text):
    found = read_traceparent(text)
    if found is not None:
        assert len(found.text) == 55
        assert set(found.text) <= set("0123456789abcdef-")
        assert read_traceparent(found.text) == found


def proposal(meta, header=None):
    params = rpc.CallParams(name="a.b", meta=meta)
    return rpc.proposal_of(params, rpc.Came(version=rpc.STATELESS, traceparent=header))


def test_what_stands_in_meta_goes_before_the_header_and_a_wrong_one_harms_no_call():
    other = GOOD.replace("4b", "aa")
    assert proposal({"traceparent": other}, GOOD).trace == read_traceparent(other)
    assert proposal({}, GOOD).trace == read_traceparent(GOOD)
    assert proposal({"traceparent": {"deep": [1]}}, GOOD).trace == read_traceparent(GOOD)
    assert proposal({"traceparent": 7}).trace is None
    assert first_traced() is None


def test_of_tracestate_and_baggage_nothing_is_kept_so_nothing_can_leave_by_them():
    """They hold any text that an agent likes, and no policy has looked at it."""
    canary = "user=jane,secret=hunter2"
    made = proposal({"traceparent": GOOD, "tracestate": canary, "baggage": canary})
    assert "hunter2" not in repr(made)
    assert msgspec.structs.asdict(made)["trace"] == read_traceparent(GOOD)
