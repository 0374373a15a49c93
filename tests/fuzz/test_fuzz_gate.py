"""A short, seeded part of what `make fuzz` does for minutes: the gate under everything that may happen to it."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import GateMachine
from tests.fuzz.world import World


@pytest.fixture
def world(postgres):
    made = World(postgres)
    yield made
    made.close()


def test_whatever_happens_in_whatever_order_the_gate_keeps_its_promises(world):
    machine = type("Machine", (GateMachine,), {"world": world})
    kept = settings(settings.get_profile("suite"), max_examples=8, stateful_step_count=15, derandomize=True, database=None)
    run_state_machine_as_test(machine, settings=kept)
