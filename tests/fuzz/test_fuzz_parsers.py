"""A short, seeded part of what `make fuzz` does for minutes: every parser that meets bytes from outside."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated(draw, seeds):
    """A seed with a part of it taken out, or doubled, or replaced by anything."""
    seed = draw(st.sampled_from(seeds))
    at, end = sorted((draw(st.integers(0, len(seed))), draw(st.integers(0, len(seed)))))
    between = draw(
        st.binary(max_size=8)
        | st.just(seed[at:end] * 2)
        | st.sampled_from((b"", b"[" * 1_000, b'"\\ud800"', b"\xff", b"\x00", b"1e999", b"9" * 5_000))
    )
    return seed[:at] + between + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_a_parser_reads_or_refuses_it_and_keeps_its_law(name):
    @settings(settings.get_profile("suite"), max_examples=10 if name == "release_file" else 40, derandomize=True, database=None)
    @given(st.binary(max_size=200) | mutated(SEEDS[name]))
    def law(data):
        TARGETS[name](data)

    for seed in SEEDS[name]:
        law = example(seed)(law)
    law()
