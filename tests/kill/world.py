"""A tool on the network that keeps every byte it is sent, and gateways of one's own process or of another before it."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from interlock.gateway.messages import Proposal
from tests.support.patience import PATIENCE_S, until
from tests.support.shop import FILES

LISTEN = "subscriptions/listen"
ANSWERS = {
    "server/discover": {"supportedVersions": ["2026-07-28"]},
    "tools/list": {"tools": [], "resultType": "complete"},
    "tools/call": {
        "content": [{"type": "text", "text": '{"n":1}'}],
        "structuredContent": {"n": 1},
        "resultType": "complete",
    },
}


class Recorder:
    """An MCP server that answers a method only while its door is open."""

    def __init__(self):
        self.sent = b""
        self.begun = {}
        self.listening = 0
        self.calls = []
        self.doors = {method: asyncio.Event() for method in ANSWERS}
        self.asked = {method: asyncio.Event() for method in ANSWERS}
        self.connections = set()
        self.port = 0
        for door in self.doors.values():
            door.set()

    def shut(self, method):
        """Answer a method no more, and forget who has asked it before."""
        self.doors[method].clear()
        self.asked[method].clear()

    @property
    def raw(self):
        """Every byte that came, but for requests to be told of changes: those call nothing."""
        return self.sent + b"".join(self.begun.values())

    async def settled(self, gateways):
        """Wait until this many gateways have asked to be told of changes: what they do by themselves at the start is over."""
        await until(lambda: self.listening >= gateways)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/mcp"

    async def serve(self, reader, writer):
        self.connections.add(writer)
        waiting = b""
        try:
            while data := await reader.read(65_536):
                waiting += data
                self.begun[writer] = waiting
                while (request := whole(waiting)) is not None:
                    (body, rest), came = request, waiting
                    waiting = self.begun[writer] = rest
                    message = json.loads(body)
                    if message["method"] == LISTEN:
                        self.listening += 1
                        respond(writer, {"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
                        continue
                    self.sent += came[: len(came) - len(rest)]
                    await self.answer(message, writer)
        except ConnectionError:
            pass  # a gateway that was killed
        finally:
            writer.close()

    async def answer(self, message, writer):
        method = message["method"]
        if method == "tools/call":
            self.calls.append(message["params"])
        self.asked[method].set()
        await self.doors[method].wait()
        respond(writer, {"id": message["id"], "result": ANSWERS[method]})


def respond(writer, answer):
    text = json.dumps({"jsonrpc": "2.0", **answer}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode()
    writer.write(head + text)


def whole(data):
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    (length,) = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return (rest[:length], rest[length:]) if len(rest) >= length else None


@asynccontextmanager
async def recorder():
    made = Recorder()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        for door in made.doors.values():
            door.set()
        server.close()
        for writer in made.connections:
            writer.close()


def files(url):
    """The shop's release with a tool on the network beside it."""
    agents = FILES["agents.yaml"].replace("shop.stock,", "shop.stock, far.look, far.send,")
    far = f"""
url: {url}
stateless: false  # calls have connections of their own, so what is listed at the start does not negotiate for them
operations:
  look: {{effects: [read], input: {{item: string}}, output: {{n: integer}}, reviewed: {{by: a}}}}
  send: {{effects: [write], input: {{item: string}}, output: {{n: integer}}, timeout_ms: 20000, reviewed: {{by: a}}}}
"""
    return {**FILES, "agents.yaml": agents, "tools/far.yaml": far}


async def far(made, session, operation, item="tea"):
    """A call of the tool on the network."""
    proposal = Proposal(operation=f"far.{operation}", arguments=json.dumps({"item": item}).encode())
    return await made.gate.call(session, proposal)


class Gateway:
    """A gateway in a process of its own, told what to do line by line."""

    def __init__(self, process):
        self.process = process

    async def say(self, *words):
        self.process.stdin.write((" ".join(words) + "\n").encode())
        await self.process.stdin.drain()

    async def hear(self):
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.process.stdout.readline())


@asynccontextmanager
async def gateway(database_url, state, url, *mode):
    """Start one; it is killed at the end, whatever state it is in."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kill.process", database_url, str(state), url, *mode,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    made = Gateway(process)
    try:
        made.process_id = (await made.hear())["process_id"]
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
