"""What a process remembers so that it need not ask or work again: what was used last, bounded by number and by size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The values used last, by key: at most `most` of them and, where `size` measures each, at most `most_size` of all.

    Whatever is forgotten is asked for again: nothing may depend on being found here. The value that was put last stays however
    large it is, for whoever put it is about to use it. Not for several threads at once.
    """

    __slots__ = ("_entries", "_measure", "_sizes", "most", "most_size", "size")

    def __init__(self, most: int, *, most_size: int = 0, size: Callable[[Value], int] | None = None) -> None:
        self.most = most
        self.most_size = most_size
        self._measure = size
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self.size = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        """The keys, the one used longest ago first."""
        return iter(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value kept under a key, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, or measure again one that has grown; what was used longest ago gives way to it."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if self._measure is not None:
            measured = self._measure(value)
            self.size += measured - self._sizes.get(key, 0)
            self._sizes[key] = measured
        while len(self._entries) > 1 and (len(self._entries) > self.most or self.size > self.most_size):
            self.pop(next(iter(self._entries)))

    def pop(self, key: Key) -> Value | None:
        """Forget what is kept under a key; gives it."""
        self.size -= self._sizes.pop(key, 0)
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._sizes.clear()
        self.size = 0
