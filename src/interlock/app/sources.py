"""The real clock and the real randomness, which everything else has injected."""

from __future__ import annotations

import os
import secrets
import string
import time
from functools import partial

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARS = 10
_RANDOM_CHARS = 16
_SALT_BYTES = 16
_SALTS_AT_ONCE = 64
_ENTROPY_AT_ONCE_BYTES = 1_024
# A lease must not outlast the sleep of its machine. Linux counts sleep in this clock; macOS does in CLOCK_MONOTONIC itself.
_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Implements `core.ports.Clock` with the machine's clocks."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000

    monotonic_s = staticmethod(partial(time.clock_gettime, _BOOT_CLOCK))
    """Seconds since the machine started; never goes back, and where the system can tell, sleep counts."""


class SystemIds:
    """Implements `core.ports.Ids`: 48 bits of time in ms, then 80 random bits, in Crockford's base 32."""

    def new(self, prefix: str) -> str:
        """The prefix, an underscore and 26 characters that sort by time."""
        when = _base32(time.time_ns() // 1_000_000, _TIME_CHARS)
        return f"{prefix}_{when}{_base32(int.from_bytes(os.urandom(10)), _RANDOM_CHARS)}"

    def __init__(self) -> None:
        self._salts = b""

    def salt(self) -> bytes:
        """16 random bytes from the operating system, fetched for many salts at a time and never used twice."""
        if not self._salts:
            self._salts = os.urandom(_SALT_BYTES * _SALTS_AT_ONCE)
        salt, self._salts = self._salts[:_SALT_BYTES], self._salts[_SALT_BYTES:]
        return salt


class Entropy:
    """Random bytes for trace and span ids, fetched from the operating system for many at a time. For one thread."""

    def __init__(self) -> None:
        self._kept = b""

    def __call__(self, length: int) -> bytes:
        """That many bytes, never used twice."""
        if len(self._kept) < length:
            self._kept = os.urandom(_ENTROPY_AT_ONCE_BYTES)
        found, self._kept = self._kept[:length], self._kept[length:]
        return found


def dice() -> float:
    """Anywhere in [0, 1)."""
    return int.from_bytes(os.urandom(6)) / 2**48


_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def _base32(number: int, chars: int) -> str:
    """The number in an even count of characters, two at a time: ids are made several times a call."""
    return "".join([_PAIRS[(number >> shift) & 1_023] for shift in range(5 * chars - 10, -1, -10)])


def secret_text(chars: int) -> str:
    """A secret of small letters and digits that nobody can guess."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(chars))
