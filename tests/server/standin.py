"""The protocol layer alone: real uvicorn and real sockets, and in place of the gate something that only notes what came."""

import asyncio
import contextlib
import json

import msgspec

from interlock.app.plane import ReleaseName, Status
from interlock.core.changes import Changes
from interlock.core.claim import Epochs
from interlock.core.contract import Kind
from interlock.core.who import Lineage, Person, Session
from interlock.gateway.messages import NOBODY, Found, Returned, VisibleOperation
from interlock.gateway.streams import OpenStreams
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.server.router import Router
from interlock.store.errors import StoreUnavailableError
from tests.support.listening import listening
from tests.support.patience import PATIENCE_S, patient_http

STATELESS, STATEFUL = "2026-07-28", "2025-11-25"
META = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
LISTED = VisibleOperation(
    operation="shop.pay",
    title="Pay",
    description="Pays an order.",
    input_schema='{"type":"object","properties":{"n":{"type":"integer"}}}',
    output_schema=None,
    read_only=False,
    destructive=False,
    idempotent=True,
    open_world=False,
)


def message(answer):
    """The one message of an answer: JSON, or the last event of a stream."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()
    return json.loads([line[5:] for line in answer.text.splitlines() if line.startswith("data:")][-1])


class StandIn:
    """Gate and plane of a process that decides nothing. Its tokens are `token-<name>`."""

    def __init__(self):
        self.proposals = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.broken = None
        self.callers = []
        self.changes = Changes()
        self.streams = OpenStreams(self)

    def session(self, token):
        if not token.startswith("token-"):
            raise TokenRefusedError(TokenCode.MALFORMED, "no token of ours")
        lineage = Lineage(tenant="acme", environment="test", agent="bot", user=token)
        return Session(session_id=f"ses_{token}", lineage=lineage, task="selling", roles=(), expires_at_us=2**60)

    async def session_of(self, token, task=""):
        return self.session(token)

    async def call(self, session, proposal, caller=NOBODY):
        self.callers.append(caller)
        self.proposals.append((session.lineage.user, proposal))
        self.entered.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.broken is not None:
            raise self.broken
        return Returned(call_id="call_1", content=({"type": "text", "text": "done"},), structured=None, is_error=False)

    async def visible(self, session):
        if self.broken is not None:
            raise self.broken
        return (LISTED,)

    async def over(self, sessions):
        return frozenset()

    async def find(self, session, kind, name, tool=None):
        if self.broken is not None:
            raise self.broken
        return Found(operation=f"shop.{name}") if kind is Kind.TOOL else None

    async def person(self, token):
        if token != "person":
            raise TokenRefusedError(TokenCode.MALFORMED, "no token of ours")
        return Person(user="oki", tenant="acme", roles=("Operator",))

    logins = None

    async def issue(self, form, resource):
        return {"task": form["task"], "resource": resource}

    def jwks(self):
        return {"keys": []}

    async def status(self, person):
        epochs = Epochs(control=0, release=0, revocation=0)
        name = ReleaseName(name="shop", digest="sha256:0")
        return Status(release=name, epochs=epochs, controls=(), processes=(), in_flight={})

    async def kill(self, person, scope, reason):
        return {"stopped": scope}

    async def ready(self):
        if self.broken is not None:
            raise self.broken
        return {"status": "ready"}


class Door:
    """The server as a client on the network sees it."""

    def __init__(self, port, gate):
        self.port, self.gate, self.url = port, gate, f"http://127.0.0.1:{port}"

    def http(self):
        return patient_http()

    async def ask(self, method, path, body=b"", headers=()):
        async with self.http() as http:
            content = body if isinstance(body, bytes) else msgspec.json.encode(body)
            return await http.request(method, self.url + path, content=content, headers=list(headers))

    async def mcp(self, body, *headers, token="token-ana", method="POST", version=STATELESS):
        sent = [
            ("authorization", f"Bearer {token}"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ]
        if version:
            sent.append(("mcp-protocol-version", version))
        return await self.ask(method, "/mcp", body, [*sent, *headers])

    async def pay(self, arguments=b"{}", *headers, meta=META, name="shop.pay", token="token-ana"):
        params = {"name": "shop.pay", "arguments": msgspec.Raw(arguments), "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await self.mcp(body, ("mcp-method", "tools/call"), ("mcp-name", name), *headers, token=token)

    async def kill(self):
        body = {"scope": "fleet", "reason": "test"}
        return await self.ask("POST", "/v1/controls/kill", body, [("authorization", "Bearer person")])

    async def opened(self, token="token-ana"):
        """The id of a new MCP session of the older revision."""
        return (await self.mcp(INITIALIZE, token=token, version=STATEFUL)).headers["mcp-session-id"]

    async def stateful(self, body, opened, *headers, **more):
        return await self.mcp(body, ("mcp-session-id", opened), *headers, version=STATEFUL, **more)

    async def bytes(self, *parts):
        """What the server answers to these bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            async with asyncio.timeout(PATIENCE_S):
                return await read_all(reader)
        finally:
            writer.close()


async def read_all(reader):
    found = b""
    try:
        while chunk := await reader.read(65536):
            found += chunk
    except ConnectionError:
        pass
    return found


@contextlib.asynccontextmanager
async def door(**more):
    gate = StandIn()
    router = Router(gate=gate, session_of=gate.session, plane=gate)
    async with listening(router, **more) as port:
        try:
            yield Door(port, gate)
        finally:
            gate.go_on.set()


UNAVAILABLE = StoreUnavailableError("password of the database")
