"""Counts and histograms as plain numbers of one event loop: a call costs a microsecond or two, and nothing waits for a lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeAlias

MAX_SERIES: Final = 2_000
OTHER: Final = "other"
Labels: TypeAlias = tuple[str, ...]


class Count:
    """A counter by labels. Beyond `MAX_SERIES` what is new is counted together as `other`."""

    def __init__(self) -> None:
        self.of: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count."""
        known = self.of.get(labels)
        if known is None and len(self.of) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
            known = self.of.get(labels)
        self.of[labels] = (known or 0) + by


class Spread:
    """A histogram by labels: how many fell into each bucket, the last being everything longer, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.of: dict[Labels, tuple[list[int], list[float]]] = {}

    def add(self, label: str, value: float) -> None:
        """Take in one value."""
        kept = self.of.get((label,))
        if kept is None:
            kept = self._more(label)
        counts, total = kept
        counts[bisect_left(self.bounds, value)] += 1
        total[0] += value

    def _more(self, label: str) -> tuple[list[int], list[float]]:
        labels = (OTHER,) if len(self.of) >= MAX_SERIES else (label,)
        return self.of.setdefault(labels, ([0] * (len(self.bounds) + 1), [0.0]))
