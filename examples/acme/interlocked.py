"""Drive the real product as a user would: the command line, and an ordinary MCP client."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interlock.cli.common import dev_token

HERE = Path(__file__).parent
RELEASE, DIRECTORY = HERE / "release", HERE / "directory.yaml"


class Interlocked:
    """An `interlock up` process in front of the company, and the commands that go with it."""

    def __init__(self, state, world, environment="prod", port=0):
        self.state, self.environment = state, environment
        self.process = subprocess.Popen(
            [
                *self._command("up"),
                *("--release", RELEASE, "--directory", DIRECTORY, "--variables", world.write_variables()),
                *("--environment", environment, "--port", str(port), "--json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **world.tokens},
        )
        line = self.process.stdout.readline()
        if not line.startswith("{"):
            self.process.wait(10)
            sys.exit("interlock up did not start; look at the messages above")
        self.ready = json.loads(line)
        self.url = self.ready["url"]

    def _command(self, *words):
        return [sys.executable, "-m", "interlock", *words, "--state", str(self.state)]

    def run(self, *words, check=True):
        """Run a command; gives its output and exit code."""
        done = subprocess.run(self._command(*words), capture_output=True, text=True, check=False)
        if check and done.returncode:
            sys.exit(f"interlock {' '.join(map(str, words))} failed: {done.stderr}")
        return done.stdout, done.returncode

    def person(self, *words, user, check=True):
        """Run a command as a person."""
        place = ("--directory", str(DIRECTORY), "--server", self.url, "--environment", self.environment, "--as", user)
        return self.run(*words, *place, check=check)

    async def people(self, *commands):
        """Several people at their own terminals at once: `(user, *words)` each; gives what `run` gives, in their order."""
        ran = (asyncio.to_thread(self.person, *words, user=user, check=False) for user, *words in commands)
        return await asyncio.gather(*ran)

    def token(self, agent, user, task):
        place = ("--directory", str(DIRECTORY), "--server", self.url, "--environment", self.environment, "--json")
        out, _ = self.run("token", "--agent", agent, "--user", user, "--task", task, *place)
        return json.loads(out)

    async def say(self, user, session, text):
        """What the user says by their own channel: only that vouches for where things go."""
        token = dev_token(self.state, DIRECTORY, self.environment, user=user)
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, trust_env=False) as http:
            said = await http.post(f"{self.url}/v1/sessions/{session['session_id']}/inputs", json={"text": text})
            said.raise_for_status()

    @asynccontextmanager
    async def client(self, token, mode="2026-07-28"):
        async with client(self.url + "/mcp", token, mode) as connected:
            yield connected

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


@asynccontextmanager
async def client(url, token, mode="2026-07-28"):
    """The SDK's own client with a bearer token."""
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as connected:
            yield connected
