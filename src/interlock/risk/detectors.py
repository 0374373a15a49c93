"""The small ports behind which every detector of hostile text stands."""

from __future__ import annotations

from typing import Protocol

from interlock.core.risk import Signal


class TextDetector(Protocol):
    """Looks at one text at once. Pure: the same text gives the same signals, and nothing is kept.

    Whatever it raises is itself a signal.
    """

    name: str

    def look(self, text: str) -> tuple[Signal, ...]:
        """The evidence in a text, none when it looks harmless."""
        ...


class SlowDetector(Protocol):
    """Looks at one text in its own time: a model, or a service elsewhere.

    The watch waits for it no longer than `text_ms` before a text is released, and hears it afterwards. What it raises, and
    that it has not answered in `timeout_ms`, is a signal with the score `failing`: a release that says a high one fails closed.
    """

    name: str
    timeout_ms: int
    failing: int

    async def look(self, text: str) -> tuple[Signal, ...]:
        """The evidence in a text, none when it looks harmless. Raises whatever keeps it from looking."""
        ...
