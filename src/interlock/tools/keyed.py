"""Connections by key: bounded in number, closed when idle, never shared across keys."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from interlock.core.ports import Clock
from interlock.tools.errors import CallFailedError
from interlock.tools.port import ConnectionKey


class Closing(Protocol):
    """What `Keyed` keeps."""

    async def aclose(self) -> None:
        """Close; never raises."""
        ...


Kept = TypeVar("Kept", bound=Closing)


class _Entry(Generic[Kept]):
    def __init__(self, value: Kept) -> None:
        self.value = value
        self.users = 0
        self.idle_since_s = 0.0


class Keyed(Generic[Kept]):
    """At most `keys_max` values, made on first use. Every `take` is followed by one `give`."""

    def __init__(self, make: Callable[[ConnectionKey], Kept], *, keys_max: int, idle_s: float, clock: Clock) -> None:
        self._make = make
        self._keys_max = keys_max
        self._idle_s = idle_s
        self._clock = clock
        self._entries: OrderedDict[ConnectionKey, _Entry[Kept]] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._users = 0
        self._quiet: asyncio.Event | None = None
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many keys are open."""
        return len(self._entries)

    def take(self, key: ConnectionKey) -> Kept:
        """The value of `key`, kept open until `give`. Raises `CallFailedError` when closed or when all keys are in use."""
        if self._closed:
            raise CallFailedError("cancelled", "the connector was closed")
        entry = self._entries.get(key)
        if entry is None:
            self._make_room()
            entry = self._entries[key] = _Entry(self._make(key))
            self._arm()
        entry.users += 1
        self._users += 1
        self._entries.move_to_end(key)
        return entry.value

    def give(self, key: ConnectionKey) -> None:
        """The caller is done with what it took."""
        self._users -= 1
        entry = self._entries.get(key)
        if entry is not None:
            entry.users -= 1
            entry.idle_since_s = self._clock.monotonic_s()
        if self._users == 0 and self._quiet is not None:
            self._quiet.set()

    def sweep(self) -> None:
        """Close what nobody has used for `idle_s`. Runs by itself; least recently used first."""
        now = self._clock.monotonic_s()
        for key, entry in list(self._entries.items()):
            if entry.users == 0 and now - entry.idle_since_s >= self._idle_s:
                self._evict(key)

    async def quiet(self) -> None:
        """Wait until nothing is taken."""
        if self._users:
            self._quiet = asyncio.Event()
            await self._quiet.wait()

    async def aclose(self) -> None:
        """Close everything, in use or not."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._entries):
            self._evict(key)
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _make_room(self) -> None:
        if len(self._entries) < self._keys_max:
            return
        for key, entry in self._entries.items():
            if entry.users == 0:
                self._evict(key)
                return
        raise CallFailedError("unreachable", f"all {self._keys_max} connection keys of this tool are in use")

    def _evict(self, key: ConnectionKey) -> None:
        task = asyncio.get_running_loop().create_task(self._entries.pop(key).value.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if self._entries:
            self._arm()
