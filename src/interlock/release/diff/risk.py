"""`risk.yaml` compared: when a lineage is worried about, what weighs how much, which secrets are planted, who looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from interlock.core.risk import Canary, DetectorRule, RiskRules
from interlock.core.terms import Posture
from interlock.release.diff.changes import Change, Direction, Lines, Rule, always, differences
from interlock.release.model import Release

FILE: Final = "risk.yaml"
_UNSURE: Final = always(Direction.UNKNOWN)
_POSTURES: Final = tuple(Posture)
# INVARIANT: whatever makes people be asked or calls be stopped later is said to widen.
RISK_RULES: Final[Mapping[str, Rule]] = {
    "thresholds": lambda old, new: _numbers(old, new, missing=101, less=Direction.NARROWS),
    "weights": lambda old, new: _numbers(old, new, missing=100, less=Direction.WIDENS),
    # Nothing is forgotten at 0; else what is forgotten later counts longer.
    "forget_after_s": lambda old, new: Direction.WIDENS if old == 0 or (new and new < old) else Direction.NARROWS,
    "text_ms": always(Direction.NEUTRAL),
    "canaries": _UNSURE,
    "detectors": _UNSURE,
}
DETECTOR_RULES: Final[Mapping[str, Rule]] = {
    "name": _UNSURE,
    "url": _UNSURE,
    "credential": always(Direction.NEUTRAL),
    # A failure is evidence: what is given up on sooner, or counts more, stops more.
    "timeout_ms": _UNSURE,
    "failing": lambda old, new: Direction.NARROWS if new > old else Direction.WIDENS,
}
CANARY_RULES: Final[Mapping[str, Rule]] = {
    "name": _UNSURE,
    "starts": _UNSURE,
    "chars": _UNSURE,
    "sha256": _UNSURE,
    "posture": lambda old, new: Direction.NARROWS if _POSTURES.index(new) > _POSTURES.index(old) else Direction.WIDENS,
}


def risk_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """What changed in how evidence is weighed, and the canaries that came, went or changed."""
    found = [
        Change(direction=direction, kind="risk", name=what.partition(":")[0], what=what, file=FILE, line=now.of(FILE))
        for direction, what in differences(_without_canaries(old.risk), _without_canaries(new.risk), RISK_RULES)
    ]
    before, after = ({canary.name: canary for canary in release.risk.canaries} for release in (old, new))
    for name in sorted(before.keys() | after.keys()):
        line = (now if name in after else was).of(FILE, "canaries", name)
        for direction, what in _of_canary(before.get(name), after.get(name)):
            found.append(Change(direction=direction, kind="canary", name=name, what=what, file=FILE, line=line))
    looked, looks = ({rule.name: rule for rule in release.risk.detectors} for release in (old, new))
    for name in sorted(looked.keys() | looks.keys()):
        line = (now if name in looks else was).of(FILE, "detectors", name)
        for direction, what in _of_detector(looked.get(name), looks.get(name)):
            found.append(Change(direction=direction, kind="detector", name=name, what=what, file=FILE, line=line))
    return found


def _of_detector(old: DetectorRule | None, new: DetectorRule | None) -> list[tuple[Direction, str]]:
    if old is None or new is None:
        if new is not None:
            return [(Direction.NARROWS, f"new: texts are looked at by {new.url or 'the built-in classifier'}")]
        return [(Direction.WIDENS, "gone: texts are no longer looked at by it")]
    return differences(old, new, DETECTOR_RULES)


def _of_canary(old: Canary | None, new: Canary | None) -> list[tuple[Direction, str]]:
    if old is None or new is None:
        if new is not None:
            return [(Direction.NARROWS, f"new: whoever sends it is {new.posture.value}")]
        return [(Direction.WIDENS, "gone: it is no longer looked for")]
    return differences(old, new, CANARY_RULES)


def _without_canaries(rules: RiskRules) -> RiskRules:
    return RiskRules(
        thresholds=rules.thresholds,
        weights=rules.weights,
        forget_after_s=rules.forget_after_s,
        text_ms=rules.text_ms,
    )


def _numbers(old: Mapping[str, int], new: Mapping[str, int], *, missing: int, less: Direction) -> Direction:
    """By name; what is not said stands for `missing`. Moves in both directions: nobody can tell."""
    ways = {
        less if new.get(name, missing) < old.get(name, missing) else _other(less)
        for name in old.keys() | new.keys()
        if new.get(name, missing) != old.get(name, missing)
    }
    return ways.pop() if len(ways) == 1 else Direction.NEUTRAL if not ways else Direction.UNKNOWN


def _other(direction: Direction) -> Direction:
    return Direction.WIDENS if direction is Direction.NARROWS else Direction.NARROWS
