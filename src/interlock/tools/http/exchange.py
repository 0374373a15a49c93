"""One HTTP request and its response, as the parser tells them to us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httptools
import msgspec

from interlock.tools.errors import CallFailedError, StreamEndedError
from interlock.tools.http.sse import EventReader, EventSkim
from interlock.tools.limits import ToolLimits
from interlock.tools.skim import Skim

OK: Final = 200
_INFORMATIONAL: Final = range(100, 200)
_HEADERS_MAX: Final = 200
_ONCE: Final = frozenset({b"content-type", b"mcp-session-id", b"content-encoding"})

OnEvent = Callable[[bytes], bool]


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response as far as we need it. `body` is the whole body, or the data of the event that held the reply."""

    status: int
    media_type: str
    session_id: str
    body: bytes


class Exchange:
    """Collects one response within the limits; `answer` resolves with an `HttpResponse` or `CallFailedError`.

    `on_event` is shown the data of each stream event and says whether it was the reply; the rest of the stream is then
    only drained. The methods named `on_...` are httptools' callbacks.
    """

    def __init__(self, *, limits: ToolLimits, on_event: OnEvent) -> None:
        self.answer: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self.complete = False
        self.keep_alive = False
        self.failure: CallFailedError | None = None
        self.parser: httptools.HttpResponseParser | None = None
        """Holds what is asked of it here, so whoever made it takes it away in the end."""
        self._limits = limits
        self._on_event = on_event
        self._events: EventReader | None = None
        self._skim: Skim | EventSkim | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._header_bytes = 0
        self._in_head = True
        self._had_body = False
        self._beside_bytes = 0
        self._body = bytearray()
        self._body_bytes = 0
        self._status = 0
        self._media_type = ""

    def on_message_begin(self) -> None:
        """A response begins; none may follow the first on the same request."""
        if self.complete:
            self._fail("protocol", "bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header line, or a trailer."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > _HEADERS_MAX or self._header_bytes > self._limits.header_max_bytes:
            self._fail("too_large", f"more than {self._limits.header_max_bytes} bytes or {_HEADERS_MAX} lines of headers")
        elif self._in_head:
            key = name.lower()
            if key in _ONCE and key in self._headers:
                self._fail("protocol", f"two {key.decode('ascii', 'replace')} headers")
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        """The head is whole: status, type and encoding are known."""
        assert self.parser is not None  # noqa: S101  # it is what calls this
        self._status = self.parser.get_status_code()
        if self._status in _INFORMATIONAL:
            return
        self._in_head = False
        if self._headers.get(b"content-encoding", b"identity").lower() not in {b"identity", b""}:
            self._fail("protocol", "the response is compressed although we asked for none")
        self._media_type = self._headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if self._media_type == "text/event-stream" and self._status == OK:
            self._events = EventReader(max_events=self._limits.stream_max_events)

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body, without its framing."""
        self._had_body = True
        self._body_bytes += len(chunk)
        if self._body_bytes > self._limits.skimmed_max_bytes:
            self._fail("too_large", f"the response is longer than {self._limits.skimmed_max_bytes} bytes")
        if self.failure is not None or self.answer.done():
            return
        try:
            if self._body_bytes > self._limits.response_max_bytes:
                self._over(chunk)
            elif self._events is None:
                self._body += chunk
            else:
                for data in self._events.feed(chunk):
                    if self._on_event(data):
                        self._resolve(data)
                        return
        except CallFailedError as error:
            self.fail(error)

    def on_message_complete(self) -> None:
        """The response is whole."""
        if self._status in _INFORMATIONAL:
            self._headers.clear()
            return
        self.complete = True
        self.keep_alive = self.parser is not None and self.parser.should_keep_alive()
        if isinstance(self._skim, Skim):
            told = self._skim.told()
            if told is not None and told.is_reply:
                self.fail(told.failure(self._body_bytes))
            self._fail("too_large", f"{self._body_bytes} bytes, which are no whole answer")
        elif self._skim is not None:
            self._fail("too_large", "the stream ended without the result")
        elif self._events is None:
            self._resolve(bytes(self._body))
        elif self._events.last_id:
            self.fail(StreamEndedError(self._events.last_id, self._events.retry_ms))
        else:
            self._fail("protocol", "the stream ended without the result")

    def _over(self, chunk: bytes) -> None:
        """Keep nothing more of the body: from here on it is only asked what kind of answer it is."""
        if self._skim is None and self._events is not None:
            self._skim = self._events.let_go()
        elif self._skim is None:
            if self._status != OK or self._media_type != "application/json":
                raise CallFailedError("too_large", f"the response is longer than {self._limits.response_max_bytes} bytes")
            self._skim = Skim()
            chunk = bytes(self._body) + chunk
            self._body.clear()
        assert self._skim is not None  # noqa: S101  # for the type checker
        told = self._skim.feed(chunk)
        if told is not None:
            raise told.failure(self._body_bytes)

    def on_eof(self) -> None:
        """The connection is gone. A response without any length ends so; its JSON shows whether it was whole."""
        if self._in_head:
            self._fail("unreachable", "the connection was lost before any response")
        elif self._events is None and b"content-length" not in self._headers and b"transfer-encoding" not in self._headers:
            self.on_message_complete()
        else:
            self._fail("protocol", "the connection was lost in the middle of the response")

    def check_head(self, received_bytes: int) -> None:
        """Bound a head, a trailer or a chunk's extension that never ends: the parser reports each only once it is whole."""
        if self._in_head:
            self._header_bytes += received_bytes
        self._beside_bytes = 0 if self._had_body or self._in_head else self._beside_bytes + received_bytes
        self._had_body = False
        if max(self._header_bytes, self._beside_bytes) > 2 * self._limits.header_max_bytes:
            self._fail("too_large", f"more than {self._limits.header_max_bytes} bytes of headers")

    def fail(self, error: CallFailedError) -> None:
        """End without a response; the first failure counts."""
        self.failure = self.failure or error
        if not self.answer.done():
            self.answer.set_exception(error)

    def _fail(self, code: str, detail: str) -> None:
        self.fail(CallFailedError(code, detail))

    def _resolve(self, body: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(
                HttpResponse(
                    status=self._status,
                    media_type=self._media_type,
                    session_id=self._headers.get(b"mcp-session-id", b"").decode("latin-1"),
                    body=body,
                )
            )
