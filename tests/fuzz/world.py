"""Two gateways on one real database that the state machine makes calls, crashes and cuts; kept from one example to the next."""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import asyncpg
import msgspec

from interlock.app.plane import RecordedSessions
from interlock.core.who import Parent
from interlock.identity.handing_down import MAX_CHAIN_AGENTS
from interlock.ledger.reader import verify_database
from interlock.store.embedded import server
from interlock.store.errors import StoreUnavailableError
from interlock.store.sessions import Sessions
from tests.fuzz.till import OPEN, Till
from tests.support.patience import until
from tests.support.shop import OPERATOR, counter

STORIES = """
SELECT c.claim_id, c.call_id, c.operation, c.state,
       count(*) FILTER (WHERE e.kind = 'call.claimed') AS claimed,
       count(*) FILTER (WHERE e.kind IN ('call.settled', 'claim.orphaned')) AS ended
FROM claim c LEFT JOIN (event e JOIN event_body b USING (chain_id, seq))
  ON e.call_id = c.call_id AND (b.body::jsonb ->> 'claim_id' = c.claim_id OR e.kind = 'claim.orphaned')
GROUP BY c.claim_id
"""
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'interlock_app'"


async def tried(act):
    """Whether the database answered."""
    try:
        await act
    except StoreUnavailableError:
        return False
    return True


class Gateway:
    """One process of the composition, which can be made to vanish."""

    def __init__(self, shop, stack):
        self.shop, self.stack, self.is_dead = shop, stack, False

    async def die(self, sql):
        """Nothing of it reaches the database any more, and everybody sees that it is gone."""
        self.is_dead = True
        self.shop.system.database.pool().terminate()
        await self.shop.system.keeper.stop()
        await sql.execute("DELETE FROM process WHERE process_id = $1", self.shop.system.process_id)


class World:
    """`till` is the tool of both; `halted` are the scopes whose kill has answered and whose end nobody has asked for.

    `ended` are the sessions whose end has been answered, `chains` the sessions that an attempt hangs on: its own, and those above it.
    """

    def __init__(self, postgres):
        self.postgres = postgres
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="il-fuzz-"))
        self.halted, self.objections, self.examples, self.attempts = set(), [], 0, 0
        self.ended, self.chains = set(), {}
        self.till = Till(self._entered)
        self.gateways = {}
        self.run(self._set_up())

    def run(self, act):
        return self.loop.run_until_complete(act)

    async def _set_up(self):
        self.database = await self.postgres.clone()
        self.sql = await asyncpg.connect(self.postgres.url("postgres", self.database))
        await self._start("a", OPEN)
        await self._start("b", None)

    async def _start(self, name, files=None):
        stack = contextlib.AsyncExitStack()
        url = self.postgres.url(server.APP, self.database)
        shop = await stack.enter_async_context(counter(url, self.folder / "state", self.till, files))
        self.gateways[name] = Gateway(shop, stack)

    async def alive(self, name):
        """The gateway of that name; in place of a dead one there is a new one."""
        if self.gateways[name].is_dead:
            await self.gateways[name].stack.aclose()
            await self._start(name)
        return self.gateways[name].shop

    async def below(self, name, above):
        """A session of the helper below another; None where none may be opened."""
        system = (await self.alive(name)).system
        lineage = above.lineage
        child = msgspec.structs.replace(
            above,
            session_id=system.ids.new("ses"),
            lineage=msgspec.structs.replace(lineage, agent="helper"),
            parents=(Parent(session_id=above.session_id, agent=lineage.agent), *above.parents),
        )
        opened = await RecordedSessions(Sessions(system.database), system.ids).hand_down(child, "", 20)
        return child if opened == "opened" and len(child.parents) < MAX_CHAIN_AGENTS else None

    async def plane(self, name):
        return (await self.alive(name)).system.plane

    def _entered(self, attempt, operation):
        """The tool's own view: somebody begins to execute.

        INVARIANT: nothing begins in a scope whose kill has answered, nor for a session that had ended, or below one.
        """
        if stopped := sorted(self.halted & {"fleet", "tool:shop", "agent:bot", "tenant:acme", f"operation:shop.{operation}"}):
            self.objections.append(f"attempt {attempt} began {operation} while {stopped} was stopped")
        if ended := sorted(self.ended & set(self.chains.get(attempt, ()))):
            self.objections.append(f"attempt {attempt} began {operation} after {ended} had ended")

    async def cut(self):
        """Every connection of the gateways."""
        await self.sql.execute(CUT)

    async def beating(self, act):
        """Do something that waits for the other gateway's heartbeat, and let hearts beat quickly."""
        working = asyncio.ensure_future(act)
        while not working.done():
            for gateway in self.gateways.values():
                if not gateway.is_dead:
                    await tried(gateway.shop.system.heartbeat())
            await asyncio.wait({working}, timeout=0.01)
        return working.result()

    async def as_new(self):
        """Nothing is stopped and the first release is in force, for the next example."""
        self.examples += 1
        plane = await self.plane("a")
        for scope in sorted(self.halted):
            self.halted.discard(scope)
            await until(lambda scope=scope: tried(plane.resume(OPERATOR, scope, "the next example")))
        await until(lambda: tried(self.beating(plane.releases.put_in_force(dict(OPEN), by="the machine"))))

    async def judge(self):
        """A living gateway finds what the dead have left; then each execution and each claim is accounted for."""
        for name in "ab":
            await self.alive(name)
        system = self.gateways["a"].shop.system
        await until(lambda: tried(system.heartbeat()))  # connections that were cut are noticed by whoever uses them next
        await until(lambda: tried(system.sign_heads()))
        rows = await self.sql.fetch(STORIES)
        claims = Counter(row["operation"] for row in rows)
        executed = Counter(f"shop.{name}" for _, name, _ in self.till.executed)
        assert all(count <= claims[name] for name, count in executed.items()), (executed, claims)
        for row in rows:
            assert row["state"] != "claimed", dict(row)
            assert row["claimed"] == 1, dict(row)
            assert row["ended"] >= 1, dict(row)
        auditor = self.postgres.url(server.AUDITOR, self.database)
        report = await verify_database(auditor, system.keys.public_bytes("heads"), None)
        assert report.intact, report.findings

    def close(self):
        async def closing():
            for gateway in self.gateways.values():
                await gateway.stack.aclose()
            await self.sql.close()
            await self.postgres.drop(self.database)

        self.run(closing())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)
