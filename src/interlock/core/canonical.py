"""One byte form for every JSON value (RFC 8785), and a reader that refuses what is ambiguous.

The bytes that are hashed are the bytes that are sent, so a value is parsed once by `parse_strict`, written once by
`canonical`, and never re-read in a laxer way.
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn, TypeAlias, cast

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_SAFE_INTEGER: Final = 2**53 - 1
MAX_DEPTH_LEVELS: Final = 32
MAX_NUMBER_CHARS: Final = 40


class AmbiguousJsonError(ValueError):
    """The text is not JSON, or could be read in two ways. `field` names the place where it is known."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def parse_strict(raw: bytes | str, *, max_bytes: int) -> JsonValue:
    """Parse JSON, refusing whatever two readers could understand differently.

    Refused with `AmbiguousJsonError`: more than `max_bytes`, bad UTF-8, duplicate keys, keys that begin with `__`, NUL and lone
    surrogates, NaN and infinities, integers beyond 2^53 - 1, fractions that a double does not hold exactly as
    written, more than 32 levels.
    """
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    if len(data) > max_bytes:
        raise AmbiguousJsonError(f"longer than {max_bytes} bytes")
    value = _read_plain(data)
    if value is not _UNREAD:
        return cast("JsonValue", value)
    try:
        value = _STRICT.decode(data.decode("utf-8"))
    except AmbiguousJsonError:
        raise
    except RecursionError as error:
        raise AmbiguousJsonError(f"nested deeper than {MAX_DEPTH_LEVELS} levels") from error
    except ValueError as error:
        raise AmbiguousJsonError(f"not valid JSON: {error}") from error
    strict = cast("JsonValue", value)
    check_value(strict)
    return strict


def _read_plain(data: bytes) -> object:
    """The value of a text that is beyond doubt at a glance, at a tenth of the cost; `_UNREAD` for every other.

    INVARIANT: what this reads, the strict way reads in the same way. It reads nothing with an escape, a fraction, an exponent,
    sixteen digits, two underscores after a quote, many levels, or anything that is not printable ASCII; and what it has read it
    writes again and compares, which leaves no room for duplicate keys.
    """
    if not data.isascii() or _DOUBTFUL.search(data) or data.count(b"{") + data.count(b"[") > MAX_DEPTH_LEVELS:
        return _UNREAD
    try:
        value: object = msgspec.json.decode(data)
        return value if msgspec.json.encode(value) == data else _UNREAD
    except (ValueError, RecursionError):
        return _UNREAD


def check_value(value: JsonValue, field: str = "", depth: int = 0) -> None:
    """Refuse, with `AmbiguousJsonError` naming the field, a value that has no single safe form. Shape: any JSON value."""
    if depth > MAX_DEPTH_LEVELS:
        raise AmbiguousJsonError(f"nested deeper than {MAX_DEPTH_LEVELS} levels", field)
    if isinstance(value, str):
        _check_text(value, field)
    elif isinstance(value, dict):
        for key, item in value.items():
            name = f"{field}.{key}" if field else key
            _check_text(key, name)
            if key.startswith("__"):
                raise AmbiguousJsonError("a key may not begin with two underscores", name)
            check_value(item, name, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_value(item, f"{field}[{index}]", depth + 1)


def canonical(value: JsonValue) -> bytes:
    """The canonical bytes (RFC 8785) of a value that `parse_strict` gave or `check_value` accepted."""
    try:
        quick = msgspec.json.encode(value, order="sorted")
        if quick.isascii() and not _WRITTEN_OTHERWISE.search(quick):
            return quick
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass  # the exact way says what is wrong with it
    return _EXACT.encode(_normal(value)).encode("utf-8")


def digest(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _normal(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _normal(value[key]) for key in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
        return int(value)
    return value


_UNREAD: Final = object()
# In a text without spaces a number stands at its beginning or behind one of `:,[`; inside a string this may find too much.
_INEXACT: Final = rb"(?:^|[:,\[])-?[0-9]+(?:[.eE]|(?<=[0-9]{16}))"
_DOUBTFUL: Final = re.compile(rb'[\x00-\x1f\x7f\\]|"__|' + _INEXACT)
# What the two writers may write in different ways: escapes, fractions and exponents, and (null) what is no number.
_WRITTEN_OTHERWISE: Final = re.compile(rb"[\x00-\x1f\x7f\\]|(?:^|[:,\[])null|" + _INEXACT)
_EXACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _unique_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise AmbiguousJsonError("the key stands twice in one object", key)
        found[key] = value
    return found


def _safe_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS or abs(value := int(text)) > MAX_SAFE_INTEGER:
        raise AmbiguousJsonError("an integer beyond 2^53 - 1 means different numbers to different readers")
    return value if text != "-0" else 0


def _exact_number(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS:
        raise AmbiguousJsonError("a number with too many digits")
    try:
        exact, value = Decimal(text), float(text)
        same = Decimal(repr(value)) == exact
    except (InvalidOperation, OverflowError) as error:
        raise AmbiguousJsonError("a number that cannot be held exactly") from error
    if not same:
        raise AmbiguousJsonError("a number with more digits than can be held exactly")
    if value.is_integer() and abs(value) > MAX_SAFE_INTEGER:
        raise AmbiguousJsonError("an integer beyond 2^53 - 1 means different numbers to different readers")
    if "e" in repr(value):
        raise AmbiguousJsonError("a number too small or too large to be written without an exponent")
    return value if value != 0 else 0.0


def _no_constant(text: str) -> NoReturn:
    raise AmbiguousJsonError(f"{text} is not JSON")


def _check_text(text: str, field: str) -> None:
    if "\x00" in text:
        raise AmbiguousJsonError("a NUL character", field)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise AmbiguousJsonError("a lone surrogate", field)


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_int=_safe_integer, parse_float=_exact_number, parse_constant=_no_constant
)
