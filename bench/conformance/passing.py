"""A pass-through that adds a token, for a client that cannot send one. It streams: nothing waits in it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

HOST: Final = "127.0.0.1"
MAX_HEAD_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 64 * 1024


class PassThrough:
    """Listens on a free port, and sends each request on to `port` with the bearer token, `/mcp` as `path`."""

    def __init__(self, *, port: int, path: str, token: str) -> None:
        self._port = port
        self._path = path.encode()
        self._token = token.encode()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        """The port it listens on."""
        self._server = await asyncio.start_server(self._begin, HOST, 0, limit=MAX_HEAD_BYTES)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None  # entered before
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            there, back = await asyncio.open_connection(HOST, self._port)
            back.write(self._changed(head))
            up = asyncio.ensure_future(_pipe(reader, back))
            try:
                await _pipe(there, writer)
            finally:
                up.cancel()
                back.close()
        writer.close()

    def _changed(self, head: bytes) -> bytes:
        first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
        method, _, version = first.split(b" ", 2)
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        added = [b"Authorization: Bearer " + self._token, b"Connection: close"]
        return b"\r\n".join([b" ".join((method, self._path, version)), *kept, *added]) + b"\r\n\r\n"


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
