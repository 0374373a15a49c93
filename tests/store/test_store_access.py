"""How the database is reached: passwords that are asked for anew, and poolers that give no session of one's own."""

import asyncio
import struct
import sys
import threading
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from interlock.app.system import Settings, running
from interlock.cli.access import Secret
from interlock.cli.main import app
from interlock.cli.output import Failure
from interlock.store.backup import back_up
from interlock.store.database import open_database
from interlock.store.errors import PasswordError, PoolerError, StoreUnavailableError
from interlock.store.passwords import from_command, from_function
from interlock.store.pooler import refuse_transaction_pooler

PYTHON = sys.executable
TOKENS = []


def token():
    """Another one each time, as a managed identity's."""
    TOKENS.append(f"token-{len(TOKENS)}")
    return TOKENS[-1]


async def token_later():
    return "later"


def refuses():
    raise RuntimeError("s3cret: the identity is not there")


def nothing():
    return None


class Asking:
    """A server that asks for a password in the clear, notes it, and lets nobody in."""

    def __init__(self):
        self.given = []

    async def serve(self, reader, writer):
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(size - 4)
        writer.write(b"R" + struct.pack("!ii", 8, 3))
        kind = await reader.readexactly(1)
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        self.given.append((kind, (await reader.readexactly(size - 4)).rstrip(b"\0").decode()))
        words = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
        writer.write(b"E" + struct.pack("!i", len(words) + 4) + words)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening(serve):
    under_way, writers = set(), []

    async def noted(reader, writer):
        under_way.add(asyncio.current_task())
        writers.append(writer)
        await serve(reader, writer)

    served = await asyncio.start_server(noted, "127.0.0.1", 0)
    try:
        yield served.sockets[0].getsockname()[1]
    finally:
        served.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await gone(*writers)


async def gone(*writers):
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def test_the_password_is_asked_for_anew_for_each_connection_and_never_told():
    server = Asking()
    TOKENS.clear()
    async with listening(server.serve) as port:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError) as refused:
                await open_database(
                    f"postgresql://interlock_app@127.0.0.1:{port}/x?sslmode=disable",
                    password=from_function(f"{__name__}:token"),
                )
            assert "token-" not in str(refused.value)
    assert server.given == [(b"p", name) for name in TOKENS]
    assert len(set(TOKENS)) == len(TOKENS) >= 2


async def test_a_gateway_gives_it_for_every_connection_it_makes(database_urls, tmp_path):
    """The pool's and the lease's, which is opened by another thread."""
    asked = []

    async def counted():
        asked.append(threading.get_ident())
        return "unused"

    settings = Settings(
        state=tmp_path, database_url=database_urls.app, environment="test", release_files=None, database_password=counted
    )
    async with running(settings):
        assert len(set(asked)) >= 2


async def test_a_command_gives_the_password_that_it_prints():
    assert await from_command(f"{PYTHON} -c \"print('a token')\"")() == "a token"
    assert await from_function(f"{__name__}:token_later")() == "later"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{PYTHON} -c \"import sys; print('s3cret'); sys.exit('s3cret')\"", "ended with 1"),
        (f"{PYTHON} -c pass", "one line is expected"),
        (f"{PYTHON} -c \"print('s3cret'); print('s3cret')\"", "one line is expected"),
        (f"{PYTHON} -c \"import sys; sys.stdout.buffer.write(b'\\\\xff s3cret')\"", "no text"),
        ("/nowhere/s3cret-tool", "cannot be run"),
    ],
)
async def test_a_command_that_gives_none_is_told_of_without_what_it_printed(line, says):
    with pytest.raises(PasswordError, match=says) as error:
        await from_command(line)()
    assert "s3cret" not in str(error.value).replace("/nowhere/s3cret-tool", "")
    assert error.value.__cause__ is None


@pytest.mark.parametrize("name", ["refuses", "nothing"])
async def test_a_function_that_gives_none_is_told_of_without_its_words(name):
    with pytest.raises(PasswordError) as error:
        await from_function(f"{__name__}:{name}")()
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("wrong", ["no_such_module:token", f"{__name__}:no_such_function", "", "x:"])
def test_a_function_that_is_not_there_is_a_mistake_at_the_start(wrong):
    with pytest.raises(PasswordError, match="module:function"):
        from_function(wrong)


def test_two_sources_of_a_password_are_a_mistake():
    for secret, url in (
        (Secret(command="true", function="a:b"), "postgresql://a@h/x"),
        (Secret(command="true"), "postgresql://a:pw@h/x"),
        (Secret(command="'"), "postgresql://a@h/x"),
    ):
        with pytest.raises(Failure):
            secret.for_url(url)
    assert Secret().for_url("postgresql://a:pw@h/x") is None


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (("audit", "verify"), "AUDITOR"),
        (("audit", "checkpoint"), "DATABASE"),
        (("db", "backup", "FOLDER"), "OWNER"),
        (("db", "restore", "FOLDER"), "OWNER"),
        (("db", "reconcile"), "DATABASE"),
        (("db", "migrate"), "OWNER"),
    ],
)
async def test_every_command_that_opens_a_database_asks_for_the_password_and_says_no_without_it(
    words, role, database_urls, tmp_path, monkeypatch
):
    """Each in the way that its help tells: a URL by a variable, a command by an option."""
    await back_up(database_urls.owner, tmp_path / "made", lambda _table, _rows: None)
    folder = tmp_path / ("made" if "restore" in words else "fresh")
    server = Asking()
    async with listening(server.serve) as port:
        monkeypatch.setenv(f"INTERLOCK_{role}_URL", f"postgresql://somebody@127.0.0.1:{port}/x?sslmode=disable")
        monkeypatch.setenv("INTERLOCK_STATE", str(tmp_path / "state"))
        line = [str(folder) if word == "FOLDER" else word for word in words]
        line += ["--database-password-command", f"{PYTHON} -c \"print('s3cret')\""]
        with pytest.raises(Failure) as refused:
            await asyncio.to_thread(app, line, exit_on_error=False, result_action="return_value")
    assert {given for _, given in server.given} == {"s3cret"}
    assert "password authentication failed" in str(refused.value)
    assert "s3cret" not in str(refused.value) + refused.value.hint


class Pooler:
    """A pooler in transaction mode: a client's next transaction goes to whichever server session has waited longest, or least.

    It speaks as much of the protocol as it has to: start-up, and where a transaction ends.
    """

    def __init__(self, path, *, newest_first):
        self._path, self._newest_first = path, newest_first
        self._idle = []
        self._opened = []

    async def serve(self, reader, writer):
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        start = struct.pack("!i", size) + await reader.readexactly(size - 4)
        opened, greeting = await self._open(start)
        writer.write(greeting)
        self._idle.append(opened)
        try:
            while True:
                kind = await reader.readexactly(1)
                server = self._idle.pop(-1 if self._newest_first else 0) if self._idle else (await self._open(start))[0]
                try:
                    await self._transaction(kind, reader, writer, *server)
                finally:
                    self._idle.append(server)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _transaction(self, kind, reader, writer, server_reader, server_writer):
        ends = asyncio.Queue()
        telling = asyncio.create_task(told_on(server_reader, writer, ends))
        try:
            while True:
                (size,) = struct.unpack("!i", await reader.readexactly(4))
                if kind == b"X":
                    raise asyncio.IncompleteReadError(b"", 1)
                server_writer.write(kind + struct.pack("!i", size) + await reader.readexactly(size - 4))
                if kind in {b"Q", b"S"} and await ends.get() == b"I":
                    return
                kind = await reader.readexactly(1)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _open(self, start):
        server_reader, server_writer = await asyncio.open_unix_connection(self._path)
        server_writer.write(start)
        self._opened.append(server_writer)
        greeting, _ = await until_ready(server_reader)
        return (server_reader, server_writer), greeting

    async def close(self):
        await gone(*self._opened)


async def told_on(server_reader, writer, ends):
    """What the server says goes to the client; how each of its turns ends, into a queue."""
    while True:
        head = await server_reader.readexactly(5)
        body = await server_reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
        writer.write(head + body)
        if head[:1] == b"Z":
            ends.put_nowait(body)


async def until_ready(server_reader):
    said = b""
    while True:
        head = await server_reader.readexactly(5)
        (size,) = struct.unpack("!i", head[1:])
        body = await server_reader.readexactly(size - 4)
        said += head + body
        if head[:1] == b"Z":
            return said, body


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_pooler_that_hands_each_transaction_to_another_session_is_refused(database_urls, newest_first):
    asked = urlsplit(database_urls.app)
    pooler = Pooler(f"{parse_qs(asked.query)['host'][0]}/.s.PGSQL.5432", newest_first=newest_first)
    async with listening(pooler.serve) as port:
        url = f"postgresql://{asked.username}@127.0.0.1:{port}{asked.path}?sslmode=disable"
        try:
            with pytest.raises(PoolerError, match="pool_mode = session"):
                await refuse_transaction_pooler(url)
        finally:
            await pooler.close()


async def test_postgres_itself_and_a_pooler_by_session_are_not(database_urls):
    await refuse_transaction_pooler(database_urls.app)
    host, opened = parse_qs(urlsplit(database_urls.app).query)["host"][0], []

    async def by_session(reader, writer):
        server_reader, server_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.5432")
        opened.append(server_writer)
        await asyncio.gather(poured(reader, server_writer), poured(server_reader, writer))

    async with listening(by_session) as port:
        asked = urlsplit(database_urls.app)
        await refuse_transaction_pooler(f"postgresql://{asked.username}@127.0.0.1:{port}{asked.path}?sslmode=disable")
    await gone(*opened)


async def poured(reader, writer):
    while chunk := await reader.read(65_536):
        writer.write(chunk)
    writer.close()


async def test_where_the_database_is_away_that_is_what_is_told():
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await refuse_transaction_pooler("postgresql://a@127.0.0.1:1/x")
