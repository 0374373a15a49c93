"""All figures of one moment, whoever they are for. Plain values, so that another thread may have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from interlock.telemetry.catalogue import Metric
from interlock.telemetry.tallies import Count, Labels, Spread


class Buckets(msgspec.Struct, frozen=True):
    """How many values fell into each bucket (not added up; the last is everything longer), and the sum of the values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Figure(msgspec.Struct, frozen=True):
    """One metric with its values by labels, in the order of the metric's label names."""

    metric: Metric
    values: Mapping[Labels, float] = {}
    buckets: Mapping[Labels, Buckets] = {}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Every metric, at `at_us`; counters count from `since_us`."""

    since_us: int
    at_us: int
    all: tuple[Figure, ...]


Readings: TypeAlias = Mapping[Metric, Mapping[Labels, float]]


def counted(metric: Metric, count: Count) -> Figure:
    """The figure of a counter."""
    return Figure(metric, dict(count.of))


def spread(metric: Metric, kept: Spread) -> Figure:
    """The figure of a histogram."""
    found = {labels: Buckets(kept.bounds, counts, total) for labels, counts, total in kept.read()}
    return Figure(metric, buckets=found)
