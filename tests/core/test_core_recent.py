"""What a process remembers is bounded, whatever comes and in whatever order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.recent import Recent


def test_of_many_the_ones_used_last_are_kept():
    known = Recent(3)
    for number in range(100):
        known.put(number, str(number))
        known.get(97)
    assert list(known) == [98, 99, 97]
    assert known.get(98) == "98"
    assert known.get(1) is None


def test_what_grows_is_measured_again_and_pushes_others_out():
    known = Recent(100, most_size=10, size=len)
    first, second = [1], [2]
    known.put("first", first)
    known.put("second", second)
    second.extend(range(9))
    known.put("second", second)
    assert list(known) == ["second"]
    assert known.size == 10


def test_the_one_that_was_put_last_stays_however_large_it_is():
    known = Recent(100, most_size=10, size=len)
    known.put("small", [1])
    known.put("large", list(range(1_000)))
    assert list(known) == ["large"]
    known.put("small", [1])
    assert (list(known), known.size) == (["small"], 1)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "pop", "clear"]), st.integers(0, 9), st.integers(0, 8)), max_size=60),
    st.integers(1, 5),
    st.integers(1, 20),
)
def test_there_is_never_more_than_was_allowed(steps, most, most_size):
    known = Recent(most, most_size=most_size, size=lambda value: value[1])
    for doing, key, size in steps:
        match doing:
            case "put":
                known.put(key, (key, size))
                assert known.get(key) == (key, size)
            case "get":
                assert known.get(key) in (None, *((key, other) for other in range(9)))
            case "pop":
                known.pop(key)
                assert known.get(key) is None
            case _:
                known.clear()
        assert len(known) <= most
        assert known.size == sum(known.get(name)[1] for name in list(known))
        assert known.size <= most_size or len(known) == 1
