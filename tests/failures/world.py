"""A tool with one operation of each effect, whose every execution is counted, and ways to break what is around it."""

from contextlib import asynccontextmanager

import asyncpg
import msgspec

from interlock.app.system import Settings, running
from interlock.gateway.messages import Proposal, Refusal, Returned
from interlock.tools.python import PythonFunction, PythonTools
from tests.support.shop import FILES, OPERATOR, Counter, Shop

EFFECTS = {"read": "look", "write": "put", "destructive": "drop", "egress": "tell"}
EVERY = (*EFFECTS, "control")
TOOL = "operations:\n" + "".join(
    f"  {name}: {{effects: [{effect}], input: {{item: string}}, output: {{n: integer}}, timeout_ms: 8000, reviewed: {{by: a}}}}\n"
    for effect, name in EFFECTS.items()
)
OPERATIONS = ", ".join(f"act.{name}" for name in EFFECTS.values())
ASKED = "hm"


def files(source='python: "act:"'):
    agents = FILES["agents.yaml"].replace("shop.stock,", f"shop.stock, {OPERATIONS},")
    return {**FILES, "agents.yaml": agents, "tools/act.yaml": f"{source}\n{TOOL}"}


class World(Counter):
    """A gateway, and a superuser's connection to its database that no fault touches but that of the server."""

    def __init__(self, system, shop, executed, urls, postgres):
        super().__init__(system, shop)
        self.executed, self.urls, self.postgres = executed, urls, postgres
        self.answers = {}

    async def attempt(self, session, effect):
        sent = msgspec.json.encode({"item": ASKED})
        return await self.gate.call(session, Proposal(operation=f"act.{EFFECTS[effect]}", arguments=sent))

    async def kill(self):
        return await self.system.plane.kill(OPERATOR, "tool:shop", "a fault")

    async def sql(self, statement):
        """As the superuser, in this database, whatever it is set to."""
        connection = await asyncpg.connect(self.urls.superuser, server_settings={"default_transaction_read_only": "off"})
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def cut(self):
        """Every connection of the gateways."""
        await self.postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.urls.name}' AND usename = 'interlock_app'"
        )

    async def accounted(self):
        """INVARIANT: whatever was executed was claimed and decided on record before."""
        rows = await self.sql(
            "SELECT c.operation, count(*) AS n FROM claim c JOIN event e ON e.call_id = c.call_id AND e.kind = 'call.claimed' "
            "GROUP BY c.operation"
        )
        claimed = {row["operation"]: row["n"] for row in rows}
        for effect, name in EFFECTS.items():
            assert self.executed.count(effect) <= claimed.get(f"act.{name}", 0), (self.executed, claimed)

    async def is_stopped(self):
        return bool(await self.sql("SELECT FROM control WHERE scope = 'tool:shop' AND halted"))


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


def done(answer):
    assert isinstance(answer, Returned), answer


@asynccontextmanager
async def world(urls, postgres, state, release=None):
    executed, worlds = [], []

    def made(effect):
        async def act(item):
            executed.append(effect)
            return worlds[0].answers.get(effect, {"n": len(executed)})

        return PythonFunction(function=act)

    functions = {f"act:{name}": made(effect) for effect, name in EFFECTS.items()}
    shop = Shop()
    settings = Settings(
        state=state, database_url=urls.app, environment="test", release_files=release or files(), trust_dev_issuer=True
    )
    async with running(settings, python=PythonTools({**shop.functions(), **functions})) as system:
        worlds.append(World(system, shop, executed, urls, postgres))
        yield worlds[0]
