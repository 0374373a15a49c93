"""`/metrics` on a listener of its own, where no agent comes: one path, one method, and only by a name it is known by."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final

from interlock.server.asgi import Receive, Scope, Send, answer, answer_problem, header

PATH: Final = "/metrics"


class MetricsApp:
    """An ASGI application. `text` gives the whole answer; it never raises for what the database does."""

    def __init__(self, text: Callable[[], Awaitable[bytes]], content_type: str, hosts: frozenset[str]) -> None:
        self._text = text
        self._headers = ((b"content-type", content_type.encode("ascii")), (b"cache-control", b"no-store"))
        self._hosts = hosts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
        elif not self._is_known_by(header(scope, b"host") or ""):
            # A page in somebody's browser whose name was made to point here shows its own name.
            await answer_problem(send, 403, "this host is not allowed; see --allow-host")
        elif header(scope, b"origin") is not None or header(scope, b"sec-fetch-site") not in {None, "none"}:
            await answer_problem(send, 403, "not for pages")
        elif scope["path"] != PATH:
            await answer_problem(send, 404, f"there is only {PATH} here")
        elif scope["method"] not in {"GET", "HEAD"}:
            await answer_problem(send, 405, "read it with GET", (b"allow", b"GET, HEAD"))
        else:
            await answer(send, 200, await self._text(), headers=self._headers)

    def _is_known_by(self, host: str) -> bool:
        """An address, which no name server can give to somebody else, or a name that the operator allowed."""
        name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host.lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True
