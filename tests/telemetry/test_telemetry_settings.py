"""OpenTelemetry's variables: those that are followed, and those that are refused with what to write instead."""

import pytest

from interlock.core.trace_context import read_traceparent
from interlock.telemetry.settings import TelemetrySettingError, otlp_settings, sampler_of

AT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKED = read_traceparent(f"00-{TRACE}-00f067aa0ba902b7-01")
NOT_ASKED = read_traceparent(f"00-{TRACE}-00f067aa0ba902b7-00")


def test_nothing_is_sent_anywhere_unless_a_collector_is_named():
    assert otlp_settings({}) is None
    assert otlp_settings({**AT, "OTEL_SDK_DISABLED": "true"}) is None
    assert otlp_settings({**AT, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}) is None


def test_each_signal_can_be_named_or_left_out():
    both = otlp_settings(AT)
    assert (both.spans, both.metrics, both.span_pause_s, both.metric_pause_s) == (True, True, 5.0, 60.0)
    spans = otlp_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"})
    assert (spans.spans, spans.metrics) == (True, False)
    metrics = otlp_settings({**AT, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "1000"})
    assert (metrics.spans, metrics.metrics, metrics.metric_pause_s) == (False, True, 1.0)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "milliseconds"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often", "milliseconds"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_says_what_can(variable, value, says):
    with pytest.raises(TelemetrySettingError, match=says):
        otlp_settings({**AT, variable: value})


@pytest.mark.parametrize("argument", ["2", "-1", "nan", "much"])
def test_a_share_is_between_nothing_and_all(argument):
    with pytest.raises(TelemetrySettingError, match="share"):
        sampler_of("traceidratio", argument)


def test_an_agent_hides_its_calls_from_the_traces_only_where_the_operator_lets_callers_choose():
    assert otlp_settings(AT).sampler(NOT_ASKED, TRACE)
    chosen = otlp_settings({**AT, "OTEL_TRACES_SAMPLER": "parentbased_always_on"}).sampler
    assert not chosen(NOT_ASKED, TRACE)
    assert chosen(ASKED, TRACE)
    assert chosen(None, TRACE)


def test_a_share_of_the_traces_is_chosen_by_their_ids():
    half = sampler_of("traceidratio", "0.5")
    assert half(None, "f" * 16 + "0" * 15 + "1")
    assert not half(None, "0" * 16 + "f" * 16)
    assert not sampler_of("always_off")(ASKED, TRACE)
    assert sampler_of("parentbased_traceidratio", "0")(ASKED, TRACE)
