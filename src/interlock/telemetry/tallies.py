"""Counts and histograms as plain numbers of one event loop: a call costs a microsecond or two, and nothing waits for a lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

MAX_SERIES: Final = 2_000
OTHER: Final = "other"
Labels: TypeAlias = tuple[str, ...]


class Count:
    """A counter by labels. Beyond `MAX_SERIES` what is new is counted together as `other`."""

    def __init__(self) -> None:
        self.of: dict[Labels, float] = {}

    def add(self, labels: Labels) -> None:
        """Count one."""
        kept = self.of
        if labels not in kept and len(kept) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        kept[labels] = kept.get(labels, 0) + 1


class Spread:
    """A histogram by one label: how many fell into each bucket, the last being everything longer, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        # One list for each label, for a call adds to seven of them: how many by bucket, and at its end the sum.
        self._kept: dict[str, list[float]] = {}

    def add(self, label: str, value: float) -> None:
        """Take in one value."""
        kept = self._kept.get(label) or self._more(label)
        kept[bisect_left(self.bounds, value)] += 1
        kept[-1] += value

    def read(self) -> Iterator[tuple[Labels, tuple[int, ...], float]]:
        """Labels, how many by bucket, and the sum."""
        for label, kept in self._kept.items():
            yield (label,), tuple(map(int, kept[:-1])), kept[-1]

    def _more(self, label: str) -> list[float]:
        name = OTHER if len(self._kept) >= MAX_SERIES else label
        return self._kept.setdefault(name, [0] * (len(self.bounds) + 1) + [0.0])
