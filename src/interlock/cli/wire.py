"""HTTP for a process that must start quickly: few connections, used again, and clear about what may have arrived."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from interlock.cli.output import USAGE, Failure

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 900.0
MAX_IDLE_S: Final = 30.0
MAX_IDLE_CONNECTIONS: Final = 8
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class NotSentError(Exception):
    """Nothing of the request can have arrived."""


class LostError(Exception):
    """The request may have arrived, and no answer came."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: its JSON messages, each a line; none for what was only taken note of. `title` says why it is none."""

    status: int
    headers: Mapping[str, str]
    lines: tuple[bytes, ...]
    title: str = ""

    @property
    def is_rpc(self) -> bool:
        """Whether the lines are JSON-RPC, and not a problem document."""
        return not self.title


class _Method(msgspec.Struct):
    method: str = ""


Soon = Callable[[bytes], None]
"""Given a message of the server that is no answer."""


class _Problem(msgspec.Struct):
    title: str = ""
    jsonrpc: str = ""


class Wire:
    """Requests to one URL. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Raises `Failure` for what is no URL of a server."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Failure(f"{url!r} is no http URL", code=USAGE)
        self.is_exposed = parts.scheme == "http" and parts.hostname not in _LOCAL
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path or "/"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._lock = threading.Lock()
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        self._busy: dict[object, http.client.HTTPConnection] = {}

    def post(
        self, body: bytes, headers: Mapping[str, str], *, of: object = None, again: bool = False, soon: Soon | None = None
    ) -> Answer:
        """Send and read one answer. `of` names the request for `abort`; with `again` it is sent twice if need be.

        What comes in a stream before the answer is given to `soon` at once, and is then none of its lines.

        Raises:
            NotSentError: nothing can have arrived.
            LostError: it may have arrived.
        """
        try:
            return self._once("POST", body, headers, of, soon)
        except LostError:
            if not again:
                raise
            return self._once("POST", body, headers, of, soon)

    def listen(self, headers: Mapping[str, str], soon: Soon) -> None:
        """Hear what the server says unasked, until it hangs up. Raises as `post`."""
        self._once("GET", b"", headers, None, soon)

    def delete(self, headers: Mapping[str, str]) -> None:
        """Say that a session is over. Raises as `post`."""
        self._once("DELETE", b"", headers, None)

    def abort(self, of: object) -> None:
        """Hang up on a request that is under way."""
        with self._lock:
            connection = self._busy.get(of)
        if connection is not None:
            _hang_up(connection)

    def close(self) -> None:
        """Hang up everywhere."""
        with self._lock:
            connections = [*self._busy.values(), *(connection for _, connection in self._idle)]
            self._idle.clear()
        for connection in connections:
            _hang_up(connection)

    def _once(self, method: str, body: bytes, headers: Mapping[str, str], of: object, soon: Soon | None = None) -> Answer:
        connection = self._connection()
        key = of if of is not None else object()
        with self._lock:
            self._busy[key] = connection
        try:
            connection.request(method, self._path, body=body, headers=dict(headers))
            answer = _read(connection.getresponse(), soon)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise LostError(str(error) or type(error).__name__) from error
        finally:
            with self._lock:
                self._busy.pop(key, None)
        with self._lock:
            if connection.sock is not None and len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append((time.monotonic(), connection))
                return answer
        connection.close()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                since_s, connection = self._idle.pop() if self._idle else (0.0, None)
            if connection is None:
                break
            if time.monotonic() - since_s < MAX_IDLE_S and _is_quiet(connection):
                return connection
            connection.close()
        if self._tls is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        else:
            made = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        try:
            made.connect()
        except (OSError, http.client.HTTPException) as error:
            raise NotSentError(str(error)) from error
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sock.settimeout(ANSWER_TIMEOUT_S)
        return made


def _is_quiet(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing waits to be read: what the other side has closed, or said without being asked, is not used again."""
    if connection.sock is None:
        return False
    try:
        readable, _, _ = select.select([connection.sock], [], [], 0)
    except (OSError, ValueError):
        return False
    return not readable


def _hang_up(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, soon: Soon | None) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        lines = tuple(message for message in _events(response) if soon is None or not _goes_on(message, soon))
    else:
        body = response.read(MAX_ANSWER_BYTES + 1)
        if len(body) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        # A line break in JSON stands between its parts and never in a text.
        lines = (body.replace(b"\r", b" ").replace(b"\n", b" ").strip(),) if body.strip() else ()
    return Answer(status=response.status, headers=headers, lines=lines, title=_title(response.status, lines))


def _goes_on(message: bytes, soon: Soon) -> bool:
    """Hand on what is no answer: a notification, or something that the server asks."""
    try:
        is_answer = not msgspec.json.decode(message, type=_Method).method
    except (msgspec.MsgspecError, UnicodeDecodeError):
        is_answer = True
    if not is_answer:
        soon(message)
    return not is_answer


def _title(status: int, lines: tuple[bytes, ...]) -> str:
    """What a problem document says; empty for JSON-RPC."""
    if status < 400:  # noqa: PLR2004
        return ""
    try:
        problem = msgspec.json.decode(lines[0] if lines else b"{}", type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = _Problem()
    return "" if problem.jsonrpc else problem.title or f"status {status}"


def _events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The messages of a stream of server-sent events (WHATWG HTML 9.2), as they come."""
    data: list[bytes] = []
    size = 0
    while line := response.readline(MAX_ANSWER_BYTES + 1):
        size += len(line)
        if size > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        text = line.rstrip(b"\r\n")
        if text.startswith(b"data:"):
            data.append(text[5:].removeprefix(b" "))
        elif not text and (message := b" ".join(data).strip()):
            data, size = [], 0
            yield message
        elif not text:
            data = []
    if message := b" ".join(data).strip():
        yield message
