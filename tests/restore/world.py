"""Gateways on a database that is set back to an earlier point, before payments that keep a book of their own."""

from contextlib import asynccontextmanager

import asyncpg

from interlock.app.restoring import Restoring
from interlock.core.who import Person
from tests.conftest import urls
from tests.doubt.world import RELEASE, Payments, one_round_at_a_time
from tests.support.shop import counter

BOSS = Person(user="oki", tenant="acme", roles=("Operator",))


class Bank:
    """`backup` keeps the database as it is now, `set_back` puts that in its place; gateways find it where they found the other."""

    def __init__(self, postgres, database_urls, state):
        self._postgres, self._urls, self.state = postgres, database_urls, state
        self._copies = 0
        self._kept = None
        self.tool = Payments()
        self.files = RELEASE

    @property
    def database_url(self):
        return self._urls.app

    @property
    def owner_url(self):
        return self._urls.owner

    @property
    def auditor_url(self):
        return self._urls.auditor

    @asynccontextmanager
    async def gateway(self, state=None):
        async with counter(self._urls.app, state or self.state, shop=self.tool, files=self.files) as made:
            made.tool = self.tool
            one_round_at_a_time(made)
            yield made

    async def backup(self):
        self._copies += 1
        self._kept = f"{self._urls.name}_kept{self._copies}"
        await self._postgres.execute(f"CREATE DATABASE {self._kept} TEMPLATE {self._urls.name} STRATEGY FILE_COPY")

    async def set_back(self):
        await self._postgres.execute(f"DROP DATABASE {self._urls.name} WITH (FORCE)")
        await self._postgres.execute(
            f"CREATE DATABASE {self._urls.name} TEMPLATE {self._kept} STRATEGY FILE_COPY OWNER interlock_owner"
        )
        self._urls = urls(self._postgres, self._urls.name)

    async def forget_everything(self):
        """Another database stands there under the same name: empty, and not the same."""
        owner = await asyncpg.connect(self._urls.owner)
        await owner.execute("TRUNCATE claim; UPDATE database_identity SET database_id = gen_random_uuid()")
        await owner.close()

    async def stands_empty(self):
        """An empty database stands there under the same name, for a backup to be loaded into."""
        await self._postgres.execute(f"DROP DATABASE {self._urls.name} WITH (FORCE)")
        await self._postgres.execute(f"CREATE DATABASE {self._urls.name} OWNER interlock_owner")

    async def close(self):
        if self._kept:
            await self._postgres.drop(self._kept)


async def made_good(made, *, all_marks=True, folders=None):
    """Read the marks, as `interlock db reconcile` does."""
    system = made.system
    restoring = Restoring(system.marking.restorations, system.desk, system.ids)
    secrets = system.keys.all_private_bytes("mark")
    return await restoring.reconcile(folders or [system.settings.state / "mark"], secrets, all_marks=all_marks)


async def resumed(made, *, named=False):
    """A person lets writes go on, and this gateway knows; `named`: they say that they mean the release in force."""
    release = (await made.system.controls.epochs())[1] if named else ""
    answer = await made.system.plane.resume(BOSS, "restored", "the books agree", release)
    await made.system.keeper.renew()
    return answer
