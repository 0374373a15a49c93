"""HTTP on the wire: uvicorn's protocol with bounds on what a stranger may send before anything has looked at it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from interlock.server.limits import MAX_HEAD_BYTES, REQUEST_READ_S

LINE: Final = "interlock.line"
"""In a request's scope: its `OpenLine`."""
_HEAD_TOO_LARGE: Final = b"431 Request Header Fields Too Large"
_NO_VERSION: Final = b"505 HTTP Version Not Supported"
_VERSIONS: Final = frozenset({"1.1", "1.0"})
_TOO_SLOW: Final = b"408 Request Timeout"
_NO_TUNNEL: Final = b"405 Method Not Allowed"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class OpenLine:
    """What an answer that takes its time, or goes on for ever, needs of its connection."""

    def __init__(self, hang_up: Callable[[], None], read_on: Callable[[], None], began_s: float) -> None:
        self.began_s = began_s
        """When the first byte of the request was here, on the loop's clock."""
        self.hang_up = hang_up
        """Closes the connection at once, for a client that does not read."""
        self.stop: Callable[[], None] | None = None
        """Set by the answer: called when the server shuts down, and then it ends."""
        self.is_over = False
        """The server has shut down, perhaps before `stop` was set: look when setting it."""
        self.is_gone = False
        """The client has gone."""
        self._read_on = read_on
        self._told: Callable[[], object] | None = None

    def end(self) -> None:
        """Tell the answer to end."""
        self.is_over = True
        if self.stop is not None:
            self.stop()

    def tell_when_gone(self, told: Callable[[], object] | None) -> None:
        """Call `told` when the client goes, at once if it has; with None, nobody any more."""
        self._told = told
        if told is not None and self.is_gone:
            told()
        elif told is not None:
            # Of a client that is not read from nobody hears that it left.
            self._read_on()

    def gone(self) -> None:
        """The client has gone."""
        self.is_gone = True
        if self._told is not None:
            self._told()


class _Outgoing:
    """A connection as answers see it: the head of one whose length is known leaves with the first of its body.

    uvicorn writes heads apart, which is a system call, a packet and a client woken up for half an answer, with every answer.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._has_begun = False
        self.cycle: RequestResponseCycle | None = None
        """What is served now, or was last."""
        self.is_closing = transport.is_closing

    def serve(self, cycle: RequestResponseCycle) -> None:
        """Carry this answer from now on; the one before is complete."""
        self.cycle, self._has_begun = cycle, False
        cycle.transport = self  # type: ignore[assignment]  # it writes, closes, and asks whether that was done

    def write(self, data: bytes) -> None:
        """Write, or keep a head that a body is sure to follow."""
        cycle = self.cycle
        if self._head:
            self._transport.writelines((self._flushed(), data))
        elif cycle is None or self._has_begun or not cycle.response_started:
            self._transport.write(data)
        else:
            self._has_begun = True
            if cycle.expected_content_length and cycle.scope["method"] != "HEAD":
                self._head = data
            else:
                self._transport.write(data)

    def close(self) -> None:
        """Close when all is written, a head without its body too."""
        if self._head:
            self._transport.write(self._flushed())
        self._transport.close()

    def _flushed(self) -> bytes:
        head, self._head = self._head, b""
        return head


def waited_s(scope: Mapping[str, Any]) -> float:
    """How long ago the first byte of a request was here; 0 where nobody knows."""
    line = scope.get(LINE)
    return asyncio.get_running_loop().time() - line.began_s if isinstance(line, OpenLine) and line.began_s else 0.0


class BoundedHttp(HttpToolsProtocol):
    """Give it to `uvicorn.Config(http=...)`. Heads have a size, and whole requests a time to arrive in.

    uvicorn's parser collects a head of any size for as long as it takes, and does so before a token could be asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chunk_bytes = 0
        self._beside_bytes = 0  # of chunks' extensions and trailers, since there was any of the body
        self._had_body = False
        self._repeating = False  # the head of a request whose offer to upgrade was not taken
        self._earlier_bytes = 0  # of the head at hand, in chunks after the one it began in
        self._has_begun = False
        self._in_head = False
        self._outgoing: _Outgoing
        self._in_message = True  # a connection that says nothing is as slow as one that stops half-way
        self._refused = False
        self._is_last = False  # of this connection's requests: the one that is arriving
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """Start the time for the first request."""
        super().connection_made(transport)
        self._outgoing = _Outgoing(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does this only for listeners made with IPPROTO_TCP; without it, every answer waits 40 ms for an ACK.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline = self.loop.call_later(REQUEST_READ_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time, and tell the answer under way."""
        self._stop_waiting()
        super().connection_lost(exc)
        served = self._outgoing.cycle
        if served is None or served.response_complete:
            return
        # uvicorn tells the request that came last, which may still wait behind this one.
        served.disconnected = True
        served.message_event.set()
        line = served.scope.get(LINE)
        if isinstance(line, OpenLine):
            line.gone()

    def data_received(self, data: bytes) -> None:
        """Parse, unless this client was refused; what has begun must end in time."""
        if self._refused:
            return
        began_earlier = self._in_head
        self._chunk_bytes = len(data)
        self._had_body = False
        self._parse(data)
        in_body = self._in_message and not self._in_head
        self._beside_bytes = self._beside_bytes + len(data) if in_body and not self._had_body else 0
        if self._beside_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
        if self._in_head:
            # A header line that never ends reaches no callback, so what arrives within a head is counted here.
            self._earlier_bytes += len(data) if began_earlier else 0
            if self._earlier_bytes > MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE)
        if not self._in_message:
            self._stop_waiting()
        elif self._deadline is None and not self._refused:
            self._deadline = self.loop.call_later(REQUEST_READ_S, self._too_slow)

    def _parse(self, data: bytes) -> None:
        """Give the parser all of it, over every offer to speak another protocol."""
        self._unset_keepalive_if_required()
        rest: bytes | None = data
        while rest is not None:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offered:
                rest = rest[offered.args[0] :] if self._declined() else None
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            else:
                return

    def _declined(self) -> bool:
        """Take no such offer, as a server may (RFC 9110, section 7.8): the request is one like any other. False: it is none.

        httptools leaves the body of such a request unread, so another parser reads it, by the same lines about its length.
        """
        if self._refused or self.cycle is None or self.parser.get_method() == b"CONNECT":
            self._refuse(_NO_TUNNEL)
            return False
        framing = b"".join(b"%b: %b\r\n" % line for line in self.headers if line[0] in _FRAMING)
        self.parser = httptools.HttpRequestParser(self)
        self._repeating = True
        # The first parser has taken these very lines, so this one does.
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        self._repeating = False
        return True

    def _should_upgrade(self) -> bool:
        """Never: also not where a library for web sockets happens to be installed."""
        return False

    def on_url(self, url: bytes) -> None:
        """The address."""
        if not self._repeating:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head. What stands behind a body is no part of it (RFC 9110, section 6.5.1), whatever it is called."""
        if self._in_head and not self._repeating:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._repeating:
            return
        self._has_begun = self._in_message = self._in_head = True
        self._earlier_bytes = 0
        super().on_message_begin()
        line = OpenLine(self.transport.abort, self.flow.resume_reading, self.loop.time())
        self.scope[LINE] = line  # type: ignore[typeddict-unknown-key]  # ours

    def shutdown(self) -> None:
        """Close when the answer under way is done; one without an end is told to end. A request that arrives is served."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._has_begun and self._in_message:
            self._is_last = True
            return
        super().shutdown()
        line = None if idle else self.cycle.scope.get(LINE)
        if isinstance(line, OpenLine):
            line.end()

    def on_headers_complete(self) -> None:
        """Serve the request, unless its head is too large."""
        if self._repeating:
            return
        self._in_head = False
        # A head that came within one small chunk cannot be too large, so nothing is added up for ordinary requests.
        if self._chunk_bytes + self._earlier_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
            return
        if self.parser.get_http_version() not in _VERSIONS:
            # A request without a version is one of HTTP/0.9, which has no headers: whoever sent some means another protocol.
            self._refuse(_NO_VERSION)
            return
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Serve a request whose turn it is."""
        self._outgoing.serve(cycle)
        super()._start_asgi_task(cycle, app)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """Hand on what belongs to a request that is served."""
        self._had_body = True
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; of one that offers an upgrade, only when its body was read too."""
        if self.parser.should_upgrade():
            return
        self._in_message = False
        if not self._refused:
            super().on_message_complete()

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(_TOO_SLOW)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes) -> None:
        # INVARIANT: nothing of this connection is looked at any more; a request whose body is missing ends as a disconnect.
        self._refused = True
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether an answer now would be read as the answer to the request at fault, and not to one before it."""
        cycle = self.cycle
        if not self._has_begun:
            return False
        if cycle is None or cycle.response_complete:
            # A request that was answered before all of it was here has its answer.
            return cycle is None or cycle.scope is not self.scope
        return cycle.more_body and not cycle.response_started and not self.pipeline
