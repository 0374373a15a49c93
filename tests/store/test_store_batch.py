"""Columns on their way to Postgres, written as it reads arrays."""

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.store.batch import _texts, _values

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["NULL", "null", "", '"', "\\", '\\"', "{", "}", ",", "{a,b}", " a ", "\n"]
)


@given(st.lists(st.none() | texts, max_size=6), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_stands_in_a_column_arrives_as_it_is(database_urls, told, numbers):
    connection = await asyncpg.connect(database_urls.app)
    row = await connection.fetchrow(
        "SELECT $1::text::text[], $2::text::bigint[], $3::text::boolean[]",
        _texts(told),
        _values(numbers),
        _values([None if number is None else number > 0 for number in numbers]),
    )
    await connection.close()
    assert row[0] == told
    assert row[1] == numbers
    assert row[2] == [None if number is None else number > 0 for number in numbers]
