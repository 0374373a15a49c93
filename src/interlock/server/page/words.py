"""How the page says things: times, outcomes, JSON, without a clock of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400


def exact(at_us: int) -> str:
    """A time to the millisecond, UTC: `2027-01-31 12:00:00.123 UTC`."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{at_us // 1000 % 1000:03d} UTC"


def iso(at_us: int) -> str:
    """A time for machines (RFC 3339)."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def relative(at_us: int, now_us: int) -> str:
    """How long ago, or in how long: `just now`, `12 s ago`, `in 5 min`."""
    apart_s = (now_us - at_us) / 1e6
    size_s = abs(apart_s)
    if size_s < 1:
        return "just now"
    if size_s < _MINUTE_S:
        said = f"{int(size_s)} s"
    elif size_s < _HOUR_S:
        said = f"{int(size_s // _MINUTE_S)} min"
    elif size_s < _DAY_S:
        said = f"{int(size_s // _HOUR_S)} h"
    else:
        said = f"{int(size_s // _DAY_S)} d"
    return f"{said} ago" if apart_s > 0 else f"in {said}"


def as_json(value: Any) -> str:
    """A value as JSON on several lines, for reading."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def short_json(value: Any) -> str:
    """A text as it is, anything else as JSON on one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def short_digest(digest: str) -> str:
    """The first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12]


FILTERS: Final = {
    "exact": exact,
    "iso": iso,
    "relative": relative,
    "as_json": as_json,
    "short_json": short_json,
    "short_digest": short_digest,
}
