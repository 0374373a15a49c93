"""HTTP/1.1 connections to one origin: opened, kept, checked before use, never reused after anything odd."""

from __future__ import annotations

import asyncio
import os
import select
import ssl
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from interlock.tools.errors import CallFailedError
from interlock.tools.http.exchange import Exchange, HttpResponse, OnEvent
from interlock.tools.limits import ToolLimits
from interlock.tools.port import PauseGuard

BeforeFirstByte = Callable[[], None]


class Connection(asyncio.Protocol):
    """One connection, one request at a time. Made and kept by `Pool` only."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._drain: asyncio.TimerHandle | None = None
        self._fd = -1
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and past TLS."""
        self._transport = cast("asyncio.Transport", transport)
        self._fd = transport.get_extra_info("socket").fileno()

    def is_usable(self) -> bool:
        """Whether an idle connection is still good: a peer that closed or spoke unasked shows as readable."""
        return self._transport is not None and not self._transport.is_closing() and not _is_readable(self._fd)

    def send(
        self, data: bytes, exchange: Exchange, before_first_byte: BeforeFirstByte, guard: PauseGuard | None = None
    ) -> None:
        """Write a whole request. INVARIANT: nothing runs between `before_first_byte` and the write.

        Whatever `before_first_byte` raises is passed on, and then nothing was written. Without TLS the kernel has the first
        bytes when this returns; with TLS when the event loop's turn is over, and `guard` holds as long.
        """
        transport = self._transport
        if transport is None:
            raise CallFailedError("unreachable", "the connection was closed")
        exchange.parser = self._parser = httptools.HttpResponseParser(exchange)
        directly = self._pool.is_plain and transport.get_write_buffer_size() == 0
        if guard is not None:
            guard.arm()
        try:
            before_first_byte()
            self._exchange = exchange
            # Loops may keep what is written to a transport until their turn is over; the kernel does not.
            written = _write(self._fd, data) if directly else 0
            if written < len(data):
                transport.write(data[written:])
        finally:
            if guard is not None and directly:
                guard.disarm()
            elif guard is not None:
                self._loop.call_soon(guard.disarm)

    def data_received(self, data: bytes) -> None:
        """Bytes of a response; unasked for, they end the connection."""
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None:
            self.abort()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            exchange.fail(CallFailedError("protocol", f"not HTTP: {type(error).__name__}"))
        exchange.check_head(len(data))
        if exchange.failure is not None:
            self.abort()
        elif exchange.complete:
            self._finish(exchange)
        elif exchange.answer.done() and self._drain is None:
            # The result came in a stream that has not ended yet: give it a moment, then hang up.
            self._drain = self._loop.call_later(self._pool.limits.close_timeout_ms / 1000, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """The peer or we hung up."""
        self._transport = None
        if self._exchange is not None:
            self._exchange.on_eof()
            self._release()
        self._pool.forget(self)

    def abort(self, reason: CallFailedError | None = None) -> None:
        """Close without ceremony. A request under way ends with `reason`."""
        if reason is not None and self._exchange is not None:
            self._exchange.fail(reason)
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, exchange: Exchange) -> None:
        self._release()
        if exchange.keep_alive:
            self._pool.give_back(self)
        elif self._transport is not None:
            self._transport.close()

    def _release(self) -> None:
        if self._exchange is not None:
            # The exchange holds the parser and the parser methods of the exchange.
            self._exchange.parser = None
        self._exchange, self._parser = None, None
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None


class Pool:
    """At most `limits.connections_max` connections to one origin. Belongs to one event loop."""

    def __init__(self, *, host: str, port: int, tls: ssl.SSLContext | None, limits: ToolLimits) -> None:
        self.limits = limits
        self.is_plain = tls is None and sys.platform != "win32"
        self._host, self._port, self._tls = host, port, tls
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed: CallFailedError | None = None

    async def request(
        self,
        made: Callable[[], bytes],
        *,
        before_first_byte: BeforeFirstByte,
        on_event: OnEvent,
        guard: PauseGuard | None = None,
    ) -> HttpResponse:
        """Send one request, made when there is a connection for it, and wait for its response.

        Raises `CallFailedError`, or what `before_first_byte` raised.

        A cancelled wait hangs up, which also tells the server to stop.
        """
        connection = await self._acquire()
        exchange = Exchange(limits=self.limits, on_event=on_event)
        try:
            connection.send(made(), exchange, before_first_byte, guard)
            return await exchange.answer
        except BaseException:
            connection.abort()
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose response has ended cleanly."""
        if self._closed is not None:
            connection.abort()
            return
        connection.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(connection)
        self._wake()

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def close(self) -> None:
        """Hang up on everything; requests under way and waiting end as `cancelled`."""
        self._closed = CallFailedError("cancelled", "the connector was closed")
        for connection in list(self._all):
            connection.abort(CallFailedError("cancelled", "the connector was closed during the call"))
        while self._waiters:
            self._wake()

    async def _acquire(self) -> Connection:
        loop = asyncio.get_running_loop()
        while True:
            if self._closed is not None:
                raise CallFailedError(self._closed.code, self._closed.detail)
            self._drop_expired(loop.time())
            while self._idle:
                connection = self._idle.pop()
                if connection.is_usable():
                    return connection
                connection.abort()
            if len(self._all) + self._opening < self.limits.connections_max:
                return await self._open(loop)
            await self._turn(loop)

    async def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter = loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _drop_expired(self, now_s: float) -> None:
        while self._idle and now_s - self._idle[0].idle_since_s > self.limits.connection_idle_s:
            self._idle.popleft().abort()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Connection:
        connection = Connection(self, loop)
        self._opening += 1
        opened = False
        try:
            async with asyncio.timeout(self.limits.connect_timeout_ms / 1000):
                await loop.create_connection(
                    lambda: connection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
            opened = True
        except TimeoutError:
            raise CallFailedError("unreachable", f"no connection within {self.limits.connect_timeout_ms} ms") from None
        except ssl.SSLCertVerificationError as error:
            raise CallFailedError("unreachable", f"TLS: {error.verify_message}") from None
        except (OSError, UnicodeError) as error:
            raise CallFailedError("unreachable", f"no connection: {error}") from None
        finally:
            self._opening -= 1
            if opened:
                self._all.add(connection)
            else:
                connection.abort()
                self._wake()
        if self._closed is not None:
            connection.abort()
            raise CallFailedError(self._closed.code, self._closed.detail)
        return connection


def _write(fd: int, data: bytes) -> int:
    """Give the kernel what it takes at once. Raises `CallFailedError` when that is nothing: then nothing has left."""
    try:
        return os.write(fd, data)
    except OSError as error:
        raise CallFailedError("unreachable", f"the connection cannot be written to: {type(error).__name__}") from None


def _is_readable(fd: int) -> bool:
    if fd < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([fd], [], [], 0)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLERR | select.POLLHUP)
    return bool(poll.poll(0))
