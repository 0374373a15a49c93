"""What operators say about telemetry: OpenTelemetry's own environment variables, and nothing of ours beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from interlock.core.trace_context import TraceContext

Sampler: TypeAlias = Callable[[TraceContext | None, str], bool]
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS: Final = {"", "http/protobuf"}
_RANDOM_BITS: Final = 64
DEFAULT_SAMPLER: Final = "always_on"


class TelemetrySettingError(Exception):
    """A variable that cannot be followed; the message says which and what to write."""


class Otlp(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to a collector. The exporters read endpoint, headers, certificates and time limits themselves."""

    spans: bool
    metrics: bool
    sampler: Sampler
    span_pause_s: float
    metric_pause_s: float


def otlp_settings(variables: Mapping[str, str]) -> Otlp | None:
    """What the environment asks for; None when it names no endpoint, or says `OTEL_SDK_DISABLED=true`.

    Raises:
        TelemetrySettingError: a variable cannot be followed.
    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    spans, metrics = (_wanted(variables, signal) for signal in ("TRACES", "METRICS"))
    if not spans and not metrics:
        return None
    return Otlp(
        spans=spans,
        metrics=metrics,
        sampler=sampler_of(
            variables.get("OTEL_TRACES_SAMPLER", "") or DEFAULT_SAMPLER, variables.get("OTEL_TRACES_SAMPLER_ARG", "")
        ),
        span_pause_s=_milliseconds(variables, "OTEL_BSP_SCHEDULE_DELAY", 5_000),
        metric_pause_s=_milliseconds(variables, "OTEL_METRIC_EXPORT_INTERVAL", 60_000),
    )


def _wanted(variables: Mapping[str, str], signal: str) -> bool:
    if variables.get(f"OTEL_{signal}_EXPORTER", "otlp").strip() != "otlp":
        return False
    if not variables.get(_ENDPOINT) and not variables.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
        return False
    general = variables.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    protocol = variables.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", general).strip()
    if protocol not in _PROTOCOLS:
        raise TelemetrySettingError(
            f"OTLP is sent as http/protobuf here, not as {protocol[:40]}: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and "
            "the collector's port for it (4318, if it is not told another)"
        )
    return True


def sampler_of(name: str, argument: str = "") -> Sampler:
    """The sampler of this name (OpenTelemetry's `OTEL_TRACES_SAMPLER`). Raises `TelemetrySettingError`.

    With the parent-based ones it is the caller who says whether its calls are traced.
    """
    base = name.strip().lower()
    parent_based = base.startswith("parentbased_")
    match base.removeprefix("parentbased_"):
        case "always_on":
            share = 1.0
        case "always_off":
            share = 0.0
        case "traceidratio":
            share = _share(argument)
        case _:
            raise TelemetrySettingError(
                f"OTEL_TRACES_SAMPLER={name[:40]} is unknown: always_on, always_off, traceidratio, or parentbased_ before them"
            )
    bound = int(share * 2**_RANDOM_BITS)

    def samples(came: TraceContext | None, trace_id: str) -> bool:
        if parent_based and came is not None:
            return came.sampled
        return int(trace_id[16:], 16) < bound

    return samples


def _share(argument: str) -> float:
    try:
        share = float(argument or "1")
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise TelemetrySettingError(f"OTEL_TRACES_SAMPLER_ARG={argument[:40]} is no share of one, such as 0.1")
    return share


def _milliseconds(variables: Mapping[str, str], name: str, default: int) -> float:
    text = variables.get(name, "").strip()
    if not text:
        return default / 1000
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise TelemetrySettingError(f"{name}={text[:40]} is no number of milliseconds")
    return int(text) / 1000
