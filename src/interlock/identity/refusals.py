"""Refused tokens are recorded as counts, so that a flood of them cannot fill the disk."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import msgspec

from interlock.core.ports import Clock

MAX_HINT_CHARS: Final = 64
MAX_HINTS_PER_MINUTE: Final = 20
MAX_KEPT_COUNTS: Final = 1_000
_OTHER: Final = "other"
_PLAIN: Final = re.compile(r"[^A-Za-z0-9:/._-]")


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens were refused in one minute for one reason. `hint` is the issuer they claimed, cleaned and cut."""

    minute_s: int
    code: str
    hint: str
    count: int


class RefusalCounter:
    """Counts in memory; `take` hands over what has come since. A crash loses at most one interval's counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[tuple[int, str, str], int] = {}
        self.ever: Counter[str] = Counter()
        """By reason, since the start."""

    def add(self, code: str, issuer: str = "") -> None:
        """Count one refusal. After some hints in a minute, new ones are counted together under `other`."""
        self.ever[code] += 1
        minute_s = self._clock.wall_us() // 60_000_000 * 60
        key = (minute_s, code, _PLAIN.sub("?", issuer[:MAX_HINT_CHARS]))
        if key not in self._counts and sum(known[0] == minute_s for known in self._counts) >= MAX_HINTS_PER_MINUTE:
            key = (minute_s, code, _OTHER)
        self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> tuple[Refused, ...]:
        """What was counted since the last time."""
        taken, self._counts = self._counts, {}
        return tuple(
            Refused(minute_s=minute_s, code=code, hint=hint, count=count)
            for (minute_s, code, hint), count in sorted(taken.items())
        )

    def give_back(self, counts: tuple[Refused, ...]) -> None:
        """Count again what could not be stored. When that is too much, what came later is counted with the earliest minute."""
        for refused in counts:
            key = (refused.minute_s, refused.code, refused.hint)
            if key not in self._counts and len(self._counts) >= MAX_KEPT_COUNTS:
                key = (min(known[0] for known in self._counts), refused.code, _OTHER)
            self._counts[key] = self._counts.get(key, 0) + refused.count
