"""`interlock up`: serve."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NoReturn

import asyncpg
import uvicorn
from cyclopts import Parameter, validators

from interlock.app.leaving import LEAVE_WITHIN_S, LeaveRules
from interlock.app.marking import KEEP_DAYS
from interlock.app.memory import give_back_what_is_free, keep_what_is_loaded
from interlock.app.system import ReleaseInForceError, Settings, running
from interlock.cli.access import IN_THE_URL, Secret
from interlock.cli.common import DEFAULT_STATE, Environment, Json, State, read_variables
from interlock.cli.output import NO, OK, UNREACHABLE, USAGE, Failure, print_json
from interlock.cli.telling import METRICS_HELP, Told, collector, logs, metrics_listener, telling
from interlock.identity.errors import IdentityError
from interlock.release.errors import ReleaseError
from interlock.release.load import read_files
from interlock.server.http import BoundedHttp
from interlock.server.router import LOCAL_HOSTS, Router
from interlock.server.serving import PoliteServer
from interlock.store.embedded import server as embedded
from interlock.store.errors import StoreError
from interlock.store.migrate import migrate, why_not
from interlock.store.passwords import Password
from interlock.store.pooler import refuse_transaction_pooler

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75
# Beyond the time to leave, for whatever hangs in it.
LAST_RESORT_S: Final = 5.0
MAX_NAMED_CALLS: Final = 20
_NO_PLACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST})
# What a shell says of a program that SIGTERM has ended.
TERMINATED: Final = 128 + signal.SIGTERM


def up(
    *,
    release: Annotated[Path | None, Parameter(help="Release folder to put in force; the stored one when not given.")] = None,
    environment: Environment = "prod",
    host: Annotated[str, Parameter(help="The address to listen at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen at; 0 takes a free one.", env_var="INTERLOCK_PORT")] = 8080,
    variables: Annotated[Path | None, Parameter(help="File of NAME=value lines for ${NAME} in tool sources.")] = None,
    state: State = DEFAULT_STATE,
    database_url: Annotated[
        str, Parameter(help="URL of a Postgres of your own, as the app.", env_var="INTERLOCK_DATABASE_URL")
    ] = "",
    allow_host: Annotated[list[str] | None, Parameter(help="Another name clients may call this server by.")] = None,
    public_url: Annotated[str, Parameter(help="How clients reach this server, when a proxy stands in front.")] = "",
    directory: Annotated[
        Path | None, Parameter(help="People and agents of the built-in issuer; read again when it changes.")
    ] = None,
    dev_issuer: Annotated[bool, Parameter(help="Trust the built-in development issuer.")] = True,
    mark: Annotated[
        Path | None, Parameter(help="Folder of marks, by which a restored database is noticed; best on another disk.")
    ] = None,
    keep_marks_days: Annotated[
        int,
        Parameter(
            help="How many days back marks are kept: further than any backup you would restore.",
            validator=validators.Number(gte=1),
        ),
    ] = KEEP_DAYS,
    leave_within_s: Annotated[float, Parameter(help="How long it may take to leave after SIGTERM.")] = LEAVE_WITHIN_S,
    leave_notice_s: Annotated[
        float | None,
        Parameter(help="How long of it to go on serving, so that a load balancer notices; 5 when /readyz is asked, else 0."),
    ] = None,
    secret: Secret = IN_THE_URL,
    metrics: Annotated[str, Parameter(help=METRICS_HELP, env_var="INTERLOCK_METRICS")] = "",
    log_format: Annotated[str, Parameter(help="json or text; text on a terminal.", env_var="INTERLOCK_LOG_FORMAT")] = "",
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.", env_var="INTERLOCK_LOG_LEVEL")] = "info",
    log_calls: Annotated[bool, Parameter(help="Log a line for every call that has ended.")] = False,
    as_json: Json = False,
) -> int:
    """Serve the gate: MCP at /mcp, token exchange at /oauth/token, controls at /v1/controls."""
    signal.signal(signal.SIGTERM, _end_before_serving)
    give_back_what_is_free()  # before there are threads
    lines, otlp = logs(log_format, log_level), collector()
    try:
        if directory is not None:
            from interlock.identity.dev_issuer import load_directory  # noqa: PLC0415  # to find mistakes early

            load_directory(directory)
        files = None if release is None else read_files(release)
        password = secret.for_url(database_url)
        with (
            contextlib.closing(lines),
            metrics_listener(metrics) as for_metrics,
            _database(state, database_url, password) as url,
            _listening(host, port) as listening,
        ):
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
                keep_marks_days=keep_marks_days,
                leaving=LeaveRules(within_s=leave_within_s, notice_s=leave_notice_s),
                database_password=password,
            )
            hosts = LOCAL_HOSTS | {host} | set(allow_host or ())
            tell = partial(telling, lines, log_calls=log_calls, otlp=otlp, listening=for_metrics)
            with asyncio.Runner(loop_factory=_loop) as runner:
                unsettled = runner.run(_serve(settings, listening, hosts, tell, as_json=as_json))
    except ReleaseError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise Failure(f"the release has problems:\n{listed}", details=list(error.problems)) from error
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE) from error
    except (IdentityError, ReleaseInForceError) as error:
        raise Failure(str(error), code=USAGE) from error
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        place = error.filename or state
        hint = "make room there and let this user write, or give another --state or --mark folder"
        raise Failure(f"{place} cannot be written: {error.strerror}", hint=hint, code=UNREACHABLE) from error
    except asyncio.CancelledError:
        _end_before_serving()
    if unsettled:
        said = f"{len(unsettled)} calls were not settled in the time to leave: {', '.join(unsettled[:MAX_NAMED_CALLS])}"
        raise Failure(said, hint="they are in doubt; the other processes look into them: `interlock doubts list`")
    return OK


async def _serve(
    settings: Settings,
    listening: socket.socket,
    hosts: frozenset[str],
    tell: Callable[[], AbstractAsyncContextManager[Told]],
    *,
    as_json: bool,
) -> tuple[str, ...]:
    """Serve until a signal; gives the calls that were not settled when the time to leave was over."""
    told_to_end = partial(_cancel, asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end)  # until the server takes it over
    async with tell() as told, running(settings) as system:
        await told.watch(system, hosts)
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
            backlog=BACKLOG,
        )

        async def started() -> None:
            release = await system.plane.admin.release()
            host, port = listening.getsockname()[:2]
            base = f"http://{host}:{port}"
            if as_json:
                print_json({"url": base, "mcp": f"{base}/mcp", "release": release.digest, "process": system.process_id})
            else:
                print(f"Interlock serves {base}/mcp for {settings.environment}", flush=True)
                print(f"release {release.name} {release.digest}", flush=True)
                print(f"the page: {base}/  (Ctrl-C ends it)", flush=True)

        system.leaving.begun = partial(_end_at_the_latest, settings.leaving.within_s + LAST_RESORT_S)
        server = PoliteServer(config, system.leaving, answer_now=system.gate.calls.answer_now, started=started)
        await server.serve(sockets=[listening])
    return system.unsettled


def _end_before_serving(*_: object) -> NoReturn:
    """The first process of a container has no default for SIGTERM: without this it would start up, and be killed later."""
    print("told to end before it served", file=sys.stderr, flush=True)
    sys.exit(TERMINATED)


def _cancel(task: asyncio.Task[object] | None) -> None:
    if task is not None:
        task.cancel()


def _end_at_the_latest(after_s: float) -> None:
    """Whatever hangs, the process ends: an orchestrator that kills it later would not learn more."""

    def end() -> None:
        print(
            "interlock did not come to its end in time, and is ended; calls under way are in doubt", file=sys.stderr, flush=True
        )
        os._exit(NO)

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def _database(state: Path, database_url: str, password: Password | None) -> Iterator[str]:
    """The URL to use as the app; the embedded server is migrated, and held as long as we run."""
    if database_url:
        asyncio.run(_refuse_unless_usable(database_url, password))
        yield database_url
        return
    lease = embedded.acquire(state)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        yield lease.running.app_url
    finally:
        lease.release()


async def _refuse_unless_usable(url: str, password: Password | None) -> None:
    """Raises `Failure` for a database that cannot be reached, gives no sessions, or has another schema; none is changed."""
    try:
        await refuse_transaction_pooler(url, password)
        connection = await asyncpg.connect(url, password=password, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        raise Failure(f"cannot connect to the database: {error}", hint="check --database-url", code=UNREACHABLE) from error
    try:
        why = await why_not(connection)
        if why:
            hint = "migrating is a step of its own, as the owner: `interlock db migrate OWNER_URL`"
            raise Failure(f"the database's schema is not this version's: {why}", hint=hint)
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
