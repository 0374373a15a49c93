"""Columns on their way to Postgres, written as it reads arrays."""

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.store.batch import arrays

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["NULL", "null", "", '"', "\\", '\\"', "{", "}", ",", "{a,b}", " a ", "\n", "],[", "\\x00", "\\\\x"]
)


@given(
    st.lists(st.none() | texts, max_size=6),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6),
    st.lists(st.binary(max_size=32), max_size=3),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_stands_in_a_column_arrives_as_it_is(database_urls, told, numbers, hashes):
    connection = await asyncpg.connect(database_urls.app)
    flags = [None if number is None else number > 0 for number in numbers]
    columns = arrays((told, numbers, flags, ["\\x" + one.hex() for one in hashes], ()))
    row = await connection.fetchrow(
        "SELECT $1::text::text[], $2::text::bigint[], $3::text::boolean[], $4::text::bytea[], $5::text::text[]", *columns
    )
    await connection.close()
    assert list(row) == [told, numbers, flags, hashes, []]
