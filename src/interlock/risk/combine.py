"""From evidence to one score, and from the score to a posture. Exact, whatever the order.

Signals are taken for independent ways in which nothing is wrong: the score is 100 x (1 - product of (1 - score x weight)).
Of several signals of one kind about one subject the highest counts, so that saying a thing twice adds nothing.

INVARIANT: more signals, higher scores, higher weights and lower thresholds never give a lower posture.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

import msgspec

from interlock.core.risk import RiskRules, Signal
from interlock.core.terms import Posture

WHOLE: Final = 100
_ORDER: Final = tuple(Posture)


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence comes to. `counted` are the signals that count, the gravest first."""

    score: int
    posture: Posture
    counted: tuple[Signal, ...]


def assess(signals: Iterable[Signal], rules: RiskRules) -> Assessment:
    """Weigh the evidence about one lineage by a release's rules."""
    highest: dict[tuple[str, str], Signal] = {}
    for signal in signals:
        key = (signal.kind.value, signal.subject)
        if key not in highest or signal.score > highest[key].score:
            highest[key] = signal
    fine = Fraction(1)
    for signal in highest.values():
        weight = rules.weights.get(signal.kind, WHOLE)
        fine *= 1 - Fraction(min(max(signal.score, 0), WHOLE) * weight, WHOLE * WHOLE)
    score = int(WHOLE * (1 - fine))
    reached = [posture for posture, least in rules.thresholds.items() if score >= least]
    return Assessment(
        score=score,
        posture=max(reached, key=_ORDER.index, default=Posture.NORMAL),
        counted=tuple(sorted(highest.values(), key=lambda item: (-item.score, item.kind.value, item.subject))),
    )


def reason(assessment: Assessment) -> str:
    """Why, in a line: the score and the gravest evidence."""
    told = ", ".join(f"{signal.kind.value} ({signal.subject})" for signal in assessment.counted[:3])
    more = f" and {len(assessment.counted) - 3} more" if len(assessment.counted) > 3 else ""  # noqa: PLR2004  # three are told
    return f"risk {assessment.score}: {told}{more}"
