"""One MCP server over HTTP, as one connection key sees it: negotiation, session, calls."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.mirrored import Mirrored, header_value, parameter_headers
from interlock.core.trace_context import TRACEPARENT
from interlock.tools import messages
from interlock.tools.attempt import Attempt
from interlock.tools.beside import Beside
from interlock.tools.credential import Credential
from interlock.tools.errors import AnswerNotKeptError, CallFailedError, StreamEndedError
from interlock.tools.http.endpoint import Endpoint
from interlock.tools.http.exchange import OK, HttpResponse, OnEvent
from interlock.tools.http.pool import Pool
from interlock.tools.limits import ToolLimits
from interlock.tools.listening import LISTEN, Hear, listened, wanted
from interlock.tools.listings import everything
from interlock.tools.messages import STATELESS, Message
from interlock.tools.port import Line, PauseGuard, ToolAnswer

_LOG: Final = logging.getLogger(__name__)
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)
_SUCCESSES: Final = range(200, 300)
_NOT_AUTHORISED: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404


class _Link(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed with the server; replaced, never changed."""

    version: str
    session_id: str = ""
    head: bytes
    declared: frozenset[str] = frozenset()


class HttpUpstream:
    """Speaks 2026-07-28 where the server does, else shakes hands for 2025-11-25. `pin` allows one of them only."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        tls: ssl.SSLContext | None,
        credential: Credential,
        pin: str,
        mirrored: Mapping[str, Mirrored],
        limits: ToolLimits,
        offers: frozenset[str] = frozenset(),
    ) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._credential = credential
        self._pin = pin
        self._mirrored = mirrored
        self._limits = limits
        self._offers = offers
        self._pool = self._new_pool()
        self._ids = itertools.count(1)
        self._link: _Link | None = None
        self._negotiating: asyncio.Task[_Link] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def call(self, attempt: Attempt) -> ToolAnswer:
        """One call of whatever kind; see `Upstream`."""
        link = await self._ready()
        invocation = attempt.invocation
        request_id = next(self._ids)
        traceparent = invocation.trace_meta.get(TRACEPARENT, "")
        routing = f"{TRACEPARENT}: {traceparent}\r\n" if traceparent else ""
        if link.version == STATELESS:
            # Names come from the release, and are few; an address can be any.
            routed = _routing if invocation.kind is Kind.RESOURCE else _known_routing
            routing += routed(messages.METHODS[invocation.kind], messages.name_of(invocation))
            mirrored = parameter_headers(self._mirrored.get(invocation.upstream_name, ()), invocation.arguments)
            routing += "".join([f"{header}: {value}\r\n" for header, value in mirrored.items()])
        beside = Beside(invocation.line, request_id, self._limits)
        asking: set[asyncio.Task[None]] = set()
        try:
            _, message = await self._exchange(
                link,
                request_id,
                lambda: messages.call(request_id, invocation, version=link.version),
                routing=routing,
                before_first_byte=attempt.first_byte,
                guard=invocation.pause_guard,
                listener=self._listener(link, request_id, beside, asking),
            )
        except asyncio.CancelledError:
            if link.version != STATELESS and attempt.sent:
                # Here hanging up is no sign to stop; a stateless server takes it as one.
                self._tell(link, messages.notification("notifications/cancelled", {"requestId": request_id}))
            raise
        finally:
            for task in asking:
                task.cancel()
        answer = messages.read_answer(message, invocation.kind, self._limits)
        return msgspec.structs.replace(answer, logs=tuple(beside.logs)) if beside.logs else answer

    async def list_tools(self, kinds: frozenset[Kind]) -> tuple[ListedTool, ...]:
        """All pages; see `Upstream`."""
        link = await self._ready()
        return await everything(partial(self._request, link), kinds, link.declared, self._limits)

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> None:
        """Hear what changes for as long as the server tells it; see `Upstream`."""
        link = await self._ready()
        request_id = next(self._ids)

        def on_event(data: bytes) -> bool:
            message = messages.read(self._credential.scrub(data))
            if message.is_reply:
                return not isinstance(message.id, int) or message.id == request_id
            if message.is_request:
                raise CallFailedError("protocol", "a request of the server where only notifications may be")
            listened(message, hear)
            return False

        if link.version == STATELESS:
            body = messages.request(request_id, LISTEN, wanted(uris), version=STATELESS)
            _, message = await self._exchange(link, request_id, body, routing=f"Mcp-Method: {LISTEN}\r\n", listener=on_event)
            code, text = messages.error_of(message)
            if code:
                raise CallFailedError("refused", f"the server tells no changes ({code}): {text[:200]}")
            return
        for uri in uris:
            await self._request(link, "resources/subscribe", {"uri": uri})
        response = await self._get(link, {}, on_event)
        if response.status not in _SUCCESSES:
            raise CallFailedError("refused", f"the server has no stream for changes (HTTP {response.status})")

    async def aclose(self) -> None:
        """Hang up, and end the session if there is one; see `Upstream`."""
        self._closed = True
        self._pool.close()
        tasks: list[asyncio.Task[Any]] = [*self._background]
        if self._negotiating is not None:
            tasks.append(self._negotiating)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None and link.session_id:
            await self._end_session(link)

    # -- what was agreed ---------------------------------------------------------------------------------------------

    async def _ready(self) -> _Link:
        """The link, negotiated once however many calls wait for it; one that fails is tried again by the next call."""
        if self._link is not None:
            return self._link
        if self._closed:
            raise CallFailedError("cancelled", "the connector was closed")
        if self._negotiating is None or self._negotiating.done():
            self._negotiating = asyncio.get_running_loop().create_task(self._negotiate())
            self._negotiating.add_done_callback(_seen)
        task = self._negotiating
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise CallFailedError("cancelled", "the connector was closed") from None
            raise

    async def _negotiate(self) -> _Link:
        try:
            async with asyncio.timeout(self._limits.negotiate_timeout_ms / 1000):
                link = None if self._pin in messages.ACCEPTED_HANDSHAKES else await self._discover()
                if link is None and self._pin == STATELESS:
                    raise CallFailedError("protocol", f"the server does not speak {STATELESS}, which this tool is pinned to")
                self._link = link or await self._shake_hands()
                return self._link
        except TimeoutError:
            raise CallFailedError("unreachable", "the server did not answer the negotiation in time") from None

    async def _discover(self) -> _Link | None:
        link = self._new_link(STATELESS)
        try:
            message = await self._request(link, "server/discover", {})
        except CallFailedError as error:
            if error.code == "protocol":
                return None
            raise
        found = msgspec.structs.replace(link, declared=messages.declared(message))
        return found if messages.discovered_stateless(message) else None

    async def _shake_hands(self) -> _Link:
        request_id = next(self._ids)
        link = self._new_link("")
        response, message = await self._exchange(link, request_id, messages.initialize(request_id, self._offers))
        version = messages.agreed_version(message)
        if response.session_id and not _SESSION_ID.fullmatch(response.session_id):
            raise CallFailedError("protocol", "the session id is not visible ASCII")
        link = msgspec.structs.replace(self._new_link(version, response.session_id), declared=messages.declared(message))
        await self._post(link, messages.notification("notifications/initialized"))
        return link

    def _new_link(self, version: str, session_id: str = "") -> _Link:
        headers = {"Content-Type": "application/json"}
        if version:
            headers["MCP-Protocol-Version"] = version
        if session_id:
            headers["Mcp-Session-Id"] = session_id
        return _Link(version=version, session_id=session_id, head=self._endpoint.head("POST", headers))

    def _forget(self, link: _Link) -> None:
        """What was agreed holds no longer; the next call negotiates anew."""
        if self._link is link:
            self._link = None

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _request(self, link: _Link, method: str, params: Mapping[str, Any]) -> Message:
        request_id = next(self._ids)
        body = messages.request(request_id, method, params, version=link.version)
        routing = f"Mcp-Method: {method}\r\n" if link.version == STATELESS else ""
        _, message = await self._exchange(link, request_id, body, routing=routing)
        return message

    async def _exchange(
        self,
        link: _Link,
        request_id: int,
        body: bytes | Callable[[], bytes],
        *,
        routing: str = "",
        before_first_byte: Callable[[], None] = lambda: None,
        guard: PauseGuard | None = None,
        listener: OnEvent | None = None,
    ) -> tuple[HttpResponse, Message]:
        if listener is None:
            listener = self._listener(link, request_id, Beside(Line(), request_id, self._limits), set())
        try:
            try:
                response = await self._post(
                    link, body, routing=routing, before_first_byte=before_first_byte, on_event=listener, guard=guard
                )
            except StreamEndedError as ended:
                response = await self._taken_up(link, ended, listener)
        except AnswerNotKeptError as error:
            messages.check_not_kept(error, request_id)
            raise
        self._check_status(link, response)
        message = messages.read_reply(self._credential.scrub(response.body), request_id)
        code, _ = messages.error_of(message)
        if response.status not in _SUCCESSES and not code:
            raise CallFailedError("protocol", f"a result with HTTP status {response.status}")
        if code in messages.PROTOCOL_ERRORS or (response.status not in _SUCCESSES and code not in messages.CALL_ERRORS):
            self._forget(link)
        return response, message

    async def _taken_up(self, link: _Link, ended: StreamEndedError, listener: OnEvent) -> HttpResponse:
        """The rest of a stream that its server ended early, and meant to (MCP 2025-11-25): asked for, never sent again."""
        for _ in range(self._limits.resumptions_max if link.version != STATELESS else 0):
            await asyncio.sleep(min(ended.retry_ms, self._limits.resumption_wait_max_ms) / 1000)
            try:
                return await self._get(link, {"Last-Event-ID": ended.event_id}, listener)
            except StreamEndedError as again:
                ended = again
        raise ended

    async def _get(self, link: _Link, more: Mapping[str, str], listener: OnEvent) -> HttpResponse:
        """A stream of what the server says: all that is unasked, or the rest of one."""
        headers = {"MCP-Protocol-Version": link.version, **more}
        headers |= {"Mcp-Session-Id": link.session_id} if link.session_id else {}
        secret = self._credential.value()
        authorization = b"Authorization: Bearer %b\r\n" % secret if secret else b""
        data = self._endpoint.head("GET", headers) + authorization + b"\r\n"
        return await self._pool.request(lambda: data, before_first_byte=lambda: None, on_event=listener)

    async def _post(
        self,
        link: _Link,
        body: bytes | Callable[[], bytes],
        *,
        routing: str = "",
        before_first_byte: Callable[[], None] = lambda: None,
        on_event: OnEvent = lambda _: False,
        guard: PauseGuard | None = None,
    ) -> HttpResponse:
        secret = self._credential.value()
        authorization = b"Authorization: Bearer %b\r\n" % secret if secret else b""
        head = b"%b%b%b" % (link.head, routing.encode("ascii"), authorization)

        def made() -> bytes:
            content = body if isinstance(body, bytes) else body()
            return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(content), content)

        return await self._pool.request(made, before_first_byte=before_first_byte, on_event=on_event, guard=guard)

    def _check_status(self, link: _Link, response: HttpResponse) -> None:
        """Raise for every response that cannot hold a JSON-RPC reply."""
        status = response.status
        if status in _NOT_AUTHORISED:
            raise CallFailedError("refused", f"the server does not accept our credential (HTTP {status})")
        if status in _REDIRECTS:
            raise CallFailedError("protocol", f"the server redirects (HTTP {status}); put the final address in the tool's url")
        if status == _NOT_FOUND and link.session_id:
            self._forget(link)
            raise CallFailedError("protocol", "the server has ended the session; the next call opens another")
        if status == OK and response.media_type in {"application/json", "text/event-stream"}:
            return
        if status >= _REDIRECTS.stop and response.media_type == "application/json":
            return
        if status not in _SUCCESSES:
            self._forget(link)
        code = "unreachable" if status in _SERVER_ERRORS else "protocol"
        raise CallFailedError(code, f"no JSON-RPC reply but HTTP {status} with {response.media_type[:60] or 'no type'}")

    def _listener(self, link: _Link, request_id: int, beside: Beside, asking: set[asyncio.Task[None]]) -> OnEvent:
        """Watches a stream for the reply; what else comes is for `beside`, and what it lets be answered is answered."""

        def on_event(data: bytes) -> bool:
            message = messages.read(self._credential.scrub(data))
            if message.is_reply:
                messages.read_reply(data, request_id)
                return True
            if not message.is_request:
                beside.notified(message)
                return False
            beside.check_request()
            if link.version != STATELESS and beside.goes_on(message):
                task = asyncio.get_running_loop().create_task(self._answered(link, beside, message))
                asking.add(task)
                task.add_done_callback(asking.discard)
            elif link.version != STATELESS:
                self._tell(link, messages.refusal(message))
            return False

        return on_event

    async def _answered(self, link: _Link, beside: Beside, message: Message) -> None:
        """Put a request of the server to the caller, and tell the server what came of it."""
        try:
            body = await beside.answer(message)
        except CallFailedError as error:
            body = messages.declined(message, error.detail)
        except Exception as error:  # noqa: BLE001  # whatever breaks here, the server is told no
            _LOG.error("what a server asked could not be answered", exc_info=error, extra={"event": "tool.not_answered"})
            body = messages.declined(message, "it could not be put to the caller")
        self._tell(link, body)

    # -- beside the call ---------------------------------------------------------------------------------------------

    def _tell(self, link: _Link, body: bytes) -> None:
        """Post something whose answer does not matter."""
        if not self._closed:
            task = asyncio.get_running_loop().create_task(self._quietly(self._post(link, body)))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _quietly(self, post: Coroutine[Any, Any, HttpResponse]) -> None:
        try:
            async with asyncio.timeout(self._limits.close_timeout_ms / 1000):
                await post
        except (TimeoutError, CallFailedError) as error:
            _LOG.debug("a courtesy message was not delivered: %s", error, extra={"event": "tool.not_told"})

    async def _end_session(self, link: _Link) -> None:
        pool = self._new_pool()
        headers = {"MCP-Protocol-Version": link.version, "Mcp-Session-Id": link.session_id}
        try:
            secret = self._credential.value()
        except CallFailedError:
            return
        authorization = b"Authorization: Bearer %b\r\n" % secret if secret else b""
        data = self._endpoint.head("DELETE", headers) + authorization + b"\r\n"
        await self._quietly(pool.request(lambda: data, before_first_byte=lambda: None, on_event=lambda _: False))
        pool.close()

    def _new_pool(self) -> Pool:
        return Pool(host=self._endpoint.host, port=self._endpoint.port, tls=self._tls, limits=self._limits)


def _routing(method: str, name: str | None) -> str:
    """The headers by which a stateless call is routed."""
    return f"Mcp-Method: {method}\r\n" + ("" if name is None else f"Mcp-Name: {header_value(name)}\r\n")


_known_routing = lru_cache(1_024)(_routing)


def _seen(task: asyncio.Task[_Link]) -> None:
    """A negotiation that failed after everyone stopped waiting is no news."""
    if not task.cancelled():
        task.exception()
