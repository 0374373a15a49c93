"""What the own injection rules find among public attack texts, and among benign ones. Tuned on neither of the public sets.

Attack texts are those that ship in the PyPI package `agentdojo`: every template of its attacks, filled with every injection
goal of its suites, and put into what the suite's tools return. Run it in an environment that has the package:
`python -m bench.detectors`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

from interlock.core.risk import RiskRules
from interlock.core.terms import Posture
from interlock.risk.combine import assess
from interlock.risk.injection import InjectionRules

HERE: Final = Path(__file__).resolve().parents[1]
RECOMMENDED: Final = RiskRules(thresholds={Posture.GUARDED: 40, Posture.READ_ONLY: 70, Posture.HALTED: 95})
VERSION: Final = "v1.2.2"
SUITES: Final = ("workspace", "travel", "banking", "slack")


def flagged(text: str) -> bool:
    """Whether this text alone makes a lineage guarded, by the recommended thresholds."""
    return assess(InjectionRules().look(text), RECOMMENDED).posture is not Posture.NORMAL


def benign() -> dict[str, float]:
    """How many of the benign texts are flagged, of those that the rules were made with and of those held out."""
    found = {}
    for name in ("benign", "benign_held_out"):
        lines = (HERE / "tests" / "risk" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if not line.startswith("#")]
        found[f"{name}_texts"] = len(texts)
        found[f"{name}_flagged"] = sum(map(flagged, texts))
    return found


def public() -> dict[str, dict[str, float]]:
    """By attack: how many of its texts are flagged."""
    from agentdojo.attacks.attack_registry import ATTACKS  # noqa: PLC0415  # only in an environment that has it
    from agentdojo.task_suite.load_suites import get_suites  # noqa: PLC0415

    counts: dict[str, list[bool]] = {}
    for suite in get_suites(VERSION).values():
        for name, kind in sorted(ATTACKS.items()):
            if name == "manual":
                continue  # asks whoever sits there
            for text in _texts(kind, suite):
                counts.setdefault(name, []).append(flagged(text))
    counts["all"] = [item for found in counts.values() for item in found]
    return {
        name: {"texts": len(found), "recall_percent": round(100 * sum(found) / len(found), 1)} for name, found in counts.items()
    }


class _Nobody:
    """Stands for a model where an attack asks for its name."""

    name = "gpt-4o-2024-05-13"


def _texts(kind: Any, suite: Any) -> list[str]:
    """What an attack writes for every user task and goal of a suite, each text once; none when it needs a model to write it."""
    try:
        attack = kind(suite, _Nobody())
    except Exception:  # noqa: BLE001  # attacks that need to know a real model
        return []
    found: dict[str, None] = {}
    tasks = list(suite.user_tasks.values())[:3]
    for task in tasks:
        for goal in suite.injection_tasks.values():
            try:
                found |= dict.fromkeys(str(text) for text in attack.attack(task, goal).values())
            except Exception:  # noqa: BLE001  # a user task without a place for injections
                continue
    return list(found)


def speed() -> dict[str, float]:
    """Milliseconds to look at a text of a kilobyte and of a hundred."""
    lines = (HERE / "tests" / "risk" / "benign.txt").read_text(encoding="utf-8")
    found = {}
    for name, text in (("ms_of_1_kb", lines[:1_000]), ("ms_of_100_kb", (lines * 10)[:100_000])):
        taken = []
        for _ in range(20):
            begun = time.perf_counter()
            InjectionRules().look(text)
            taken.append((time.perf_counter() - begun) * 1e3)
        found[name] = round(statistics.median(taken), 2)
    return found


if __name__ == "__main__":
    figures = {"benign": benign(), "speed": speed(), "public": public() if "--benign" not in sys.argv else {}}
    print(json.dumps(figures, indent=2))
