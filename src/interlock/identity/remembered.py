"""What was worked out from a token, for as long as it holds: bounded by number, and rid of what is over as more comes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")
_LOOKED_AT = 2


class Remembered(Generic[Value]):
    """Values by token. With each that comes two old ones are looked at: what is over goes soon, and nothing is swept.

    A token is as long as all that it says, and opens doors, so only its hash is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def get(self, token: str) -> Value | None:
        """What is known of a token; whether it still holds is for the caller to ask."""
        found = self._kept.get(_hash(token))
        return None if found is None else found[0]

    def keep(self, token: str, value: Value, *, until_s: float, now_s: float) -> None:
        """Keep what is known of a token that holds until then."""
        for _ in range(min(_LOOKED_AT, len(self._kept))):
            oldest, kept = self._kept.popitem(last=False)
            if kept[1] > now_s:
                self._kept[oldest] = kept
        self._kept[_hash(token)] = (value, until_s)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, token: str) -> None:
        """Know nothing of a token any more."""
        self._kept.pop(_hash(token), None)

    def clear(self) -> None:
        """Know nothing of any."""
        self._kept.clear()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
