"""MCP servers that are processes: one JSON-RPC message a line, over stdin and stdout.

Why not the SDK's client: it parses and serialises messages again, so the bytes that were hashed would not be the bytes sent.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.ports import Clock
from interlock.tools import messages
from interlock.tools.attempt import Attempt
from interlock.tools.beside import Beside
from interlock.tools.credential import Credential
from interlock.tools.errors import CallFailedError
from interlock.tools.limits import ToolLimits
from interlock.tools.listening import LISTEN, Hear, listened, wanted
from interlock.tools.listings import everything
from interlock.tools.messages import STATELESS, Message
from interlock.tools.port import Line, PauseGuard, ToolAnswer
from interlock.tools.skim import Skim

_LOG: Final = logging.getLogger(__name__)
_CHUNK_BYTES: Final = 64 * 1024
_STDERR_WINDOW_S: Final = 60.0
# What a program needs to start at all. No HOME: a tool has no business in somebody's dot files.
_INHERITED: Final = ("PATH", "SYSTEMROOT") if sys.platform == "win32" else ("PATH",)


class StdioUpstream:
    """One process for one connection key: started on first use, and again by the next call after it has died."""

    def __init__(
        self,
        *,
        command: tuple[str, ...],
        credential: Credential,
        pin: str,
        limits: ToolLimits,
        clock: Clock,
        offers: frozenset[str] = frozenset(),
    ) -> None:
        self._command = command
        self._offers = offers
        self._credential = credential
        self._pin = pin
        self._limits = limits
        self._clock = clock
        self._server: _Server | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        self._closed = False

    async def call(self, attempt: Attempt) -> ToolAnswer:
        """One call of whatever kind; see `Upstream`."""
        server = await self._ready()
        invocation, kept = attempt.invocation, list[Mapping[str, object]]()
        async with server.calls:
            message = await server.ask(
                lambda request_id: messages.call(request_id, invocation, version=server.version),
                before_first_byte=attempt.first_byte,
                guard=invocation.pause_guard,
                line=invocation.line,
                logs=kept,
            )
        answer = messages.read_answer(message, invocation.kind, self._limits)
        return msgspec.structs.replace(answer, logs=tuple(kept)) if kept else answer

    async def list_tools(self, kinds: frozenset[Kind]) -> tuple[ListedTool, ...]:
        """All pages; see `Upstream`."""
        server = await self._ready()
        return await everything(server.request, kinds, server.declared, self._limits)

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> None:
        """Hear what changes for as long as the process runs; see `Upstream`."""
        await (await self._ready()).listen(uris, hear)

    async def aclose(self) -> None:
        """Stop the process and all it started; see `Upstream`."""
        self._closed = True
        if self._server is not None:
            await self._server.stop("the connector was closed during the call")
        # Whoever was starting one has been stopped by that, or finds us closed; then nothing is left running.
        async with self._starting:
            if self._server is not None:
                await self._server.stop("the connector was closed")

    async def _ready(self) -> _Server:
        if self._server is not None and self._server.is_ready and not self._closed:
            return self._server
        async with self._starting:
            if self._closed:
                raise CallFailedError("cancelled", "the connector was closed")
            if self._server is not None and self._server.is_ready:
                return self._server
            if self._server is not None:
                await self._server.stop("the process was replaced")
            return await self._start()

    async def _start(self) -> _Server:
        """Start and negotiate. A server of the old kind may die of the first question of the new: then once more without."""
        attempts = (False,) if self._pin in messages.ACCEPTED_HANDSHAKES else (True, False)
        failure: CallFailedError | None = None
        for discover in attempts:
            if self._closed:
                raise CallFailedError("cancelled", "the connector was closed")
            self._server = server = await _Server.spawn(
                self._command,
                environment=self._environment(),
                credential=self._credential,
                limits=self._limits,
                clock=self._clock,
            )
            try:
                async with asyncio.timeout(self._limits.negotiate_timeout_ms / 1000):
                    await server.negotiate(discover=discover, pin=self._pin, offers=self._offers)
            except TimeoutError:
                failure = CallFailedError("unreachable", "the process did not answer the negotiation in time")
            except CallFailedError as error:
                failure = error
            except BaseException:
                await server.stop("nobody waits for the process any more")
                raise
            else:
                return server
            survived = server.is_alive
            await server.stop("the negotiation failed")
            if survived:
                break
        raise failure or CallFailedError("unreachable", "the process did not start")

    def _environment(self) -> dict[str, str]:
        found = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        secret = self._credential.value()
        if secret:
            found[self._credential.variable] = secret.decode("ascii")
        return found


class _Server:
    """A running process and the requests it has not answered."""

    def __init__(
        self, process: asyncio.subprocess.Process, *, credential: Credential, limits: ToolLimits, clock: Clock
    ) -> None:
        self._process = process
        self._credential = credential
        self._limits = limits
        self._clock = clock
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._beside: dict[int, Beside] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._end: CallFailedError | None = None
        self._ended = asyncio.Event()
        self._hearing: dict[object, Hear] = {}
        loop = asyncio.get_running_loop()
        self._readers = (loop.create_task(self._read_stdout()), loop.create_task(self._read_stderr()))
        self.calls = asyncio.Semaphore(limits.process_calls_max)
        self.version = ""
        self.declared: frozenset[str] = frozenset()
        self._agreed = False
        self._line = bytearray()
        self._line_bytes = 0
        self._skim: Skim | None = None

    @classmethod
    async def spawn(
        cls,
        command: tuple[str, ...],
        *,
        environment: Mapping[str, str],
        credential: Credential,
        limits: ToolLimits,
        clock: Clock,
    ) -> _Server:
        """Start `command` in a process group of its own, with nothing of our environment but `environment`."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise CallFailedError("unreachable", f"{command[0]!r} cannot be started: {error}") from None
        return cls(process, credential=credential, limits=limits, clock=clock)

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked something."""
        return self._end is None and self._process.returncode is None

    @property
    def is_ready(self) -> bool:
        """Whether it is alive and a revision was agreed on."""
        return self._agreed and self.is_alive

    async def negotiate(self, *, discover: bool, pin: str, offers: frozenset[str]) -> None:
        """Settle on a revision: 2026-07-28 where the server knows it, else the handshake."""
        if discover:
            self.version = STATELESS
            reply = await self.request("server/discover", {})
            if messages.discovered_stateless(reply):
                self._agreed, self.declared = True, messages.declared(reply)
                return
            self.version = ""
        if pin == STATELESS:
            raise CallFailedError("protocol", f"the server does not speak {STATELESS}, which this tool is pinned to")
        reply = await self.ask(lambda request_id: messages.initialize(request_id, offers))
        self.version, self.declared = messages.agreed_version(reply), messages.declared(reply)
        self._write(messages.notification("notifications/initialized"))
        self._agreed = True

    async def request(self, method: str, params: Mapping[str, Any]) -> Message:
        """Any request but a call."""
        return await self.ask(lambda request_id: messages.request(request_id, method, params, version=self.version))

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> None:
        """Hear what changes. Raises `CallFailedError`: `refused` when the server tells nobody, else the process has ended."""
        key = object()
        self._hearing[key] = hear
        try:
            if self.version == STATELESS:
                code, text = messages.error_of(await self.request(LISTEN, wanted(uris)))
                if code:
                    raise CallFailedError("refused", f"the server tells no changes ({code}): {text[:200]}")
                return
            for uri in uris:
                await self.request("resources/subscribe", {"uri": uri})
            await self._ended.wait()
            raise self._end or CallFailedError("unreachable", "the process has ended")
        finally:
            del self._hearing[key]

    async def ask(
        self,
        body: Callable[[int], bytes],
        *,
        before_first_byte: Callable[[], None] = lambda: None,
        guard: PauseGuard | None = None,
        line: Line | None = None,
        logs: list[Mapping[str, object]] | None = None,
    ) -> Message:
        """Write one request and wait for its reply. A cancelled wait tells the server so."""
        request_id = next(self._ids)
        written = body(request_id)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._check_writable()
        if guard is not None:
            guard.arm()
        try:
            before_first_byte()
            self._waiting[request_id] = reply
            if line is not None:
                self._beside[request_id] = Beside(line, request_id, self._limits)
            self._write(written)
        finally:
            if guard is not None:
                # Loops may keep what is written until their turn is over.
                asyncio.get_running_loop().call_soon(guard.disarm)
        try:
            return await reply
        except asyncio.CancelledError:
            if self.is_alive:
                self._write(messages.notification("notifications/cancelled", {"requestId": request_id}))
            raise
        finally:
            self._waiting.pop(request_id, None)
            beside = self._beside.pop(request_id, None)
            if beside is not None and logs is not None:
                logs += beside.logs

    async def stop(self, reason: str) -> None:
        """Close its stdin, then SIGTERM, then SIGKILL to the whole group; what waits ends as `cancelled`."""
        self._fail(CallFailedError("cancelled", reason))
        process, step_s = self._process, self._limits.close_timeout_ms / 1000
        if process.stdin is not None:
            process.stdin.close()
        try:
            if not await _exits(process, step_s):
                self._signal(signal.SIGTERM)
                await _exits(process, step_s)
        finally:
            # Also when the leader went by itself: what it started must not outlive it.
            self._signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
            for task in (*self._readers, *self._asking):
                task.cancel()
            await asyncio.gather(*self._readers, *self._asking, return_exceptions=True)
            await _exits(process, step_s)
            _close_transport(process)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)

    def _check_writable(self) -> None:
        stdin = self._process.stdin
        if not self.is_alive or stdin is None or stdin.is_closing():
            raise CallFailedError("unreachable", "the process has ended")
        if stdin.transport.get_write_buffer_size() > self._limits.process_unread_max_bytes:
            raise CallFailedError("unreachable", "the process does not read its input")

    def _write(self, line: bytes) -> None:
        # Canonical JSON holds no raw line break, so one message is one line whatever its strings say.
        if self._process.stdin is not None:
            self._process.stdin.write(line + b"\n")

    def _fail(self, error: CallFailedError) -> None:
        self._end = self._end or error
        self._ended.set()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(CallFailedError(error.code, error.detail))

    async def _read_stdout(self) -> None:
        stdout = self._process.stdout
        try:
            while stdout is not None and (chunk := await stdout.read(_CHUNK_BYTES)):
                *ends, last = chunk.split(b"\n")
                for end in ends:
                    self._read(end)
                    self._line_ended()
                self._read(last)
            self._fail(CallFailedError("unreachable", "the process ended before it answered"))
        except CallFailedError as error:
            self._fail(error)
            self._signal(signal.SIGTERM)
        except Exception as error:  # noqa: BLE001  # INVARIANT: where nobody reads any more, nobody waits
            _LOG.exception("what a process said could not be read", extra={"event": "tool.not_read"})
            self._fail(CallFailedError("protocol", f"what the process said could not be read ({type(error).__name__})"))
            self._signal(signal.SIGTERM)

    def _read(self, part: bytes) -> None:
        """Part of a line. One that is too long to keep is only asked what kind of answer it is."""
        self._line_bytes += len(part)
        if self._skim is None and self._line_bytes > self._limits.response_max_bytes:
            self._skim = Skim()
            self._skim.feed(bytes(self._line))
            self._line.clear()
        if self._line_bytes > self._limits.skimmed_max_bytes:
            raise CallFailedError("too_large", f"a line longer than {self._limits.skimmed_max_bytes} bytes")
        if self._skim is None:
            self._line += part
        else:
            self._skim.feed(part)

    def _line_ended(self) -> None:
        line, skim, size = bytes(self._line), self._skim, self._line_bytes
        self._line.clear()
        self._skim, self._line_bytes = None, 0
        if skim is None:
            self._take(line)
            return
        told = skim.told()
        if told is None:
            raise CallFailedError("too_large", f"a line of {size} bytes, which is no whole message")
        reply = self._waiting.get(told.id) if isinstance(told.id, int) and told.is_reply else None
        if reply is not None and not reply.done():
            reply.set_exception(told.failure(size))

    def _take(self, line: bytes) -> None:
        """One message of the server. INVARIANT: beside replies, only what surely belongs to one call goes further than here."""
        if not line.lstrip().startswith(b"{"):
            # A stray print() of the server; it answers nothing, so it harms nobody.
            return
        line = self._credential.scrub(line)
        message = messages.read(line)
        if message.is_request:
            self._requested(message)
        elif message.is_reply:
            self._settle(message.id, line)
        elif message.method == "notifications/progress":
            beside = self._beside.get(_token(message))
            if beside is not None:
                beside.notified(message)
        else:
            for hear in list(self._hearing.values()):
                listened(message, hear)
            if (only := self._only_call()) is not None:
                only.notified(message)

    def _only_call(self) -> Beside | None:
        """The call under way when there is but one: of what names no call it cannot be told otherwise whose it is."""
        return next(iter(self._beside.values())) if len(self._beside) == 1 else None

    def _requested(self, message: Message) -> None:
        self._check_writable()
        only = self._only_call()
        if only is None or self.version == STATELESS or not only.goes_on(message):
            self._write(messages.refusal(message))
            return
        only.check_request()
        task = asyncio.get_running_loop().create_task(self._answered(only, message))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answered(self, beside: Beside, message: Message) -> None:
        try:
            body = await beside.answer(message)
        except CallFailedError as error:
            body = messages.declined(message, error.detail)
        except Exception as error:  # noqa: BLE001  # whatever breaks here, the server is told no
            _LOG.error("what a server asked could not be answered", exc_info=error, extra={"event": "tool.not_answered"})
            body = messages.declined(message, "it could not be put to the caller")
        if self.is_alive:
            self._write(body)

    def _settle(self, reply_id: object, line: bytes) -> None:
        # Nobody waits for a reply that comes after its caller has given up.
        reply = self._waiting.get(reply_id) if isinstance(reply_id, int) else None
        if reply is None or reply.done() or not isinstance(reply_id, int):
            return
        try:
            reply.set_result(messages.read_reply(line, reply_id))
        except CallFailedError as error:
            reply.set_exception(error)

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        budget, since = self._limits.stderr_max_bytes_per_minute, self._clock.monotonic_s()
        while stderr is not None and (chunk := await stderr.read(_CHUNK_BYTES)):
            now = self._clock.monotonic_s()
            if now - since >= _STDERR_WINDOW_S:
                budget, since = self._limits.stderr_max_bytes_per_minute, now
            text = self._credential.scrub(chunk)[: max(budget, 0)].decode("utf-8", "backslashreplace").rstrip()
            budget -= len(chunk)
            if text:
                _LOG.debug("process %d says: %s", self._process.pid, text, extra={"event": "tool.says"})


def _token(message: Message) -> int:
    token = messages.params_of(message).get("progressToken")
    return token if isinstance(token, int) else -1


async def _exits(process: asyncio.subprocess.Process, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _close_transport(process: asyncio.subprocess.Process) -> None:
    # Nothing public closes the pipes that a survivor may still hold open; without this they warn at collection.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001
    transport.close()
