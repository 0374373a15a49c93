"""The gate's state machine, for as long as there is time, with one seed after another."""

from __future__ import annotations

import re
import time
import traceback
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bench.fuzz.findings import Finding, Part
from tests.fuzz.machine import GateMachine
from tests.fuzz.world import World
from tests.support.once import make_once
from tests.support.postgres import TestServer

EXAMPLES_A_ROUND: Final = 15
STEPS: Final = 35
_STEPS: Final = re.compile(r"^(?:Failing test case|Falsifying example).*", re.MULTILINE | re.DOTALL)


def fuzz_gate(seconds: float, first: int) -> Part:
    """Rounds until the time is over; a round that fails is shrunk to the fewest steps that still fail."""
    make_once()
    started = time.monotonic()
    figures = {"rounds": 0, "sequences": 0, "calls": 0, "executions": 0}
    findings: list[Finding] = []
    postgres = TestServer()
    try:
        while not figures["rounds"] or time.monotonic() - started < seconds:
            world = World(postgres)
            machine = type("Machine", (GateMachine,), {"world": world})
            kept = settings(
                max_examples=EXAMPLES_A_ROUND,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            )
            number = first + figures["rounds"]
            try:
                run_state_machine_as_test(seed(number)(machine), settings=kept)
            except Exception as error:  # noqa: BLE001  # whatever it is, it was found
                findings.append(_finding(number, error))
            figures["rounds"] += 1
            figures["sequences"] += world.examples
            figures["calls"] += world.attempts
            figures["executions"] += len(world.till.executed)
            world.close()
    finally:
        postgres.close()
    took_s = time.monotonic() - started
    return Part(
        name="the gate, by sequences of what may happen to it", seconds=took_s, figures=figures, findings=tuple(findings)
    )


def _finding(number: int, error: Exception) -> Finding:
    notes = "\n".join(getattr(error, "__notes__", ()))
    steps = _STEPS.search(notes)
    shown = "".join(traceback.format_exception_only(error)) + (steps.group() if steps else notes)
    return Finding(what=f"{type(error).__name__}: {str(error)[:300]}", where=f"seed {number}", how=shown[:6_000])
