"""Answers without an end that others make: they hear that their client has gone when it is time to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interlock.server.asgi import Message, Receive, Scope, Send
from interlock.server.http import LINE, OpenLine


async def until_told(
    scope: Scope,
    receive: Receive,
    send: Send,
    serve: Callable[[Receive, Send], Awaitable[None]],
    belongs: Callable[[Callable[[], None]], Callable[[], None]],
) -> None:
    """Serve with `receive` and `send` that know when this connection is told to end.

    `belongs` is given what ends the answer with whoever it belongs to, and gives what to call when it has ended.
    """
    told = asyncio.Event()
    line = scope.get(LINE)
    if isinstance(line, OpenLine):
        line.stop = told.set
        if line.is_over:
            told.set()
    begun = ended = False

    async def hear() -> Message:
        heard, over = asyncio.ensure_future(receive()), asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait({heard, over}, return_when=asyncio.FIRST_COMPLETED)
            return heard.result() if heard.done() else {"type": "http.disconnect"}
        finally:
            heard.cancel()
            over.cancel()

    async def say(message: Message) -> None:
        nonlocal begun, ended
        begun = begun or message["type"] == "http.response.start"
        ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    ended_with = belongs(told.set)
    try:
        await serve(hear, say)
    finally:
        ended_with()
    if begun and not ended:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
