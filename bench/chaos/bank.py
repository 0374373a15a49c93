"""The tool of the laboratory, and the release around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

_PAYS: Final = """
    effects: [write]
    input: {order: string}
    output: {n: integer}
    verify: {read: bank.paid, done_when: {"rows[].key": {is: $key}}}
    settles_within_s: 2
    timeout_ms: 1500
    reviewed: {by: bench}"""
CONTRACT: Final = f"""
operations:
  pay:{_PAYS}
  once:{_PAYS}
    honours_key: true
  paid:
    effects: [read]
    input: {{order: string}}
    output: {{rows: [{{key: string}}]}}
    timeout_ms: 1500
    reviewed: {{by: bench}}
"""


def files(url: str) -> dict[str, str]:
    """The release: one bank, one agent, and no limits but the gate's own."""
    return {
        "release.yaml": "name: chaos\nadministration: {operated_by: [acme], status: [Operator], settle: [Operator]}\n",
        "agents.yaml": "bot:\n  bench: {issuer: interlock-dev, subject: bot}\n"
        "  grants: [{on: [bank.pay, bank.once, bank.paid], for: {roles: [Staff], task: bench}}]\n",
        "tasks.yaml": "bench: {purpose: measure, open_to: [Staff], agents: [bot]}\n",
        "tools/bank.yaml": f"url: {url}{CONTRACT}",
    }


class Bank:
    """An MCP server with a table of its own. By its seed it loses answers after it acted, or connections before."""

    def __init__(self, seed: int, *, loses: float) -> None:
        self._random = random.Random(seed)
        self.loses = loses
        self.rows: list[tuple[str, str]] = []
        self.faults: Counter[str] = Counter()
        self.paid: Callable[[str], None] = lambda _: None
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Bank]:
        """Serve on a port that the system chooses."""
        served = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{served.sockets[0].getsockname()[1]}/mcp"
        try:
            yield self
        finally:
            served.close()
            for writer in self._writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                answer = self._answer(json.loads(await reader.readexactly(length)))
                if answer is None:
                    break
                text = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text))
                writer.write(text)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a gateway that was killed
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if message["method"] != "tools/call":
            found: dict[str, Any] = {"supportedVersions": ["2026-07-28"]}
            return {"jsonrpc": "2.0", "id": message["id"], "result": found}
        asked = message["params"]
        order = asked["arguments"]["order"]
        key = next((value for name, value in asked["_meta"].items() if name.endswith("idempotency-key")), "")
        if asked["name"] == "paid":
            structured: dict[str, Any] = {"rows": [{"key": made} for of, made in self.rows if of == order]}
        else:
            if self._random.random() < self.loses:
                self.faults["connection cut before the tool acted"] += 1
                return None
            if not (asked["name"] == "once" and (order, key) in self.rows):
                self.rows.append((order, key))
            self.paid(order)
            if self._random.random() < self.loses:
                self.faults["answer lost after the tool acted"] += 1
                return None
            structured = {"n": 1}
        content = [{"type": "text", "text": json.dumps(structured)}]
        result = {"content": content, "structuredContent": structured, "resultType": "complete"}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}
