"""`docs/reference/metrics.md`, rendered from the catalogue. A test says when the page is another."""

from __future__ import annotations

from typing import Final

from interlock.telemetry.catalogue import ALL, SECONDS

_HEAD: Final = """# Metrics

*For operators.*

Every metric of one process, at `/metrics` (`interlock up --metrics 9464`) and, with the same names but without `_total`, by
OTLP. [How to get them](../how-to/telemetry.md). Labels come from the release and from code; there is none that names a user, a
session or anything else that a caller can make up, and no metric has more than 2,000 series.

*Shared* figures are read from the database, so each process says the same: take the maximum, do not add them up.
`process_*` and `python_*` are those of the Prometheus client library.

| metric | kind | labels | what it says |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{metric.name}` | {metric.kind.value}{', shared' if metric.shared else ''} "
        f"| {', '.join(f'`{label}`' for label in metric.labels)} | {metric.says} |"
        for metric in ALL
    ]
    bounds = ", ".join(f"{bound:g}" for bound in SECONDS)
    return _HEAD + "\n".join(rows) + f"\n\nBuckets of the durations, in seconds: {bounds}.\n"
