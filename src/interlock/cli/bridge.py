"""A local MCP client's lines on standard input, carried to a running Interlock's /mcp and back, byte for byte.

What a message asks for is never interpreted here: only its method, id, revision and tool name are read, because HTTP wants
them in headers (MCP 2025-11-25 and 2026-07-28, Streamable HTTP). Threads and `http.client`, so that starting takes no time.
"""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import IO, Any, Final, Protocol

import msgspec

from interlock.cli.output import Failure
from interlock.cli.wire import Answer, LostError, NotSentError, Wire
from interlock.core.mirrored import Mirrored, mirrored_parameters, parameter_headers

MAX_LINE_BYTES: Final = 1024 * 1024
MAX_CALLS_IN_FLIGHT: Final = 64
LAST_ANSWERS_WAIT_S: Final = 10.0
INTERNAL_ERROR: Final = -32603
INVALID_REQUEST: Final = -32600
PARSE_ERROR: Final = -32700
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"
_INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_CALL: Final = "tools/call"
_READ: Final = "resources/read"
_LIST: Final = "tools/list"
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_NEVER_SENT: Final = "Interlock does not answer, so nothing was done: {why}. Is it running? The next request tries again."
_LOST: Final = (
    "the connection to Interlock broke before it answered ({why}), so it is not known whether this was done. "
    "Ask again with the same arguments: a write that was done is not done twice."
)


class Token(Protocol):
    """Where the session token comes from. Both raise `Failure`."""

    def text(self) -> str:
        """A token that still holds for a while."""
        ...

    def refused(self, text: str) -> str:
        """Another token, because this one was refused."""
        ...


class _Params(msgspec.Struct):
    name: msgspec.Raw = msgspec.Raw(b"null")
    uri: msgspec.Raw = msgspec.Raw(b"null")
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    requestId: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815  # as MCP writes it
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw(b"null"))


class _Head(msgspec.Struct):
    """What of a message is read. `id` is None in notifications, `method` empty in answers to the server."""

    method: str = ""
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw(b"null")


class _Result(msgspec.Struct):
    class _Body(msgspec.Struct):
        protocolVersion: str = ""  # noqa: N815  # as MCP writes it

    result: _Body | None = None


class _Listed(msgspec.Struct):
    class _Tools(msgspec.Struct):
        class _Tool(msgspec.Struct):
            name: str
            inputSchema: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815  # as MCP writes it

        tools: list[_Tool] = []

    result: _Tools | None = None


class Message:
    """One line, and what its headers need."""

    __slots__ = ("arguments", "body", "id", "method", "name", "target", "version")

    def __init__(self, body: bytes) -> None:
        """Read a line. Raises `msgspec.MsgspecError` for what is no message."""
        head = msgspec.json.decode(body, type=_Head)
        self.body, self.method, self.id = body, head.method, head.id
        self.name, self.version, self.target, self.arguments = "", "", None, b"null"
        if bytes(head.params).startswith(b"{"):
            params = msgspec.json.decode(head.params, type=_Params)
            named = params.uri if head.method == _READ else params.name
            name, target = msgspec.json.decode(named), msgspec.json.decode(params.requestId)
            meta = msgspec.json.decode(params.meta) if bytes(params.meta).startswith(b"{") else {}
            version = meta.get(VERSION_KEY, "")
            self.name = name if isinstance(name, str) else ""
            self.arguments = bytes(params.arguments)
            self.target = target if isinstance(target, (int, str)) else None
            self.version = version if isinstance(version, str) else ""

    @property
    def may_be_repeated(self) -> bool:
        """Whether sending it twice does nothing twice."""
        return self.method not in {_CALL, ""}


class Bridge:
    """Carries messages until the input ends. Answers go to `out`, one a line; what people should know to `log`."""

    def __init__(self, wire: Wire, token: Token, out: IO[bytes], log: Callable[[str], None]) -> None:
        self._wire = wire
        self._token = token
        self._out = out
        self._log = log
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        self._calls: dict[int | str, threading.Event] = {}
        self._threads = ThreadPoolExecutor(MAX_CALLS_IN_FLIGHT, thread_name_prefix="call")
        self._pending: set[Future[None]] = set()
        # The handshake of the older revisions, to be done again when the server no longer knows it.
        self._initialize: Message | None = None
        self._session = ""
        self._version = ""
        # By tool, the arguments that HTTP wants in headers too, as the server listed them.
        self._mirrored: dict[str, Mirrored] = {}

    def run(self, lines: IO[bytes]) -> None:
        """Carry every line. Answers to what was asked before the input ended are waited for, then the session is closed."""
        while line := lines.readline(MAX_LINE_BYTES + 2):
            if not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
                while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                self._refuse(None, INVALID_REQUEST, f"a message has at most {MAX_LINE_BYTES} bytes")
            elif line.strip():
                self._take(line.strip())
        wait(set(self._pending), timeout=LAST_ANSWERS_WAIT_S)
        for cancelled in list(self._calls.values()):
            cancelled.set()
        if self._session:
            with contextlib.suppress(NotSentError, LostError, Failure):
                self._wire.delete(self._headers(None, self._token.text()))
        self._wire.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, line: bytes) -> None:
        try:
            message = Message(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._refuse(None, PARSE_ERROR, "a line is one JSON-RPC message")
            return
        if message.method == "notifications/cancelled" and message.target is not None:
            self._cancel(message)
        elif message.id is None or not message.method or message.method == "initialize":
            # In the order they came: what follows may depend on them.
            self._carry(message, threading.Event())
        elif len(self._calls) >= MAX_CALLS_IN_FLIGHT:
            self._refuse(message.id, INTERNAL_ERROR, f"{MAX_CALLS_IN_FLIGHT} requests are under way; nothing was done")
        elif message.id in self._calls:
            self._refuse(message.id, INVALID_REQUEST, "a request with this id is under way")
        else:
            cancelled = self._calls[message.id] = threading.Event()
            future = self._threads.submit(self._call, message, cancelled)
            self._pending.add(future)
            future.add_done_callback(self._pending.discard)

    def _cancel(self, message: Message) -> None:
        assert message.target is not None  # noqa: S101  # the caller looked
        cancelled = self._calls.get(message.target)
        if cancelled is not None:
            cancelled.set()
        if self._session:
            self._carry(message, threading.Event())
        else:
            self._wire.abort(message.target)  # on the newer revision hanging up is how one cancels

    def _call(self, message: Message, cancelled: threading.Event) -> None:
        try:
            self._carry(message, cancelled)
        finally:
            if message.id is not None:
                self._calls.pop(message.id, None)

    def _carry(self, message: Message, cancelled: threading.Event) -> None:
        """Send one message, and write what comes back. Whatever goes wrong, who asked gets an answer."""
        try:
            answer = self._asked(message)
        except NotSentError as error:
            why = _NEVER_SENT.format(why=error)
        except LostError as error:
            why = _LOST.format(why=error) if message.method == _CALL else f"the connection to Interlock broke: {error}"
        except Failure as failure:
            why = f"{failure}. {failure.hint}".rstrip()
        except Exception as error:  # noqa: BLE001  # one message that cannot be carried ends no other
            why = f"this message could not be carried: {type(error).__name__}: {error}"
        else:
            if not cancelled.is_set():
                self._write(message, answer)
            return
        if not cancelled.is_set():
            self._log(why)
            self._refuse(message.id, INTERNAL_ERROR, why)

    def _asked(self, message: Message) -> Answer:
        if message.method == "initialize":
            return self._opened(message)
        if message.method == "notifications/initialized" and self._session:
            threading.Thread(target=self._hear, name="unasked", daemon=True).start()
        token, session = self._token.text(), self._session
        answer = self._post(message, token)
        if answer.status == _UNAUTHORIZED:
            token = self._token.refused(token)
            answer = self._post(message, token)
        if answer.status == _NOT_FOUND and session and not message.version:
            # INVARIANT: who answers this has called nothing.
            self._open_again(session)
            answer = self._post(message, self._token.text())
        return answer

    def _opened(self, message: Message) -> Answer:
        with self._opening:
            self._initialize, self._session, self._version = message, "", ""
            token = self._token.text()
            answer = self._post(message, token)
            if answer.status == _UNAUTHORIZED:
                answer = self._post(message, self._token.refused(token))
            self._session = answer.headers.get(_SESSION, "")
            with contextlib.suppress(msgspec.MsgspecError):
                found = msgspec.json.decode(answer.lines[-1] if answer.lines else b"{}", type=_Result)
                self._version = found.result.protocolVersion if found.result is not None else ""
            return answer

    def _hear(self) -> None:
        """Carry what the server says unasked, for as long as it does."""
        with contextlib.suppress(NotSentError, LostError, Failure):
            self._wire.listen(self._headers(None, self._token.text()), self._line)

    def _open_again(self, lost: str) -> None:
        """Do the handshake once more after the server forgot it: it was restarted, or it was silent for too long."""
        with self._opening:
            if self._session != lost or self._initialize is None:
                return  # somebody else did already
            self._session = ""
            answer = self._post(self._initialize, self._token.text())
            self._session = answer.headers.get(_SESSION, "")
            if self._session:
                self._post(Message(_INITIALIZED), self._token.text())
                self._log("the server had forgotten this client; it was introduced again")

    def _post(self, message: Message, token: str) -> Answer:
        return self._wire.post(
            message.body, self._headers(message, token), of=message.id, again=message.may_be_repeated, soon=self._line
        )

    def _headers(self, message: Message | None, token: str) -> dict[str, str]:
        headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
        if message is not None:
            headers["content-type"] = "application/json"
        if message is not None and message.version:
            headers |= {_VERSION: message.version, "mcp-method": _as_header(message.method)}
            headers |= {"mcp-name": _as_header(message.name)} if message.name else {}
            if message.method == _CALL and self._mirrored.get(message.name):
                headers |= parameter_headers(self._mirrored[message.name], message.arguments)
        elif self._session:
            headers |= {_SESSION: self._session, _VERSION: self._version} if self._version else {_SESSION: self._session}
        return headers

    def _write(self, message: Message, answer: Answer) -> None:
        if answer.lines and answer.is_rpc:
            if message.method == _LIST:
                self._learn(answer.lines[-1])
            for line in answer.lines:
                self._line(line)
        elif answer.status >= 400:  # noqa: PLR2004  # a problem document, or nothing
            self._log(f"Interlock answered {answer.status}: {answer.title}")
            self._refuse(message.id, INTERNAL_ERROR, answer.title or f"Interlock answered {answer.status}")
        elif message.id is not None and message.method:
            self._refuse(message.id, INTERNAL_ERROR, "Interlock gave no answer")

    def _learn(self, line: bytes) -> None:
        """Which arguments of which tool are repeated in headers."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            listed = msgspec.json.decode(line, type=_Listed).result
            for tool in listed.tools if listed is not None else ():
                self._mirrored[tool.name] = mirrored_parameters(bytes(tool.inputSchema).decode())

    def _refuse(self, request_id: int | str | None, code: int, why: str) -> None:
        if request_id is None and code == INTERNAL_ERROR:
            return  # a notification; nobody waits
        error = {"code": code, "message": why}
        self._line(msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error}))

    def _line(self, line: bytes) -> None:
        with self._writing, contextlib.suppress(BrokenPipeError, ValueError):
            self._out.write(line + b"\n")
            self._out.flush()


class ExchangedToken:
    """A session token got by exchanging the person's and the agent's own tokens, and got anew before it runs out."""

    def __init__(self, exchange: Callable[[str], Mapping[str, Any]], *, refusal: int) -> None:
        """`exchange` takes the session to go on with, empty for a new one; `refusal` is the code of its `Failure` for a no."""
        self._exchange = exchange
        self._refusal = refusal
        self._lock = threading.Lock()
        self._session = ""
        self._text = ""
        self._renew_at_s = 0.0

    def text(self) -> str:
        """A token that still holds for a while. Raises `Failure`."""
        with self._lock:
            if time.monotonic() >= self._renew_at_s:
                self._renew()
            return self._text

    def refused(self, text: str) -> str:
        """Another token, because this one was refused. Raises `Failure`."""
        with self._lock:
            if text == self._text:
                self._renew()
            return self._text

    def _renew(self) -> None:
        try:
            answer = self._exchange(self._session)
        except Failure as failure:
            if not self._session or failure.code != self._refusal:
                raise
            answer = self._exchange("")  # the session has ended; the person may open another
        self._session, self._text = str(answer["session_id"]), str(answer["access_token"])
        # A third of its life is left for clocks that differ and calls that take long.
        self._renew_at_s = time.monotonic() + float(answer["expires_in"]) * 2 / 3


def _as_header(value: str) -> str:
    """A header value as MCP 2026-07-28 writes it: plain, or base64 when it could be read otherwise."""
    plain = value.isascii() and value.isprintable() and value.strip() == value and not value.startswith("=?base64?")
    return value if plain else f"=?base64?{base64.b64encode(value.encode()).decode()}?="
