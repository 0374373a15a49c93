"""Figures in the text format of Prometheus, with what its client library says of the process."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final, assert_never

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from interlock.telemetry.catalogue import Kind
from interlock.telemetry.figures import Buckets, Figure, Figures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """Renders figures, and adds the standard metrics of the process, the interpreter and its garbage collector."""

    def __init__(self) -> None:
        self._standard = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._standard)

    def text(self, figures: Figures) -> bytes:
        """What a scraper gets."""
        own = CollectorRegistry()
        own.register(_Collected(figures))
        return generate_latest(own) + generate_latest(self._standard)


class _Collected:
    """Implements `prometheus_client.registry.Collector`."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        return map(_family, self._figures.all)

    def describe(self) -> tuple[Family, ...]:
        return ()


def _family(figure: Figure) -> Family:
    metric = figure.metric
    match metric.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(metric.name, metric.says, labels=metric.labels)
            for labels, value in figure.values.items():
                counter.add_metric(labels, value)
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(metric.name, metric.says, labels=metric.labels)
            for labels, value in figure.values.items():
                gauge.add_metric(labels, value)
            return gauge
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.says, labels=metric.labels)
            for labels, buckets in figure.buckets.items():
                histogram.add_metric(labels, _added_up(buckets), buckets.total)
            return histogram
        case _:
            assert_never(metric.kind)


def _added_up(buckets: Buckets) -> list[tuple[str, float]]:
    names = (*(repr(bound) for bound in buckets.bounds), "+Inf")
    return list(zip(names, accumulate(map(float, buckets.counts)), strict=True))
