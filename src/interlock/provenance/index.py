"""What has entered one context: a look-up from token to the ways in which it entered. Kept as it grows, never rescanned."""

from __future__ import annotations

from array import array
from typing import Final

from interlock.core.context import Item
from interlock.provenance.labels import Standing

NOTHING: Final = Standing(0)
MAX_INDEX_TOKENS: Final = 1_000_000
_STANDING_BITS: Final = 7
_STANDING_MASK: Final = (1 << _STANDING_BITS) - 1


class Index:
    """Grows with `add`. `is_complete` turns False when something could not be kept, and never True again."""

    def __init__(self) -> None:
        self._marks: dict[int, int] = {}
        self._sources: list[str] = [""]
        self.is_complete = True

    def __len__(self) -> int:
        """How many items have entered."""
        return len(self._sources) - 1

    @property
    def tokens(self) -> int:
        """How many tokens are kept: the measure of its memory."""
        return len(self._marks)

    def add(self, item: Item, *, ignore: Standing = NOTHING) -> None:
        """Take up the next item, but for what entered in a way of `ignore`; items are numbered from 1 as they are added."""
        self._sources.append(item.source)
        number = len(self)
        self.is_complete = self.is_complete and item.is_complete
        for standing, hashes in item.tokens.items():
            if standing & ignore:
                continue
            if self.tokens > MAX_INDEX_TOKENS:
                self.is_complete = False
                return
            marks = self._marks
            for token in array("Q", hashes):
                known = marks.get(token, 0)
                # The item that is kept is the latest one: the likeliest cause of what comes next.
                marks[token] = (number << _STANDING_BITS) | (known & _STANDING_MASK) | standing

    def source(self, number: int) -> str:
        """What item `number` was; empty for 0."""
        return self._sources[number]

    def has_span(self, span: int) -> bool:
        """Whether untrusted text held these words in a row."""
        return bool(self._marks.get(span, 0) & Standing.SPAN)

    def all_in(self, tokens: tuple[int, ...], standing: Standing) -> int:
        """The number of an item when all tokens have entered in this way (in one of them, for several bits), else 0."""
        number = 0
        for token in tokens:
            mark = self._marks.get(token, 0)
            if not mark & standing:
                return 0
            number = mark >> _STANDING_BITS
        return number
