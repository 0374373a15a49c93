"""How the page says things: times, outcomes, JSON, without a clock of its own."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any, Final

import msgspec


def exact(at_us: int) -> str:
    """A time to the millisecond, UTC: `2027-01-31 12:00:00.123 UTC`."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{at_us // 1000 % 1000:03d} UTC"


def iso(at_us: int) -> str:
    """A time for machines (RFC 3339)."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at_us: int) -> str:
    """The time of day, UTC: `12:00:00`."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%H:%M:%S")


def as_json(value: Any) -> str:
    """A value as JSON on several lines, for reading."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def clock_ms(at_us: int) -> str:
    """The time of day to the millisecond, UTC: `12:00:00.123`."""
    return f"{clock(at_us)}.{at_us // 1000 % 1000:03d}"


def spoken(code: str) -> str:
    """A code as words: `user_not_permitted` becomes `user not permitted`."""
    return code.replace("_", " ")


def pretty(text: str) -> str:
    """JSON text on several lines, as it is otherwise: no number in it is read and written anew."""
    return msgspec.json.format(text, indent=2)


def short_json(value: Any) -> str:
    """A text as it is, anything else as JSON on one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def short_digest(digest: str) -> str:
    """The first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12]


def visible(value: Any) -> Any:
    """Text with characters written out that would not be seen, or would make other text be seen elsewhere than it stands.

    What somebody approves must be what they read: an override of the writing direction can turn an amount around.
    """
    if type(value) is not str or value.isascii():
        return value if type(value) is not str else _CONTROLS.sub(_written_out, value)
    return "".join(
        _written_out(sign) if unicodedata.category(sign) in _UNSEEN and sign not in "\n\t" else sign for sign in value
    )


def _written_out(sign: str | re.Match[str]) -> str:
    code = ord(sign if isinstance(sign, str) else sign[0])
    return f"\\u{{{code:04x}}}"


_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
FILTERS: Final = {
    "exact": exact,
    "iso": iso,
    "clock": clock,
    "clock_ms": clock_ms,
    "spoken": spoken,
    "pretty": pretty,
    "as_json": as_json,
    "short_json": short_json,
    "short_digest": short_digest,
}
