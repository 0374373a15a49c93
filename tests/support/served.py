"""The shop behind the real server on a real port, with people and agents of a development directory in front of it."""

import asyncio
import contextlib
import json
import socket

import uvicorn
from uvicorn.server import ServerState

from interlock.cli.caller import Caller
from interlock.server.http import BoundedHttp
from interlock.server.router import Router
from tests.server.standin import stop

USERS = {
    "ana": ["Staff"],
    "ben": ["Staff"],
    "lea": ["Lead"],
    "oki": ["Operator"],
    "pat": ["Platform"],
    "sam": ["Security"],
    "sue": ["Security"],
}
DIRECTORY = {
    "users": {name: {"tenant": "acme", "roles": roles, "attributes": {"teams": ["north"]}} for name, roles in USERS.items()},
    "agents": {name: {"subjects": {"test": name}} for name in ("bot", "idle")},
}


class Served:
    """One process on a port of its own. `down` and `up` take its door away and give it back."""

    def __init__(self, shop, state):
        self.shop, self.state = shop, state
        self.directory = state / "directory.yaml"
        self.directory.write_text(json.dumps(DIRECTORY))
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def as_(self, user):
        return Caller(as_=user, environment="test", server=self.url, state=self.state, directory=self.directory)

    async def up(self):
        system = self.shop.system
        self._router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(self._router, http=BoundedHttp, log_config=None, access_log=False)
        config.load()
        self._connections = ServerState()

        def protocol():
            return BoundedHttp(config=config, server_state=self._connections, app_state={})

        self._server = await asyncio.get_running_loop().create_server(protocol, sock=listening)

    async def down(self):
        self._server.close()
        for connection in list(self._connections.connections):
            connection.transport.abort()
        await asyncio.gather(*self._connections.tasks, return_exceptions=True)
        await stop(self._router)


@contextlib.asynccontextmanager
async def served(shop, state):
    """Serve until the end of the block."""
    made = Served(shop, state)
    await made.up()
    try:
        yield made
    finally:
        await made.down()
