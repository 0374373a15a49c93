"""Gateways are killed, or paused beyond their lease, at every named point of the path; afterwards the tool's own table is the judge.

A failure is repeated by its seed: `INTERLOCK_SEED=… pytest tests/crash`. The long run is `make chaos`.
"""

import os

import pytest

from bench.chaos.runs import at_every_point, durable

SEED = int(os.environ.get("INTERLOCK_SEED", "3"))


@pytest.fixture
def own_postgres():
    with durable() as (lease, folder):
        yield lease, folder


async def test_at_every_point_nothing_is_lost_nothing_done_twice_and_every_call_accounted_for(own_postgres):
    found = await at_every_point(*own_postgres, seed=SEED)
    assert found["duplicates"] == 0, (SEED, found)
    assert found["losses"] == 0, (SEED, found)
    assert found["claims unaccounted for"] == 0, (SEED, found)
    assert found["claims whose record is not what the tool's table says"] == 0, (SEED, found)
    assert found["ledger"] == "intact", (SEED, found)
    assert found["claims"] >= 7, (SEED, found)  # all but the one that died before its claim, which was repeated
