"""The table of where a call's time goes counts every sample once."""

from bench.profile import STAGES, read_stacks, rendered, shares

SAMPLES = """\
run (asyncio/runners.py:118);Gate.call (interlock/gateway/gate.py:1);Engine.decide (interlock/policy/engine.py:1);evaluate (interlock/policy/evaluate.py:77) 6
run (asyncio/runners.py:118);Gate.call (interlock/gateway/gate.py:1);Engine.decide (interlock/policy/engine.py:1) 2
_bootstrap (threading.py:1002);LeaseKeeper._live (interlock/app/leases.py:128) 1
run (asyncio/runners.py:118) 1
"""  # as the profiler writes them


def test_each_sample_belongs_to_the_deepest_stage_that_it_shows_and_none_is_lost():
    found = shares(read_stacks(SAMPLES))
    assert found["decision: Cedar itself"] == 0.6
    assert found["decision: all else"] == 0.2
    assert round(sum(found.values()), 9) == 1
    assert set(found) == {stage for stage, _ in STAGES}


def test_what_is_next_to_nothing_is_not_in_the_table():
    counted = dict.fromkeys(
        ("gateway us", "postgres us", "commits", "log flushes", "log records", "log bytes", "buffers"), 1_000.0
    )
    text = rendered(shares(read_stacks(SAMPLES)), counted, counted)
    assert "| decision: Cedar itself | 60 % | 600 |" in text
    assert "| telemetry |" not in text
