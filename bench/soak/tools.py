"""The tools: real MCP servers with a table of their own, `python -m bench.soak.tools bank|desk PORT DATABASE_URL`.

One refund in a hundred takes its time, one in three hundred loses its answer after it was paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel

TABLE: Final = (
    "CREATE TABLE refund (n serial PRIMARY KEY, order_id text NOT NULL, amount text NOT NULL, reference text NOT NULL)"
)
SLOW: Final = 0.01
LOST: Final = 1 / 300
ROW: Final = "nothing of note was said about this one, and it went on for a while, as such texts do "


class Balance(BaseModel):
    account: str
    balance: str


class Refund(BaseModel):
    order: str
    n: int


class Row(BaseModel):
    reference: str


class Rows(BaseModel):
    rows: list[Row]


class Ticket(BaseModel):
    id: int
    subject: str


class Tickets(BaseModel):
    tickets: list[Ticket]


class Line(BaseModel):
    id: int
    text: str


class Lines(BaseModel):
    rows: list[Line]


class Deleted(BaseModel):
    deleted: bool


class LosesAnswers:
    """Breaks the line off when the tool has said so."""

    lost = False

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start" and LosesAnswers.lost:
                LosesAnswers.lost = False
                raise ConnectionResetError("the answer got lost")
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ConnectionResetError:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def bank(server: MCPServer, pool: Any) -> None:
    mind = random.Random(7)

    @server.tool()
    async def balance(account: str) -> Balance:
        """What is on an account."""
        return Balance(account=account, balance="12.50")

    @server.tool()
    async def refund(ctx: Context, order: str, amount: str) -> Refund:
        """Pay money back."""
        reference = (ctx.request_context.meta or {}).get("idempotency-key", "")
        if mind.random() < SLOW:
            await asyncio.sleep(mind.uniform(0.5, 4.0))
        statement = "INSERT INTO refund (order_id, amount, reference) VALUES ($1, $2, $3) RETURNING n"
        made = await pool().fetchval(statement, order, amount, reference)
        LosesAnswers.lost = mind.random() < LOST
        return Refund(order=order, n=made)

    @server.tool()
    async def refunded(order: str) -> Rows:
        """What was paid back for an order."""
        found = await pool().fetch("SELECT reference FROM refund WHERE order_id = $1", order)
        return Rows(rows=[Row(reference=row["reference"]) for row in found])


def desk(server: MCPServer, _: Any) -> None:
    @server.tool()
    async def search(words: str) -> Tickets:
        """Find tickets."""
        return Tickets(tickets=[Ticket(id=number, subject=f"{words} no. {number}") for number in range(5)])

    @server.tool()
    async def export(kilobytes: int) -> Lines:
        """Many tickets at once."""
        text = ROW * (1000 // len(ROW))
        return Lines(rows=[Line(id=number, text=text) for number in range(kilobytes)])

    @server.tool()
    async def delete(ticket: int) -> Deleted:
        """Delete a ticket."""
        raise AssertionError(f"nobody may do this: {ticket}")


def main(name: str, port: int, url: str) -> None:
    pools: list[Any] = []
    server = MCPServer(name, log_level="ERROR")
    {"bank": bank, "desk": desk}[name](server, lambda: pools[0])
    app = server.streamable_http_app(json_response=True)
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(running: Any) -> AsyncIterator[Any]:
        pools.append(await asyncpg.create_pool(url, min_size=1, max_size=4))
        async with inner(running) as state:
            yield state

    app.router.lifespan_context = lifespan
    uvicorn.run(LosesAnswers(app), host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
