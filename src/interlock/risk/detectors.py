"""The small port behind which every detector of hostile text stands."""

from __future__ import annotations

from typing import Protocol

from interlock.core.risk import Signal


class TextDetector(Protocol):
    """Looks at one text. Pure: the same text gives the same signals, and nothing is kept.

    A larger one (a classifier, a service behind a cache) is put behind this by whoever composes the process; it is run in a
    thread and given up after its time. Whatever it raises, and running out of time, is itself a signal.
    """

    name: str

    def look(self, text: str) -> tuple[Signal, ...]:
        """The evidence in a text, none when it looks harmless."""
        ...
