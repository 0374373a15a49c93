"""What a contract says about a tool that is slow, failing or gone: breaker, bulkhead, retries, an older answer."""

from __future__ import annotations

from typing import Final

import msgspec

DEFAULT_AT_ONCE: Final = 64
DEFAULT_PLACE_WAIT_MS: Final = 1_000
DEFAULT_FAILING_PERCENT: Final = 50
DEFAULT_MIN_CALLS: Final = 20
DEFAULT_WINDOW_S: Final = 10
DEFAULT_OPEN_S: Final = 5
DEFAULT_TRIALS: Final = 2
DEFAULT_FIRST_PAUSE_MS: Final = 100
DEFAULT_MOST_PAUSE_MS: Final = 2_000
DEFAULT_RETRIES_PERCENT: Final = 10
MOST_AT_ONCE: Final = 2_000
MOST_WAIT_MS: Final = 30_000
MOST_WINDOW_S: Final = 300
MOST_OPEN_S: Final = 600
MOST_ATTEMPTS: Final = 5
MOST_CACHE_S: Final = 86_400


class Bulkhead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many calls of an operation one process has under way `at_once`, and how long one more waits for a place."""

    at_once: int = DEFAULT_AT_ONCE
    wait_ms: int = DEFAULT_PLACE_WAIT_MS


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an operation counts as unstable: `failing_percent` of at least `min_calls` calls within `window_s`.

    It is then closed to calls for about `open_s` (a quarter less or more), and tried again by `trials` calls that must succeed.
    """

    failing_percent: int = DEFAULT_FAILING_PERCENT
    min_calls: int = DEFAULT_MIN_CALLS
    window_s: int = DEFAULT_WINDOW_S
    open_s: int = DEFAULT_OPEN_S
    trials: int = DEFAULT_TRIALS


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a call is made at most (`attempts`, the first included), with pauses anywhere below a cap that doubles.

    `budget_percent` bounds how many of the calls of a tool may be retries at all.
    """

    attempts: int = 1
    first_ms: int = DEFAULT_FIRST_PAUSE_MS
    most_ms: int = DEFAULT_MOST_PAUSE_MS
    budget_percent: int = DEFAULT_RETRIES_PERCENT


class Degrade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a read answers while its tool is unstable: what it answered up to `cache_s` ago, labelled so; 0: a refusal."""

    cache_s: int = 0


_RANGES: Final = {
    "bulkhead": {"at_once": (1, MOST_AT_ONCE), "wait_ms": (0, MOST_WAIT_MS)},
    "breaker": {
        "failing_percent": (1, 100),
        "min_calls": (1, 100_000),
        "window_s": (1, MOST_WINDOW_S),
        "open_s": (1, MOST_OPEN_S),
        "trials": (1, 100),
    },
    "retry": {
        "attempts": (1, MOST_ATTEMPTS),
        "first_ms": (1, MOST_WAIT_MS),
        "most_ms": (1, MOST_WAIT_MS),
        "budget_percent": (0, 100),
    },
    "degrade": {"cache_s": (0, MOST_CACHE_S)},
}


def out_of_range(key: str, written: msgspec.Struct) -> str:
    """Which number of `bulkhead`, `breaker`, `retry` or `degrade` is not between its limits; empty when all are."""
    for name, (least, most) in _RANGES[key].items():
        if not least <= getattr(written, name) <= most:
            return f"{key}.{name} is between {least} and {most}, not {getattr(written, name)}"
    return ""
