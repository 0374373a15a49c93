"""What has entered one context: a look-up from token to the ways in which it entered. Kept as it grows, never rescanned."""

from __future__ import annotations

from array import array
from sys import intern
from typing import Final

from interlock.core.context import Item
from interlock.provenance.labels import Standing

NOTHING: Final = Standing(0)
MAX_INDEX_TOKENS: Final = 1_000_000
MAX_TOLD_APART: Final = 32  # sources of one session; what further ones returned is held by none
_STANDING_BITS: Final = 10
_SOURCE_SHIFT: Final = _STANDING_BITS
_NUMBER_SHIFT: Final = _STANDING_BITS + MAX_TOLD_APART
_KEPT_MASK: Final = (1 << _NUMBER_SHIFT) - 1


class Index:
    """Grows with `add`. `is_complete` turns False when something could not be kept, and never True again."""

    def __init__(self) -> None:
        self._marks: dict[int, int] = {}
        self._sources: list[str] = [""]
        self._told_apart: dict[str, int] = {}
        self.is_complete = True

    def __len__(self) -> int:
        """How many items have entered."""
        return len(self._sources) - 1

    @property
    def tokens(self) -> int:
        """How many tokens are kept."""
        return len(self._marks)

    @property
    def size(self) -> int:
        """The measure of its memory: items count too, for a context may take up many that bring no new token."""
        return len(self._marks) + len(self._sources)

    def add(self, item: Item, *, ignore: Standing = NOTHING, own: bool = True) -> None:
        """Take up the next item, but for what entered in a way of `ignore`; items are numbered from 1 as they are added.

        `own`: it entered in this session, and counts for where a plan says that a value comes from.
        """
        self._sources.append(intern(item.source))  # few names, and thousands of items
        number, ignored = len(self), int(ignore)
        self.is_complete = self.is_complete and item.is_complete
        source = self._bit(item.source) if own else 0
        for standing, hashes in item.tokens.items():
            if standing & ignored:
                continue
            if self.tokens > MAX_INDEX_TOKENS:
                self.is_complete = False
                return
            # The item that is kept is the latest one: the likeliest cause of what comes next.
            marks, mark = self._marks, (number << _NUMBER_SHIFT) | source | int(standing)
            for token in array("Q", hashes):
                known = marks.get(token)
                # One number for all tokens that say the same: a fifth of the memory of an index.
                marks[token] = mark if known is None or not (known & _KEPT_MASK) & ~mark else mark | (known & _KEPT_MASK)

    def source(self, number: int) -> str:
        """What item `number` was; empty for 0."""
        return self._sources[number]

    def has_span(self, span: int) -> bool:
        """Whether untrusted text held these words in a row."""
        return bool(self._marks.get(span, 0) & Standing.SPAN)

    def all_in(self, tokens: tuple[int, ...], standing: Standing) -> int:
        """The number of an item when all tokens have entered in this way (in one of them, for several bits), else 0."""
        number, bits = 0, int(standing)  # as a plain number: this is what every call waits for
        for token in tokens:
            mark = self._marks.get(token, 0)
            if not mark & bits:
                return 0
            number = mark >> _NUMBER_SHIFT
        return number

    def all_from(self, tokens: tuple[int, ...], source: str, standing: Standing) -> bool:
        """Whether all tokens have entered in this way (one of them, for several bits), by this source among others."""
        bit = self._told_apart.get(source, 0)
        return bool(bit) and all(
            (mark := self._marks.get(token, 0)) & standing and (mark >> _SOURCE_SHIFT) & bit for token in tokens
        )

    def _bit(self, source: str) -> int:
        """The bit of a source, in its place in a mark; 0 when there are too many of them."""
        if source not in self._told_apart and len(self._told_apart) < MAX_TOLD_APART:
            self._told_apart[source] = 1 << len(self._told_apart)
        return self._told_apart.get(source, 0) << _SOURCE_SHIFT
