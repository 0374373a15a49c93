"""Start and stop the company. `python -m examples.acme.world` keeps it standing and says how to put Interlock in front of it."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncpg

from examples.acme.data import SCHEMA, SEED
from examples.acme.services import NAMES
from interlock.store.embedded import server as embedded

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
START_TIMEOUT_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """The company's processes and its database, under one folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = []
        self.ports = {}
        # What people do today: one key for everything, and the agent holds it.
        self.tokens = {f"ACME_{name.upper()}_TOKEN": secrets.token_urlsafe(16) for name in NAMES}

    async def start(self):
        self.lease = embedded.acquire(self.folder / "company")
        # The company's database is its own, so its owner may be anyone; here it is the server's owner role.
        self.database_url = self.lease.running.owner_url
        connection = await asyncpg.connect(self.database_url)
        try:
            if not await connection.fetchval("SELECT to_regclass('ticket')"):
                await connection.execute(SCHEMA + SEED)
        finally:
            await connection.close()
        smtp_port = free_port()
        environment = {**os.environ, **self.tokens, "ACME_SMTP_PORT": str(smtp_port)}
        self._spawn(["examples.acme.sink", str(smtp_port), self.database_url], environment)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.starter = self._spawn(["examples.acme.starter", self.database_url], environment, **pipes)
        for name in NAMES:
            self.ports[name] = free_port()
            self._order("start", name, self.ports[name], {})
        self._wait([smtp_port, *self.ports.values()])

    def restart(self, name, **more):
        """Start a service anew, with more in its environment: its vendor has updated it."""
        self._order("stop", name)
        self._order("start", name, self.ports[name], more)
        self._wait([self.ports[name]])

    def _order(self, *words):
        with contextlib.suppress(BrokenPipeError):
            self.starter.stdin.write(json.dumps(words) + "\n")
            self.starter.stdin.flush()
        if not self.starter.stdout.readline():
            self._give_up()

    def _give_up(self):
        self.stop()
        sys.exit("a service of the company did not start; look at the messages above")

    def _spawn(self, words, environment, *, stdin=subprocess.DEVNULL, **more):
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, stdin=stdin, **more)
        self.processes.append(process)
        return process

    def _wait(self, ports):
        deadline = time.monotonic() + START_TIMEOUT_S
        for port in ports:
            while True:
                with socket.socket() as probe:
                    probe.settimeout(1)
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes):
                    self._give_up()
                time.sleep(0.05)

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}/mcp"

    def variables(self):
        return {f"{name.upper()}_URL": self.url(name) for name in NAMES}

    def write_variables(self):
        path = self.folder / "variables"
        path.write_text("".join(f"{name}={value}\n" for name, value in self.variables().items()))
        return path

    async def count(self, sql, *args):
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetchval(sql, *args)
        finally:
            await connection.close()

    async def execute(self, sql, *args):
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(sql, *args)
        finally:
            await connection.close()

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (self.starter.stdin, self.starter.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.processes.clear()
        self.lease.release()


async def main():
    world = World(sys.argv[1] if len(sys.argv) > 1 else ".demo/world")
    await world.start()
    tokens = " ".join(f"{name}={value}" for name, value in world.tokens.items())
    print("The company stands. In another terminal:\n")
    print(f"  export {tokens}")
    print(
        f"  interlock up --release {HERE / 'release'} --directory {HERE / 'directory.yaml'} --variables {world.write_variables()}\n"
    )
    print("Ctrl-C ends it.", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    world.stop()


if __name__ == "__main__":
    import asyncio

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    asyncio.run(main())
