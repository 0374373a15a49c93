"""A server made with the SDK that offers everything, Interlock in front of it, and the SDK's own clients of both revisions."""

import asyncio
import contextlib

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from bench.conformance import everything
from bench.conformance.release import TOOL, contracts
from interlock.app.plane import RecordedSessions
from interlock.app.system import Settings, running
from interlock.core.who import Lineage, Session
from interlock.server.router import Router
from interlock.store.sessions import Sessions
from tests.support.listening import listening
from tests.support.patience import patient_http

STATELESS, STATEFUL = "2026-07-28", "2025-11-25"


class Asked:
    """What a client was asked, told and shown, and what it answers."""

    def __init__(self):
        self.asked, self.logs, self.progress, self.heard = [], [], [], asyncio.Queue()
        self.says = {"name": "Ana", "username": "ana", "email": "ana@acme.example", "ok": True}

    async def elicited(self, context, params):
        self.asked.append(("elicitation", params.message))
        return types.ElicitResult(action="accept", content=self.says)

    async def sampled(self, context, params):
        self.asked.append(("sampling", params.messages[0].content.text))
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="Paris"), model="m", stop_reason="endTurn"
        )

    async def roots(self, context):
        self.asked.append(("roots", ""))
        return types.ListRootsResult(roots=[types.Root(uri="file:///work", name="work")])

    async def logged(self, params):
        self.logs.append(params.data)

    async def progressed(self, done, total, message):
        self.progress.append((done, total, message))

    async def hear(self, message):
        self.heard.put_nowait(message)


class Edge:
    """Interlock in front of the server."""

    def __init__(self, system, port, upstream, settings):
        self.system, self.port, self.upstream, self.settings = system, port, upstream, settings

    async def token(self, user="ana"):
        session = Session(
            session_id=self.system.ids.new("ses"),
            lineage=Lineage(tenant="acme", environment="test", agent="bot", user=user),
            task="work",
            roles=("User",),
            attributes={},
            expires_at_us=self.system.clock.wall_us() + 3_600_000_000,
        )
        await RecordedSessions(Sessions(self.system.database), self.system.ids).open(session, "")
        return self.system.plane._tokens.issue(session), session

    @contextlib.asynccontextmanager
    async def client(self, mode, *, path=f"/mcp/{TOOL}", token=None, offers=True, **more):
        """A client that offers to be asked, and what became of that."""
        told = Asked()
        token = token or (await self.token())[0]
        can = {"elicitation_callback": told.elicited, "sampling_callback": told.sampled, "list_roots_callback": told.roots}
        async with (
            patient_http(headers={"authorization": f"Bearer {token}"}) as http,
            Client(
                streamable_http_client(f"http://127.0.0.1:{self.port}{path}", http_client=http),
                mode=mode if mode == STATELESS else "legacy",
                logging_callback=told.logged,
                message_handler=told.hear,
                **(can if offers else {}),
                **more,
            ) as client,
        ):
            yield client, told

    @contextlib.asynccontextmanager
    async def another(self):
        """The port of another process on the same database, with the same keys."""
        async with running(self.settings) as system:
            router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
            async with listening(router) as port:
                yield port

    async def events(self, session):
        return [event.kind for event in await self.system.traces.events(session.session_id)]


def files(port, protocol, operations=None):
    named = contracts() if operations is None else operations
    on = [f"{TOOL}.{name}" for name in named]
    return {
        "release.yaml": "name: edge\n",
        "tasks.yaml": "work: {purpose: try, open_to: [User], agents: [bot]}\n",
        "agents.yaml": everything.json.dumps(
            {
                "bot": {
                    "test": {"issuer": "interlock-dev", "subject": "bot"},
                    "grants": [{"on": on, "for": {"roles": ["User"], "task": "work"}, "data": {"max": "pii"}}],
                }
            }
        ),
        f"tools/{TOOL}.yaml": everything.json.dumps(
            {"url": f"http://127.0.0.1:{port}/mcp", "protocol": protocol, "operations": named}
        ),
    }


@pytest.fixture
def edge(database_urls, tmp_path):
    """Make one: `async with edge(protocol) as it`."""

    @contextlib.asynccontextmanager
    async def made(protocol, operations=None):
        async with listening(everything.make(), http="auto") as upstream:
            settings = Settings(
                state=tmp_path / "state",
                database_url=database_urls.app,
                environment="test",
                release_files=files(upstream, protocol, operations),
            )
            async with running(settings) as system:
                router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
                async with listening(router) as port:
                    yield Edge(system, port, upstream, settings)

    return made
