"""What the pure half of the system needs from outside: time, identifiers, randomness."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Tells the time. `wall_us` may jump; `monotonic_s` never goes back."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes backwards; only differences mean anything."""
        ...


class Ids(Protocol):
    """Makes identifiers and salts that nobody can guess."""

    def new(self, prefix: str) -> str:
        """An identifier such as `call_01j9...`: the prefix, an underscore, 26 characters that sort by time."""
        ...

    def salt(self) -> bytes:
        """16 random bytes."""
        ...
