"""`interlock up`: serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import uvicorn
from cyclopts import Parameter

from interlock.app.system import ReleaseInForceError, Settings, System, keep_what_is_loaded, running
from interlock.cli.common import DEFAULT_STATE, Environment, Json, State, read_variables
from interlock.cli.output import OK, UNREACHABLE, USAGE, Failure, print_json
from interlock.identity.errors import IdentityError
from interlock.release.errors import ReleaseError
from interlock.release.load import read_files
from interlock.server.http import BoundedHttp
from interlock.server.router import LOCAL_HOSTS, Router
from interlock.store.embedded import server as embedded
from interlock.store.errors import StoreError
from interlock.store.migrate import is_current, migrate

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75


def up(
    *,
    release: Annotated[Path | None, Parameter(help="Release folder to put in force; the stored one when not given.")] = None,
    environment: Environment = "prod",
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(help="0 takes a free one.", env_var="INTERLOCK_PORT")] = 8080,
    variables: Annotated[Path | None, Parameter(help="File of NAME=value lines for ${NAME} in tool sources.")] = None,
    state: State = DEFAULT_STATE,
    database_url: Annotated[str, Parameter(help="A Postgres of your own.", env_var="INTERLOCK_DATABASE_URL")] = "",
    allow_host: Annotated[list[str] | None, Parameter(help="Another name clients may call this server by.")] = None,
    public_url: Annotated[str, Parameter(help="How clients reach this server, when a proxy stands in front.")] = "",
    directory: Annotated[
        Path | None, Parameter(help="People and agents of the built-in issuer; read again when it changes.")
    ] = None,
    dev_issuer: Annotated[bool, Parameter(help="Trust the built-in development issuer.")] = True,
    mark: Annotated[
        Path | None, Parameter(help="Folder of marks, by which a restored database is noticed; best on another disk.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Serve the gate: MCP at /mcp, token exchange at /oauth/token, controls at /v1/controls."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        if directory is not None:
            from interlock.identity.dev_issuer import load_directory  # noqa: PLC0415  # to find mistakes early

            load_directory(directory)
        files = None if release is None else read_files(release)
        with _database(state, database_url) as url, _listening(host, port) as listening:
            settings = Settings(
                state=state,
                database_url=url,
                environment=environment,
                variables=read_variables(variables),
                release_files=files,
                trust_dev_issuer=dev_issuer,
                directory=directory,
                public_url=public_url,
                mark=mark,
            )
            hosts = LOCAL_HOSTS | {host} | set(allow_host or ())
            with asyncio.Runner(loop_factory=_loop) as runner:
                runner.run(_serve(settings, listening, hosts, as_json=as_json))
    except ReleaseError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise Failure(f"the release has problems:\n{listed}", details=list(error.problems)) from error
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE) from error
    except (IdentityError, ReleaseInForceError) as error:
        raise Failure(str(error), code=USAGE) from error
    return OK


async def _serve(settings: Settings, listening: socket.socket, hosts: frozenset[str], *, as_json: bool) -> None:
    async with running(settings) as system:
        keep_what_is_loaded()
        router = Router(
            gate=system.gate, session_of=system.plane.session, plane=system.plane, allowed_hosts=hosts, doors=system.plane.doors
        )
        config = uvicorn.Config(
            router,
            http=BoundedHttp,
            access_log=False,
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=30,
            backlog=BACKLOG,
        )
        await _Server(config, system, listening, as_json=as_json).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Says that it is ready when it is."""

    def __init__(self, config: uvicorn.Config, system: System, listening: socket.socket, *, as_json: bool) -> None:
        super().__init__(config)
        self._system = system
        self._listening = listening
        self._as_json = as_json

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave on SIGTERM and SIGINT, and come back from `serve`, so that what is under way is settled afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listening.getsockname()[:2]
        ready = await self._system.plane.ready()
        base = f"http://{host}:{port}"
        if self._as_json:
            print_json({"url": base, "mcp": f"{base}/mcp", "release": ready.release, "process": self._system.process_id})
        else:
            print(f"Interlock serves {base}/mcp for {self._system.settings.environment}", flush=True)
            print(f"release {ready.name} {ready.release}", flush=True)
            print(f"the page: {base}/  (Ctrl-C ends it)", flush=True)


@contextlib.contextmanager
def _database(state: Path, database_url: str) -> Iterator[str]:
    """The URL to use as the app; the embedded server is held as long as we run."""
    if database_url:
        asyncio.run(_refuse_unless_current(database_url))
        yield database_url
        return
    lease = embedded.acquire(state)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        yield lease.running.app_url
    finally:
        lease.release()


async def _refuse_unless_current(url: str) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        raise Failure(f"cannot connect to the database: {error}", hint="check --database-url", code=UNREACHABLE) from error
    try:
        if not await is_current(connection):
            hint = "run `interlock db migrate OWNER_URL` first"
            raise Failure("the database's schema is not this version's", hint=hint)
    finally:
        await connection.close()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listening.bind((host, port))
        except OSError as error:
            raise Failure(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint=f"choose another: --port {port + 1} here, and --server http://{host}:{port + 1} for the other commands",
                code=USAGE,
            ) from error
        yield listening
    finally:
        listening.close()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
