"""The shop behind the real server on a real port, with people and agents of a development directory in front of it."""

import contextlib
import json

from interlock.cli.caller import Caller
from interlock.server.router import Router
from tests.support.listening import bound, listening

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
        self.router = Router(gate=system.gate, session_of=system.plane.session, plane=system.plane)
        self._serving = contextlib.AsyncExitStack()
        self.port = await self._serving.enter_async_context(listening(self.router, bound(self.port)))

    async def down(self):
        await self._serving.aclose()


@contextlib.asynccontextmanager
async def served(shop, state):
    """Serve until the end of the block."""
    made = Served(shop, state)
    await made.up()
    try:
        yield made
    finally:
        await made.down()
