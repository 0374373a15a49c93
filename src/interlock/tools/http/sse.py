"""Server-sent events, as far as MCP uses them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import Final

from interlock.tools.errors import CallFailedError
from interlock.tools.skim import Skim, Skimmed

_ID: Final = re.compile(rb"[\x20-\x7e]{0,1024}")
_RETRY_DIGITS: Final = 6
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_FIELD_BYTES: Final = 64
_DATA: Final = b"data:"


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

    def let_go(self) -> EventSkim:
        """Keep nothing more: the event that has begun goes on in what this returns."""
        begun = [b"event: " + self._name] if self._name else []
        begun += [b"data: " + line for line in self._data]
        lines = b"".join(line + b"\n" for line in begun) + self._rest
        self._rest, self._data = b"", []
        return EventSkim(lines, events_left=self._max_events - self._events, after_cr=self._after_cr)

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


class EventSkim:
    """The same for a stream that has grown too long to keep: only which of its events was the reply, and what that said."""

    def __init__(self, begun: bytes, *, events_left: int, after_cr: bool) -> None:
        self._events_left = events_left
        self._after_cr = False
        self._line = bytearray()
        self._in_data = False
        self._name = b""
        self._skim: Skim | None = None
        self.feed(begun)
        self._after_cr = after_cr

    def feed(self, chunk: bytes) -> Skimmed | None:
        """The reply, if it ended in `chunk`. Raises `CallFailedError` for an event that is no whole message."""
        at = 1 if self._after_cr and chunk.startswith(b"\n") else 0
        self._after_cr = chunk.endswith(b"\r")
        while at < len(chunk):
            end = _LINE_END.search(chunk, at)
            self._part(chunk[at : len(chunk) if end is None else end.start()])
            if end is None:
                break
            at = end.end()
            told = self._line_ended()
            if told is not None and told.is_reply:
                return told
        return None

    def _part(self, text: bytes) -> None:
        if not self._in_data:
            self._line += text
            # Whether a space follows the colon, which is not part of the data, must be seen too.
            if not self._line.startswith(_DATA) or len(self._line) == len(_DATA):
                del self._line[_FIELD_BYTES:]
                return
            self._in_data = True
            text = bytes(self._line[len(_DATA) :]).removeprefix(b" ")
        if text:
            self._skim = self._skim or Skim()
            self._skim.feed(text)

    def _line_ended(self) -> Skimmed | None:
        line, in_data = bytes(self._line), self._in_data
        self._line.clear()
        self._in_data = False
        if in_data:
            if self._skim is not None:
                self._skim.feed(b"\n")
        elif line.startswith(b"event:"):
            self._name = line.removeprefix(b"event:").strip()
        elif not line:
            return self._event_ended()
        return None

    def _event_ended(self) -> Skimmed | None:
        skim, name = self._skim, self._name
        self._skim, self._name = None, b""
        if skim is None or name not in {b"", b"message"}:
            return None
        self._events_left -= 1
        told = skim.told()
        if told is None or self._events_left < 0:
            raise CallFailedError("too_large", "the stream is too long to keep, and what it says cannot be told")
        return told
