"""The company's MCP servers. Each requires its own bearer credential, which Interlock holds and agents never see."""

import asyncio
import logging
import os
import time
from contextlib import asynccontextmanager
from decimal import Decimal
from email.message import EmailMessage

import asyncpg
import uvicorn
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

NAMES = ("tickets", "payments", "customers", "mail", "articles", "config_prod", "config_staging")


class Database:
    """The pool, opened when the server starts."""

    pool: asyncpg.Pool

    async def one(self, sql, *args):
        row = await self.pool.fetchrow(sql, *args)
        if row is None:
            raise ToolError("there is no such record")
        return row


db = Database()


class TicketLine(BaseModel):
    id: int
    subject: str
    status: str


class TicketList(BaseModel):
    tickets: list[TicketLine]


class Ticket(BaseModel):
    id: int
    tenant: str
    subject: str
    body: str
    status: str
    comments: list[str]


class Tenant(BaseModel):
    tenant: str


class Made(BaseModel):
    id: int


class Deleted(BaseModel):
    deleted: bool


def tickets(server):
    @server.tool()
    async def search(words: str) -> TicketList:
        """Find tickets by words in their subject."""
        rows = await db.pool.fetch(
            "SELECT id, subject, status FROM ticket WHERE subject ILIKE '%' || $1 || '%' AND tenant = 'acme' ORDER BY id", words
        )
        return TicketList(tickets=[TicketLine(**dict(row)) for row in rows])

    @server.tool()
    async def get(ticket_id: int) -> Ticket:
        """One ticket with its comments."""
        row = await db.one("SELECT * FROM ticket WHERE id = $1", ticket_id)
        comments = await db.pool.fetch("SELECT text FROM comment WHERE ticket_id = $1 ORDER BY id", ticket_id)
        return Ticket(**dict(row), comments=[comment["text"] for comment in comments])

    @server.tool()
    async def lookup(ticket_id: int) -> Tenant:
        """Whose ticket it is."""
        row = await db.one("SELECT tenant FROM ticket WHERE id = $1", ticket_id)
        return Tenant(tenant=row["tenant"])

    @server.tool()
    async def create(subject: str, body: str) -> Made:
        """Open a ticket."""
        return Made(id=await db.pool.fetchval("INSERT INTO ticket (subject, body) VALUES ($1, $2) RETURNING id", subject, body))

    @server.tool()
    async def comment(ticket_id: int, text: str) -> Made:
        """Add a comment to a ticket."""
        made = await db.pool.fetchval("INSERT INTO comment (ticket_id, text) VALUES ($1, $2) RETURNING id", ticket_id, text)
        return Made(id=made)

    @server.tool()
    async def delete(ticket_id: int) -> Deleted:
        """Delete a ticket for good."""
        return Deleted(deleted=await db.pool.execute("DELETE FROM ticket WHERE id = $1", ticket_id) == "DELETE 1")


class Order(BaseModel):
    order_id: str
    tenant: str
    amount: str
    currency: str
    refunded: str


class OpenOrder(BaseModel):
    tenant: str
    open: str


class Refund(BaseModel):
    refund_id: int
    order_id: str
    amount: str


class Reference(BaseModel):
    reference: str
    amount: str


class References(BaseModel):
    refunds: list[Reference]


def refuse_if_late(meta):
    """Refuse what its sender had no right to send any more. It takes clocks that agree to within a lease's margin."""
    fence = (meta or {}).get("interlock/fence")
    if fence is not None and time.time() * 1000 > fence["deadline_ms"]:
        raise MCPError(-32000, "this call came after the time it was allowed for; nothing was paid", {"interlock/late": True})


class LostAnswer:
    """Set when the next answer is to be lost on its way back."""

    pending = False

    @classmethod
    async def perhaps(cls, service):
        """It has acted; is this one of the answers that nobody gets?"""
        lost = "UPDATE trouble SET lost_answers = lost_answers - 1 WHERE service = $1 AND lost_answers > 0"
        cls.pending = await db.pool.execute(lost, service) == "UPDATE 1"


def payments(server):
    of_order = "SELECT o.*, coalesce((SELECT sum(amount) FROM refund WHERE order_id = o.id), 0) AS refunded FROM orders o WHERE id = $1"

    @server.tool()
    async def order(order_id: str) -> Order:
        """An order and what of it was refunded."""
        row = await db.one(of_order, order_id)
        amounts = {name: f"{row[name]:.2f}" for name in ("amount", "refunded")}
        return Order(order_id=order_id, tenant=row["tenant"], currency=row["currency"], **amounts)

    @server.tool()
    async def lookup(order_id: str) -> OpenOrder:
        """Whose order it is, and what may still be refunded."""
        row = await db.one(of_order, order_id)
        return OpenOrder(tenant=row["tenant"], open=f"{row['amount'] - row['refunded']:.2f}")

    @server.tool()
    async def refund(ctx: Context, order_id: str, amount: str, currency: str, note: str = "") -> Refund:
        """Pay money back."""
        meta = ctx.request_context.meta or {}
        refuse_if_late(meta)
        began = await db.pool.fetchval("SELECT clock_timestamp()")
        await db.one("SELECT 1 FROM orders WHERE id = $1 AND currency = $2", order_id, currency)
        await asyncio.sleep(await db.pool.fetchval("SELECT slow_ms / 1000.0::float FROM trouble WHERE service = 'payments'"))
        # The caller's key is kept with the refund, so that it can be found by it.
        made = await db.pool.fetchval(
            "INSERT INTO refund (order_id, amount, reference, began) VALUES ($1, $2, $3, $4) RETURNING id",
            order_id,
            Decimal(amount),
            meta.get("idempotency-key"),
            began,
        )
        await LostAnswer.perhaps("payments")
        return Refund(refund_id=made, order_id=order_id, amount=amount)

    @server.tool()
    async def refunds(order_id: str) -> References:
        """What was paid back for an order, by the keys of the callers."""
        rows = await db.pool.fetch(
            "SELECT coalesce(reference, '') AS reference, amount FROM refund WHERE order_id = $1", order_id
        )
        return References(refunds=[Reference(reference=row["reference"], amount=f"{row['amount']:.2f}") for row in rows])


class Customer(BaseModel):
    customer_id: int
    tenant: str
    account: str
    name: str
    email: str
    phone: str
    iban: str
    notes: str


class CustomerLine(BaseModel):
    customer_id: int
    tenant: str
    account: str
    name: str
    email: str


class CustomerList(BaseModel):
    customers: list[CustomerLine]


class Account(BaseModel):
    tenant: str
    account: str


def customers(server):
    @server.tool()
    async def get(customer_id: int) -> Customer:
        """A customer's record."""
        return Customer(**dict(await db.one("SELECT id AS customer_id, customer.* FROM customer WHERE id = $1", customer_id)))

    @server.tool()
    async def lookup(customer_id: int) -> Account:
        """Whose customer it is."""
        return Account(**dict(await db.one("SELECT tenant, account FROM customer WHERE id = $1", customer_id)))

    @server.tool()
    async def search(letters: str) -> CustomerList:
        """Customers whose name contains some letters, of every tenant: this old service knows no better."""
        rows = await db.pool.fetch(
            "SELECT id AS customer_id, customer.* FROM customer WHERE name ILIKE '%' || $1 || '%' ORDER BY id", letters
        )
        return CustomerList(customers=[CustomerLine(**dict(row)) for row in rows])


class ArticleLine(BaseModel):
    id: int
    title: str


class ArticleList(BaseModel):
    articles: list[ArticleLine]


class Article(BaseModel):
    id: int
    title: str
    body: str
    valid_until: str


class Validity(BaseModel):
    valid_until: str


def articles(server):
    @server.tool()
    async def search(words: str) -> ArticleList:
        """Find articles of the handbook by words in their title."""
        rows = await db.pool.fetch("SELECT id, title FROM article WHERE title ILIKE '%' || $1 || '%' ORDER BY id", words)
        return ArticleList(articles=[ArticleLine(**dict(row)) for row in rows])

    @server.tool()
    async def get(article_id: int) -> Article:
        """An article of the handbook."""
        row = await db.one("SELECT id, title, body, valid_until::text FROM article WHERE id = $1", article_id)
        return Article(**dict(row))

    @server.tool()
    async def lookup(article_id: int) -> Validity:
        """Until when an article holds."""
        row = await db.one("SELECT valid_until::text FROM article WHERE id = $1", article_id)
        return Validity(**dict(row))


class Sent(BaseModel):
    sent: bool


def mail(server):
    # What its vendor may change from one day to the next, without asking anybody.
    @server.tool(description=os.environ.get("ACME_MAIL_SAYS", "Send a mail, over SMTP."))
    async def send(to: str, subject: str, text: str) -> Sent:
        """Send a mail, over SMTP."""
        import smtplib  # noqa: PLC0415

        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "support@acme.example", to, subject
        message.set_content(text)

        def deliver():
            with smtplib.SMTP("127.0.0.1", int(os.environ["ACME_SMTP_PORT"])) as smtp:
                smtp.send_message(message)

        await asyncio.to_thread(deliver)
        await LostAnswer.perhaps("mail")
        return Sent(sent=True)


class Keys(BaseModel):
    keys: list[str]


class Setting(BaseModel):
    key: str
    value: str


class Removed(BaseModel):
    removed: bool


def config(server, environment):
    @server.tool(name="list")
    async def list_keys() -> Keys:
        """The keys that are set."""
        rows = await db.pool.fetch("SELECT key FROM config WHERE environment = $1 ORDER BY key", environment)
        return Keys(keys=[row["key"] for row in rows])

    @server.tool()
    async def get(key: str) -> Setting:
        """The value of a key."""
        row = await db.one("SELECT key, value FROM config WHERE environment = $1 AND key = $2", environment, key)
        return Setting(**dict(row))

    @server.tool(name="set")
    async def set_key(key: str, value: str) -> Setting:
        """Set a key."""
        await db.pool.execute(
            "INSERT INTO config VALUES ($1, $2, $3) ON CONFLICT (environment, key) DO UPDATE SET value = $3",
            environment,
            key,
            value,
        )
        return Setting(key=key, value=value)

    @server.tool()
    async def delete(key: str) -> Removed:
        """Remove a key."""
        done = await db.pool.execute("DELETE FROM config WHERE environment = $1 AND key = $2", environment, key)
        return Removed(removed=done == "DELETE 1")


class Guarded:
    """Asks for the credential, and breaks off a call or loses its answer when it was told to."""

    def __init__(self, app, name, token):
        self.app = app
        self.name = name
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != self.expected:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def sending(message):
            if message["type"] == "http.response.start" and LostAnswer.pending:
                LostAnswer.pending = False
                # The line breaks here: the money has moved, and nobody is told.
                raise ConnectionResetError("the answer got lost")
            await send(message)

        if scope["type"] == "http" and await self.is_sick():
            await break_off(send)
            return
        try:
            await self.app(scope, receive, sending)
        except ConnectionResetError:
            await break_off(send)

    async def is_sick(self):
        """Whether this service answers nobody just now; it counts who asks."""
        knocked = "UPDATE trouble SET knocks = knocks + 1 WHERE service = $1 AND sick"
        return await db.pool.execute(knocked, self.name) == "UPDATE 1"


async def break_off(send):
    """Promise an answer, and end the line instead."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def make(name, database_url, token):
    """The ASGI application of a service."""
    server = MCPServer(name, log_level="ERROR")
    if name.startswith("config_"):
        config(server, name.removeprefix("config_"))
    else:
        {"tickets": tickets, "payments": payments, "customers": customers, "mail": mail, "articles": articles}[name](server)
    app = server.streamable_http_app(json_response=True)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running):
        db.pool = await asyncpg.create_pool(database_url, min_size=1, max_size=8)
        async with inner(running) as state:
            yield state
        await db.pool.close()

    app.router.lifespan_context = lifespan
    return Guarded(app, name, token)


def serve(name, port, database_url):
    token = os.environ[f"ACME_{name.upper()}_TOKEN"]
    # An answer that is lost on purpose is no error of the server's.
    logging.getLogger("mcp.server.streamable_http").setLevel(logging.CRITICAL)
    uvicorn.run(
        make(name, database_url, token), host="127.0.0.1", port=int(port), log_level="critical", timeout_graceful_shutdown=1
    )
