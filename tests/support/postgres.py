"""One embedded Postgres per test worker, and a database cloned from a migrated template for every test that asks."""

import itertools
import shutil
import tempfile
from pathlib import Path

import asyncpg

from interlock.store.embedded import server
from interlock.store.embedded.layout import layout_of
from interlock.store.migrate import migrate

_numbers = itertools.count(1)

# Databases are copied as files, which writes no log; little log is kept, and nothing is tidied up behind a test's back.
SETTINGS = {"max_wal_size": "128MB", "autovacuum": "off"}


class TestServer:
    """The worker's server. fsync is off; crash tests start their own."""

    __test__ = False

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="il-"))
        self.folder.chmod(0o755)
        self.lease = server.acquire(self.folder, durable=False)
        self.layout = self.lease.layout
        self.has_template = False

    def url(self, role, database):
        return self.layout.url(role, database)

    async def execute(self, sql):
        connection = await asyncpg.connect(self.lease.running.superuser_url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def empty(self):
        name = f"empty{next(_numbers)}"
        await self.execute(f"CREATE DATABASE {name} OWNER {server.OWNER}")
        return name

    async def clone(self):
        if not self.has_template:
            for name, value in SETTINGS.items():
                await self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            await self.execute("SELECT pg_reload_conf()")
            await self.execute(f"CREATE DATABASE template_interlock OWNER {server.OWNER}")
            await migrate(self.url(server.OWNER, "template_interlock"))
            self.has_template = True
        name = f"test{next(_numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE template_interlock STRATEGY FILE_COPY OWNER {server.OWNER}")
        return name

    async def drop(self, name):
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self):
        self.lease.release()
        forget(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def forget(state):
    """Stop the server of a state folder and remove its data, wherever that lies."""
    server.stop(state)
    shutil.rmtree(layout_of(state).cluster, ignore_errors=True)


def forget_all(folder):
    """The same for every state folder below this one."""
    for told in list(folder.rglob("postgres.json")):
        forget(told.parent)
