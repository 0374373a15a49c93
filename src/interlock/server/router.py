"""One ASGI application: MCP of both revisions at `/mcp`, the page at `/`, everything else in the API."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from interlock.app.doors import MCP_PATH, METADATA_PATH, Doors
from interlock.app.plane import Plane
from interlock.core.who import Session
from interlock.identity.errors import ExchangeRefusedError, TaskNeededError, TokenRefusedError
from interlock.release.errors import ReleaseError
from interlock.server import envelope as rpc
from interlock.server.api.application import make_api
from interlock.server.asgi import (
    App,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    base_of,
    bearer,
    comes_from_elsewhere,
    has_nul,
    header,
    repeated,
    set_base,
)
from interlock.server.limits import MAX_CONCURRENT_MCP, MAX_CONCURRENT_PUBLIC
from interlock.server.listening import Listening
from interlock.server.login import consent, device, outside
from interlock.server.login.browser import KeptLogins, Renewing
from interlock.server.mcp_methods import Gate, Methods
from interlock.server.mcp_stateless import StatelessMcp
from interlock.server.open_stream import until_told
from interlock.server.page.application import is_of_page, make_page
from interlock.server.page.login import LoginWay
from interlock.server.page.stream import PATH as LIVE_PATH
from interlock.server.page.stream import LiveStream
from interlock.store.errors import StoreError

_MCP_PATH: Final = re.compile(r"/mcp(?:/([A-Za-z0-9_-]{1,64}))?/?", re.ASCII)
_UNCOUNTED: Final = ("/v1/", "/access/", "/livez", "/readyz", "/page/")
# Whoever asks by an address of the machine, as load balancers do, learns whether it is there, and nothing else.
_PROBES: Final = {"/livez", "/readyz"}
_COUNTED: Final = "/page/static/"
_BAD_REQUEST: Final = 400
_BUSY: Final = 503
LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Router:
    """Establishes the session before anything else is looked at. There is no anonymous path to `/mcp`."""

    def __init__(
        self,
        *,
        gate: Gate,
        session_of: Callable[[str], Session],
        plane: Plane,
        allowed_hosts: frozenset[str] = LOCAL_HOSTS,
        ways: Sequence[LoginWay] = (),
        doors: Doors | None = None,
    ) -> None:
        self._doors = doors
        self._session_of = session_of
        self._allowed_hosts = allowed_hosts
        self._stateless = StatelessMcp(gate, Listening(gate.changes, gate.streams, Methods(gate)))
        self._gate = gate
        self._stateful: Any = None
        self._api: App = make_api(plane, gate)  # type: ignore[assignment]  # Litestar's own ASGI types are nominal
        rooms = [*consent.routes(plane), *device.routes(plane), *outside.routes(plane)]
        page: App = make_page(plane, ways=ways, browser=KeptLogins(plane), more=rooms)  # type: ignore[assignment]  # same
        self._page: App = Renewing(page, plane)
        self._live = Renewing(LiveStream(plane), plane)
        self._running = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._mcp_now = asyncio.BoundedSemaphore(MAX_CONCURRENT_MCP)
        self._public_now = asyncio.BoundedSemaphore(MAX_CONCURRENT_PUBLIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
        elif _MCP_PATH.fullmatch(scope["path"]):
            await self._within(self._mcp_now, scope, receive, send)
        elif scope["path"].startswith(_UNCOUNTED) and not scope["path"].startswith(_COUNTED):
            # INVARIANT: kill never waits behind calls or strangers; whoever asks it has shown a token before the body is read.
            await self._request(scope, receive, send)
        else:
            await self._within(self._public_now, scope, receive, send)

    async def _within(self, places: asyncio.BoundedSemaphore, scope: Scope, receive: Receive, send: Send) -> None:
        if places.locked():
            await answer_problem(send, _BUSY, "too many requests at once; nothing was done, try again", (b"retry-after", b"1"))
            return
        async with places:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        twice, mcp = repeated(scope), _MCP_PATH.fullmatch(scope["path"])
        if self._doors is not None and self._doors.public_url:
            set_base(scope, self._doors.public_url)
        if twice is not None and mcp is None:
            await answer_problem(send, _BAD_REQUEST, f"the header {twice} stands more than once")
        elif twice is not None:
            error = rpc.RpcError(rpc.HEADER_MISMATCH, f"the header {twice} stands more than once")
            await answer(send, _BAD_REQUEST, rpc.failure(None, error))
        elif scope["path"] not in _PROBES and comes_from_elsewhere(scope, self._allowed_hosts):
            await answer_problem(send, 403, "this host or origin is not allowed; see --allow-host")
        elif has_nul(scope):
            await answer_problem(send, _BAD_REQUEST, "a NUL in the address")
        elif mcp is not None:
            await self._mcp(scope, receive, send, mcp[1])
        elif scope["path"] == LIVE_PATH:
            await self._live(scope, receive, send)
        elif is_of_page(scope["path"]):
            await self._page(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send, tool: str | None) -> None:
        session = await self._session(scope, send)
        if session is None:
            return
        version = header(scope, b"mcp-protocol-version")
        # The handshake of older revisions comes without the header; whatever is unknown gets the newest revision's answer.
        if version is None or version in rpc.HANDSHAKES:
            older = await self._older()
            if scope["method"] == "GET":
                await until_told(
                    scope,
                    receive,
                    send,
                    lambda hear, say: older(scope, hear, say, session, tool),
                    lambda end: self._gate.streams.add(session, end),
                )
            else:
                await older(scope, receive, send, session, tool)
        else:
            await self._stateless(scope, receive, send, session, tool)

    async def _session(self, scope: Scope, send: Send) -> Session | None:
        """The session that the request's token stands for; None when it stands for none, and the client has been told."""
        token, task = bearer(scope), header(scope, b"interlock-task") or ""
        try:
            if self._doors is not None and self._doors.concerns(token):
                return await self._doors.session(token, task)
            return _for_task(self._session_of(token), task)
        except TokenRefusedError:
            title = "a token is needed: log in where the challenge says, or see `interlock token`"
            await answer_problem(send, 401, title, (b"www-authenticate", self._challenge(scope, token)))
        except ExchangeRefusedError as refused:
            await answer_problem(send, 403, refused.description)
        except TaskNeededError as needed:
            await answer_problem(send, 403, str(needed))
        except (StoreError, ReleaseError):
            await answer_problem(send, _BUSY, "the control plane cannot answer right now", (b"retry-after", b"1"))
        return None

    def _challenge(self, scope: Scope, token: str) -> bytes:
        """What a client needs to know to get a token (RFC 6750 and RFC 9728)."""
        said = ['error="invalid_token"'] if token else []
        if self._doors is not None:
            said.append(f'resource_metadata="{base_of(scope)}{METADATA_PATH}{MCP_PATH}"')
        return f"Bearer {', '.join(said)}".strip().encode("latin-1")

    async def _older(self) -> Any:
        async with self._starting:
            if self._stateful is None:
                # The SDK takes a second to import, so it comes in with the first client that needs it, and in a thread:
                # a second without the event loop is a second without leases and answers for everybody else.
                module = await asyncio.to_thread(importlib.import_module, "interlock.server.mcp_stateful")
                stateful = module.StatefulMcp(self._gate)
                started = asyncio.Event()
                task = asyncio.create_task(self._run(stateful, started), name="stateful-mcp")
                waiting = asyncio.ensure_future(started.wait())
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if task.done():
                    task.result()  # raises why it could not start; the next client tries again
                self._running.push_async_callback(_cancel, task)
                self._stateful = stateful
        return self._stateful

    @staticmethod
    async def _run(stateful: Any, started: asyncio.Event) -> None:
        # Task groups must be left by the task that entered them, so the manager has a task of its own.
        async with stateful.running():
            started.set()
            await asyncio.Event().wait()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._running.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _for_task(session: Session, task: str) -> Session:
    if task not in ("", session.task):
        raise TaskNeededError(f"the session is for the task {session.task}; leave out the header interlock-task")
    return session


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
