"""What `interlock up` tells operators while it serves: log lines, `/metrics`, and what goes to a collector."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn

from interlock.app.system import System
from interlock.cli.output import USAGE, Failure
from interlock.core.ports import Clock
from interlock.server.http import BoundedHttp
from interlock.server.metrics import PATH, MetricsApp
from interlock.telemetry.figures import Figures
from interlock.telemetry.logs import FORMATS, LEVELS, LogLines, start_logs
from interlock.telemetry.settings import Otlp, TelemetrySettingError, otlp_settings

if TYPE_CHECKING:
    from interlock.telemetry.sender import Sender

_log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
MAX_SCRAPES_AT_ONCE: Final = 16
# However many ask, figures are gathered and written once in this time: thousands of series take a while to write.
SCRAPE_EVERY_S: Final = 1.0
MAX_PORT: Final = 65_535
METRICS_HELP: Final = "Serve /metrics there: a port of this machine, or HOST:PORT. Nobody is asked for a token."


class Told(Protocol):
    """What `telling` gives."""

    async def watch(self, system: System, hosts: frozenset[str]) -> None:
        """Tell of this process from now on."""
        ...


def logs(style: str, level: str) -> LogLines:
    """Begin to write log lines on standard error. Raises `Failure` for a format or level that is none."""
    style = style or ("text" if sys.stderr.isatty() else "json")
    if style not in FORMATS:
        raise Failure(f"--log-format is {' or '.join(FORMATS)}", code=USAGE)
    if level.lower() not in LEVELS:
        raise Failure(f"--log-level is one of {', '.join(LEVELS)}", code=USAGE)
    return start_logs(style, level)


def collector(variables: Mapping[str, str] = os.environ) -> Otlp | None:
    """What OpenTelemetry's variables ask for. Raises `Failure` when they cannot be followed."""
    try:
        return otlp_settings(variables)
    except TelemetrySettingError as error:
        raise Failure(str(error), code=USAGE) from error


@contextlib.contextmanager
def metrics_listener(where: str) -> Iterator[socket.socket | None]:
    """A socket that listens where `--metrics` says, or None when it says nothing. Raises `Failure`."""
    if not where:
        yield None
        return
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    if not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise Failure("--metrics takes a port, or HOST:PORT", code=USAGE)
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listening.bind((host, int(port)))
        except OSError as error:
            raise Failure(f"cannot listen on {where} for metrics: {error.strerror}", code=USAGE) from error
        yield listening
    finally:
        listening.close()


@contextlib.asynccontextmanager
async def telling(
    lines: LogLines, *, log_calls: bool, otlp: Otlp | None, listening: socket.socket | None
) -> AsyncIterator[Told]:
    """Around the whole life of a process, so that what happens while it leaves is told too."""
    told = _Telling(lines, log_calls=log_calls, otlp=otlp, listening=listening)
    try:
        yield told
    finally:
        await told.close()


class _Telling:
    def __init__(self, lines: LogLines, *, log_calls: bool, otlp: Otlp | None, listening: socket.socket | None) -> None:
        self._lines = lines
        self._log_calls = log_calls
        self._otlp = otlp
        self._listening = listening
        self._sender: Sender | None = None
        self._server: uvicorn.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def watch(self, system: System, hosts: frozenset[str]) -> None:
        system.telemetry.lines = self._lines
        system.telemetry.logs_calls = self._log_calls
        if self._otlp is not None:
            self._sender = await asyncio.to_thread(_sender, self._otlp, system.process_id)
            system.telemetry.spans = self._sender if self._otlp.spans else None
            if self._sender is not None and self._otlp.metrics:
                self._start(_send_figures(system, self._sender, self._otlp.metric_pause_s), "send-metrics")
        if self._listening is not None:
            self._server = _metrics_server(system, hosts)
            self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]), name="metrics")
            host, port = self._listening.getsockname()[:2]
            url = f"http://{host}:{port}{PATH}"
            _log.info("metrics at %s", url, extra={"event": "metrics.served", "url": url})

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._sender is not None:
            await asyncio.to_thread(self._sender.close)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def _sender(otlp: Otlp, process_id: str) -> Sender | None:
    """The sender, in a thread because its libraries take half a second to load. A process serves without it all the same."""
    try:
        from interlock.telemetry.sender import Sender  # noqa: PLC0415  # heavy, and an extra

        return Sender(otlp, process_id=process_id, entropy=os.urandom, variables=os.environ)
    except ImportError:
        _log.error(  # the message says it all
            "a collector is named, and OpenTelemetry is not installed: pip install 'interlock[otel]'",
            extra={"event": "telemetry.missing"},
        )
    except Exception:  # noqa: BLE001  # whatever it is, it costs the telemetry and nothing else
        _log.exception("nothing is sent to the collector", extra={"event": "telemetry.refused"})
    return None


async def _send_figures(system: System, sender: Sender, pause_s: float) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            sender.send(await system.figures.now())
        except Exception:  # noqa: BLE001  # same
            _log.exception("the figures could not be gathered", extra={"event": "chore.failed", "chore": "send-metrics"})


class Scraped:
    """What scrapers get: gathered on the loop, which takes microseconds, and written by a thread, which takes longer."""

    def __init__(self, gather: Callable[[], Awaitable[Figures]], write: Callable[[Figures], bytes], clock: Clock) -> None:
        self._gather = gather
        self._write = write
        self._clock = clock
        self._one = asyncio.Lock()
        self._text = b""
        self._until_s = float("-inf")

    async def text(self) -> bytes:
        """The same for all who ask at about the same time."""
        async with self._one:
            if self._clock.monotonic_s() >= self._until_s:
                self._text = await asyncio.to_thread(self._write, await self._gather())
                self._until_s = self._clock.monotonic_s() + SCRAPE_EVERY_S
            return self._text


def _metrics_server(system: System, hosts: frozenset[str]) -> uvicorn.Server:
    from interlock.telemetry.exposition import CONTENT_TYPE, Exposition  # noqa: PLC0415  # heavy

    scraped = Scraped(system.figures.now, Exposition().text, system.clock)
    config = uvicorn.Config(
        MetricsApp(scraped.text, CONTENT_TYPE, hosts),
        http=BoundedHttp,
        access_log=False,
        proxy_headers=False,
        log_config=None,
        lifespan="off",
        limit_concurrency=MAX_SCRAPES_AT_ONCE,
        timeout_graceful_shutdown=1,
    )
    return _Quiet(config)


class _Quiet(uvicorn.Server):
    """A second server in one process: signals are the first one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
