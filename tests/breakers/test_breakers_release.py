"""What a contract may say about instability, and what it may not."""

import pytest

from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from tests.breakers.world import BREAKER, WEAK, files


def contract(line):
    return from_files(
        {
            **files(),
            "tools/weak.yaml": WEAK.replace("reviewed: {by: a}}\n  crowd", f"{line}, reviewed: {{by: a}}}}\n  crowd") % BREAKER,
        }
    )


def test_what_is_said_of_the_tool_holds_for_each_operation_that_does_not_say_its_own():
    release = from_files(files("breaker: {min_calls: 7}\nbulkhead: {at_once: 9}"))
    assert release.contracts["weak.look"].breaker.min_calls == 7
    assert release.contracts["weak.look"].bulkhead.at_once == 9
    assert release.contracts["weak.crowd"].bulkhead.at_once == 2
    assert release.contracts["shop.stock"].retry.attempts == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("retry: {attempts: 2}", "only a read, or a write with the tool's own idempotency_argument"),
        ("degrade: {cache_s: 5}", "only a read may answer with what it answered before"),
        ("breaker: {failing_percent: 0}", "breaker.failing_percent is between 1 and 100, not 0"),
        ("bulkhead: {at_once: 0}", "bulkhead.at_once is between 1 and 2000, not 0"),
        ("breaker: {min_call: 3}", "did you mean 'min_calls'?"),
        ("retry: {attempts: 9}", "retry.attempts is between 1 and 5, not 9"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe_is_refused_with_its_line(line, said):
    with pytest.raises(ReleaseError) as refused:
        contract(line)
    assert said in str(refused.value)
    assert "tools/weak.yaml" in str(refused.value)


def test_a_write_with_the_tools_own_key_may_be_retried():
    release = contract("idempotency_argument: item, retry: {attempts: 2}")
    assert release.contracts["weak.send"].retry.attempts == 2
