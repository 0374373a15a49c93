"""A process on a real port, served as `interlock up` serves it, that a test tells to leave."""

import asyncio
import contextlib
import signal
import socket

import asyncpg
import msgspec
import pytest
import uvicorn

from interlock.app.leaving import LeaveRules
from interlock.app.plane import RecordedSessions
from interlock.app.system import Settings, running
from interlock.core.who import Lineage, Session
from interlock.server.http import BoundedHttp
from interlock.server.router import Router
from interlock.server.serving import PoliteServer
from interlock.store.sessions import Sessions
from interlock.tools.python import PythonTools
from tests.support.patience import PATIENCE_S, patient_http
from tests.support.shop import FILES, STAFF, Shop

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
QUIET = LeaveRules(within_s=PATIENCE_S, notice_s=0)


class House:
    """One process: told to leave by `leave`, gone when `gone` is done."""

    def __init__(self, system, shop, server, port):
        self.system, self.shop, self.server = system, shop, server
        self.url, self.port = f"http://127.0.0.1:{port}", port
        self.gone = asyncio.get_running_loop().create_future()

    def leave(self, number=signal.SIGTERM):
        self.server.leave(number)

    async def token(self):
        session = Session(
            session_id=self.system.ids.new("ses"),
            lineage=Lineage(tenant="acme", environment="test", agent="bot", user="ana"),
            task="selling",
            roles=STAFF,
            attributes={"teams": ("north",)},
            expires_at_us=self.system.clock.wall_us() + 3_600_000_000,
        )
        await RecordedSessions(Sessions(self.system.database), self.system.ids).open(session, "")
        return self.system.plane._tokens.issue(session)

    async def get(self, path, **headers):
        async with patient_http() as http:
            return await http.get(self.url + path, headers=headers)

    async def call(self, token, operation, http=None, **arguments):
        """The HTTP answer to a `tools/call`."""
        named = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": f"shop.{operation}"}
        params = {"name": f"shop.{operation}", "arguments": arguments, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        accepted = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        headers = {"authorization": f"Bearer {token}", **accepted, **named}
        async with contextlib.AsyncExitStack() as stack:
            http = http or await stack.enter_async_context(patient_http())
            return await http.post(self.url + "/mcp", content=msgspec.json.encode(body), headers=headers)


@pytest.fixture
def house(database_urls, tmp_path):
    """`async with house(rules) as made`: at the end of the block it leaves, if it has not been told to before."""

    @contextlib.asynccontextmanager
    async def opened(rules=QUIET, shop=None, files=FILES):
        shop = shop or Shop()
        settings = Settings(
            state=tmp_path, database_url=database_urls.app, environment="test", release_files=files, leaving=rules
        )
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        async with running(settings, python=PythonTools(shop.functions())) as system:
            started = asyncio.Event()

            async def say():
                started.set()

            router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
            config = uvicorn.Config(router, http=BoundedHttp, log_config=None, access_log=False)
            server = PoliteServer(config, system.leaving, answer_now=system.gate.calls.answer_now, started=say)
            server.capture_signals = contextlib.nullcontext
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            await started.wait()
            made = House(system, shop, server, port)
            try:
                yield made
            finally:
                if not system.leaving.has_begun():
                    made.leave(signal.SIGINT)
                await asyncio.wait_for(serving, PATIENCE_S)
        made.gone.set_result(None)

    return opened


@pytest.fixture
def claims(database_urls):
    """What the database says of the claims."""

    async def found():
        connection = await asyncpg.connect(database_urls.superuser)
        try:
            return [row["state"] for row in await connection.fetch("SELECT state FROM claim ORDER BY claimed_at")]
        finally:
            await connection.close()

    return found


class ManualClock:
    """Time that stands still until a test moves it."""

    def __init__(self):
        self.now_s = 1_000.0

    def advance(self, by_s):
        self.now_s += by_s

    def monotonic_s(self):
        return self.now_s
