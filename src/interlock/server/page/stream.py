"""Live news as server-sent events (HTML standard, 9.2): rows of calls as they move, and names of parts that have changed.

A message without a name is a row; `approvals` and `controls` say that a part should be fetched again, by a request of its own
with this person's rights; `trouble` that nothing is known of now. A stream ends with the token it was opened by.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from litestar import Request

from interlock.app.live import CallFilter, News, TooManyWatchersError, Watcher
from interlock.app.plane import Plane
from interlock.core.who import Person
from interlock.identity.errors import TokenRefusedError
from interlock.ledger.summary import CallSummary
from interlock.server.asgi import Receive, Scope, Send, answer
from interlock.server.http import LINE, OpenLine
from interlock.server.page.calls import filter_of, gone, row
from interlock.server.page.cookie import token_of_cookie
from interlock.server.page.login import lifetime_s
from interlock.store.errors import StoreUnavailableError

PATH: Final = "/page/live"
PING_S: Final = 15.0
SEND_S: Final = 10.0
RETRY_MS: Final = 1_000
MAX_CURSOR_US: Final = 2**62
_LINE: Final = re.compile(r"\r\n|\r|\n")
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
)


class LiveStream:
    """The stream as an ASGI application. A stream has a place of its own (`MAX_WATCHERS`) and takes none of anybody's."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one watcher until they leave, their login ends, or the server does."""
        request: Request[Any, Any, Any] = Request(scope)  # type: ignore[arg-type]  # Litestar's own ASGI types are nominal
        wanted, since_us = filter_of(request.query_params), _cursor(request)
        try:
            token = token_of_cookie(request)
            person = await self._plane.person(token)
        except TokenRefusedError:
            await answer(send, 401, b"", headers=((b"cache-control", b"no-store"),))
            return
        try:
            async with self._plane.live.watch(person) as watcher:
                line = scope.get(LINE)
                if isinstance(line, OpenLine):
                    line.stop = watcher.drop
                    if line.is_over:
                        watcher.drop()
                await self._serve(_Line(line, receive, send), watcher, token, person, wanted, since_us)
        except (TooManyWatchersError, StoreUnavailableError):
            await answer(send, 503, b"", headers=((b"cache-control", b"no-store"), (b"retry-after", b"5")))

    async def _serve(
        self, line: _Line, watcher: Watcher, token: str, person: Person, wanted: CallFilter, since_us: int
    ) -> None:
        missed = await self._missed(person, wanted, since_us)
        await line.begin()
        # What has changed in the parts between the page and this moment is not known, so they are fetched once more.
        since = (*_calls(missed, wanted), frame("changed", event="approvals"), frame("changed", event="controls"))
        await line.say(f"retry: {RETRY_MS}\n\n" + "".join(since))
        async with line:
            while not line.is_gone():
                left_s = lifetime_s(token, self._plane.clock.wall_us() // 1_000_000)
                news = await line.until_gone(watcher.next(min(PING_S, left_s + 1)))
                if news is None:
                    return
                try:
                    await self._plane.person(token)
                except TokenRefusedError:
                    # A browser whose login goes on comes back with a renewed token; another is refused, and asks to log in.
                    return
                await line.say("".join(_told(news, wanted)) or ":\n\n")

    async def _missed(self, person: Person, wanted: CallFilter, since_us: int) -> tuple[CallSummary, ...]:
        anything = CallFilter(agent=wanted.agent, user=wanted.user, operation=wanted.operation)
        found, _ = await self._plane.live.newest(person, anything)
        return tuple(call for call in reversed(found) if call.moved_us >= since_us)


class _Line:
    """One connection: what is said on it, and whether anybody is still there. A client that does not read is hung up on."""

    def __init__(self, line: OpenLine | None, receive: Receive, send: Send) -> None:
        self._line, self._receive, self._send = line, receive, send
        self._gone: asyncio.Task[None] | None = None
        self._hung_up = False

    async def begin(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        self._gone = asyncio.create_task(self._leave(), name="page-leave")

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        if self._gone is not None:
            self._gone.cancel()
        if not self._hung_up:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def is_gone(self) -> bool:
        return self._hung_up or self._gone is None or self._gone.done()

    async def say(self, text: str) -> None:
        message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
        try:
            await asyncio.wait_for(self._send(message), SEND_S)
        except TimeoutError:
            self._hung_up = True
            if self._line is not None:
                self._line.hang_up()

    async def until_gone(self, news: Coroutine[Any, Any, News | None]) -> News | None:
        asked = asyncio.create_task(news)
        waited: set[asyncio.Task[Any]] = {asked} if self._gone is None else {asked, self._gone}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else None
        finally:
            asked.cancel()

    async def _leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def frame(data: str, *, event: str = "") -> str:
    """One message. Whatever line breaks the data has, none of them ends the message or begins another field."""
    head = f"event: {event}\n" if event else ""
    return head + "".join(f"data: {line}\n" for line in _LINE.split(data)) + "\n"


def _told(news: News, wanted: CallFilter) -> Iterable[str]:
    yield from _calls(news.calls, wanted)
    if news.approvals:
        yield frame("changed", event="approvals")
    if news.control:
        yield frame("changed", event="controls")
    if news.trouble:
        yield frame("no answer", event="trouble")
    if news.horizon_us:
        # Last and by itself, so that a browser that comes back begins where all of this has been told.
        yield f"id: {news.horizon_us}\n\n"


def _calls(calls: Iterable[CallSummary], wanted: CallFilter) -> Iterable[str]:
    for call in calls:
        if wanted.matches(call):
            yield frame(row(call))
        elif wanted.matches(call, standing_too=False):
            yield frame(gone(call))


def _cursor(request: Request[Any, Any, Any]) -> int:
    """From when on this browser has missed something: where it was before, else when its page was made."""
    for text in (request.headers.get("last-event-id", ""), request.query_params.get("since", "")):
        if text.isascii() and text.isdecimal() and int(text[:20]) <= MAX_CURSOR_US:
            return int(text[:20])
    return 0
