"""What a call may bring is counted before it runs."""

import msgspec
import pytest

from interlock.core.contract import Passes
from interlock.gateway.outputs import worst_labels
from interlock.release.load import from_files
from tests.support.shop import FILES

NOTE = from_files(FILES).contracts["shop.note"]


@pytest.mark.parametrize("kind", list(Passes))
def test_a_write_that_lets_anything_of_its_tool_pass_taints(kind):
    assert not worst_labels(NOTE).tainted
    assert worst_labels(msgspec.structs.replace(NOTE, passes=frozenset({kind}))).tainted
