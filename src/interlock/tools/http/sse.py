"""Server-sent events, as far as MCP uses them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import Final

from interlock.tools.errors import CallFailedError

_ID: Final = re.compile(rb"[\x20-\x7e]{0,1024}")
_RETRY_DIGITS: Final = 6


class EventReader:
    """Turns chunks of a stream into the data of its `message` events.

    `last_id` is where the stream can be taken up again, empty when the server has not said; `retry_ms` how long to wait before.
    """

    def __init__(self, *, max_events: int) -> None:
        self._rest = b""
        self._after_cr = False
        self._data: list[bytes] = []
        self._name = b""
        self._events = 0
        self._max_events = max_events
        self.last_id = ""
        self.retry_ms = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events completed by `chunk`. Bounded by the caller's limit on bytes and by `max_events`."""
        # Lines end in CRLF, LF or CR, and a CRLF may be cut in two by the network.
        fresh = chunk.removeprefix(b"\n") if self._after_cr else chunk
        self._after_cr = chunk.endswith(b"\r")
        lines = (self._rest + fresh).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        found: list[bytes] = []
        for raw in lines:
            line = raw.rstrip(b"\r\n")
            if line:
                self._field(line)
            elif self._data:
                # An event without data only gives a stream its first id (MCP 2025-11-25, resumability).
                if self._name in {b"", b"message"} and any(self._data):
                    found.append(b"\n".join(self._data))
                self._reset()
            else:
                self._name = b""
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"id" and _ID.fullmatch(value):
            self.last_id = value.decode("ascii")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry_ms = int(value)

    def _reset(self) -> None:
        self._data, self._name = [], b""
        self._events += 1
        if self._events > self._max_events:
            raise CallFailedError("too_large", f"more than {self._max_events} events before the result")
