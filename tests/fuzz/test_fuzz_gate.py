"""A short, seeded part of what `make fuzz` does for minutes: the gate under everything that may happen to it."""

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import GateMachine


def test_whatever_happens_in_whatever_order_the_gate_keeps_its_promises(postgres):
    machine = type("Machine", (GateMachine,), {"postgres": postgres})
    kept = settings(settings.get_profile("suite"), max_examples=5, stateful_step_count=20, derandomize=True, database=None)
    run_state_machine_as_test(machine, settings=kept)
