"""Figures as OpenTelemetry's metric points, for the OTLP exporter."""

from __future__ import annotations

from typing import Final, assert_never

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from interlock import __version__
from interlock.telemetry.catalogue import Kind
from interlock.telemetry.figures import Buckets, Figure, Figures
from interlock.telemetry.tallies import Labels

_SCOPE: Final = InstrumentationScope("interlock", __version__)


def metrics_data(figures: Figures, resource: Resource) -> MetricsData:
    """The same figures that `/metrics` shows; counters and histograms since the start of the process."""
    metrics = [_metric(figure, figures) for figure in figures.all if figure.values or figure.buckets]
    scoped = ScopeMetrics(scope=_SCOPE, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scoped], schema_url="")])


def _metric(figure: Figure, figures: Figures) -> Metric:
    kind = figure.metric.kind
    data: Sum | Gauge | Histogram
    match kind:
        case Kind.COUNTER:
            data = Sum(_numbers(figure, figures), AggregationTemporality.CUMULATIVE, is_monotonic=True)
        case Kind.GAUGE:
            data = Gauge(_numbers(figure, figures))
        case Kind.HISTOGRAM:
            points = [_spread(figure, figures, labels, buckets) for labels, buckets in figure.buckets.items()]
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
        case _:
            assert_never(kind)
    unit = "s" if figure.metric.name.endswith("_seconds") else "1"
    return Metric(name=figure.metric.name.removesuffix("_total"), description=figure.metric.says, unit=unit, data=data)


def _numbers(figure: Figure, figures: Figures) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(
            attributes=_attributes(figure, labels),
            start_time_unix_nano=figures.since_us * 1000,
            time_unix_nano=figures.at_us * 1000,
            value=float(value),  # else one series would be of two types
        )
        for labels, value in figure.values.items()
    ]


def _spread(figure: Figure, figures: Figures, labels: Labels, buckets: Buckets) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=_attributes(figure, labels),
        start_time_unix_nano=figures.since_us * 1000,
        time_unix_nano=figures.at_us * 1000,
        count=sum(buckets.counts),
        sum=buckets.total,
        bucket_counts=buckets.counts,
        explicit_bounds=buckets.bounds,
        min=0.0,
        max=_highest(buckets),
    )


def _highest(buckets: Buckets) -> float:
    """The points cannot go without a greatest value, and a tally keeps none: the end of the last bucket that has any."""
    return max((bound for bound, count in zip(buckets.bounds, buckets.counts, strict=False) if count), default=0.0)


def _attributes(figure: Figure, labels: Labels) -> dict[str, str]:
    return dict(zip(figure.metric.labels, labels, strict=True))
