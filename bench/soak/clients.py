"""The clients: each does one kind of thing, at its own pace, for many users, and counts every answer it gets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from bench.soak import release
from bench.soak.tally import BROKEN, OddError, Tally, code_of_problem, code_of_result
from interlock.identity.dev_issuer import DevIssuer

STATELESS: Final = "2026-07-28"
GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ANSWER_S: Final = 60.0
TRIES: Final = 40
META: Final = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}


class Town:
    """What all clients share: where to go, who is who, what was told, and whether it is over."""

    def __init__(self, port: int, issuer: DevIssuer, tally: Tally) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.issuer = issuer
        self.tally = tally
        self.over = asyncio.Event()
        self._orders = itertools.count(1)
        self.began_s = time.monotonic()

    def order(self, kind: str) -> str:
        """A name that no other order has."""
        return f"{kind}-{next(self._orders)}"

    def now(self) -> str:
        """Minutes since the beginning."""
        return f"{(time.monotonic() - self.began_s) / 60:.2f} min"

    async def pause(self, mean_s: float, mind: random.Random) -> None:
        """Wait about as long as people and agents do; not at all once it is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), mind.uniform(0.2, 1.8) * mean_s)


class Caller:
    """One client with its own connections: plain HTTP, no retries but those it says."""

    def __init__(self, town: Town, who: str, seed: int, *, source: str = "") -> None:
        self.town, self.who = town, who
        self.mind = random.Random(seed)
        limits = httpx2.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=30)
        transport = httpx2.AsyncHTTPTransport(local_address=source or None, limits=limits)
        self.http = httpx2.AsyncClient(transport=transport, timeout=ANSWER_S, trust_env=False)

    async def asked(self, method: str, path: str, *, ok: str = "ok", token: str = "", **more: Any) -> tuple[str, Any]:
        """One request: its code, and its JSON when it has some. A success has the code `ok`."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        town = self.town
        try:
            answer = await self.http.request(method, town.url + path, headers=headers, **more)
        except httpx2.TransportError as error:
            return town.tally.note_broken(f"{self.who} {path}", error, town.now()), None
        try:
            body = answer.json()
        except ValueError:
            body = None
        try:
            if path == "/mcp" and isinstance(body, dict) and "result" in body:
                return town.tally.note(self.who, code_of_result(body["result"])), body["result"]
            if answer.is_success:
                return town.tally.note(self.who, ok), body
            return town.tally.note(
                self.who, code_of_problem(answer.status_code, answer.headers.get("content-type", ""), body)
            ), body
        except OddError as odd:
            return town.tally.note_odd(self.who, f"{town.now()} {method} {path}: {odd}"), body

    async def session(self, user: str) -> str:
        """A session token for a user; empty when none was to be had."""
        form = {
            "grant_type": GRANT,
            "subject_token": self.town.issuer.user_token(user),
            "subject_token_type": JWT,
            "actor_token": self.town.issuer.agent_token(release.AGENT),
            "actor_token_type": JWT,
            "task": release.TASK,
        }
        _, body = await self.asked("POST", "/oauth/token", ok="session opened", data=form)
        return str(body["access_token"]) if isinstance(body, dict) and "access_token" in body else ""

    async def tool(self, token: str, name: str, arguments: Any, *, key: str = "") -> tuple[str, Any]:
        """One `tools/call` of the newest revision, by hand."""
        meta = META | ({"interlock/idempotency-key": key} if key else {})
        params = {"name": name, "arguments": arguments, "_meta": meta}
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": STATELESS,
            "mcp-method": "tools/call",
            "mcp-name": name,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await self.asked("POST", "/mcp", token=token, json=body, headers=headers)

    def user(self) -> str:
        """Somebody."""
        return self.mind.choice(release.USERS)


async def through_sdk(town: Town, seed: int, *, mode: str, source: str = "") -> None:
    """The SDK's own client: a session of some calls, then another one, as an agent run has it."""
    who = "SDK client, newest revision" if mode == STATELESS else "SDK client, 2025-11-25"
    caller = Caller(town, who, seed, source=source)
    while not town.over.is_set():
        token = await caller.session(caller.user())
        if not token:
            await town.pause(1.0, caller.mind)
            continue
        try:
            async with _sdk(town, token, mode, source) as client:
                await client.list_tools()
                town.tally.note(who, "listed")
                for _ in range(caller.mind.randint(5, 40)):
                    if town.over.is_set():
                        break
                    name, arguments = caller.mind.choice(
                        (("bank.balance", {"account": f"acc{seed}"}), ("desk.search", {"words": "parcel"}))
                    )
                    answer = await client.call_tool(name, arguments)
                    town.tally.note(who, code_of_result(answer.model_dump(by_alias=True)))
                    await town.pause(0.35, caller.mind)
        except* MCPError as errors:
            for error in _flat(errors):
                _of_sdk(town, who, error)
        except* httpx2.TransportError as errors:
            for error in _flat(errors):
                town.tally.note_broken(who, error, town.now())
        except* (OddError, httpx2.HTTPStatusError) as errors:
            for error in _flat(errors):
                town.tally.note_odd(who, f"{town.now()} {error}")
        await town.pause(0.2, caller.mind)
    await caller.http.aclose()


@contextlib.asynccontextmanager
async def _sdk(town: Town, token: str, mode: str, source: str) -> AsyncIterator[Client]:
    transport = httpx2.AsyncHTTPTransport(local_address=source or None)
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers, timeout=ANSWER_S, trust_env=False) as http,
        Client(streamable_http_client(f"{town.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def _flat(group: BaseExceptionGroup[Any]) -> list[Any]:
    return [one for error in group.exceptions for one in (_flat(error) if isinstance(error, BaseExceptionGroup) else (error,))]


def _of_sdk(town: Town, who: str, error: MCPError) -> None:
    """What the SDK makes of an answer that is no result."""
    code, text = error.error.code, str(error.error.message)
    if "terminated" in text.lower() or "not found" in text.lower():
        town.tally.note(who, "404 its MCP session went with its gateway: opened anew")
    elif "connect" in text.lower() or "disconnect" in text.lower():
        town.tally.note_broken(who, error, town.now())
    elif text:
        town.tally.note(who, f"JSON-RPC {code} {text[:80]}")
    else:
        town.tally.note_odd(who, f"{town.now()} an error without a text: {error!r}")


async def until_told(
    caller: Caller, token: str, order: str, amount: str, ask: Callable[..., Awaitable[tuple[str, Any]]]
) -> str:
    """Ask for one refund until it is known what became of it, always with the same key, as a careful client does."""
    tally = caller.town.tally
    for _ in range(TRIES):
        code, body = await ask(token, order, amount)
        if code == "needs_approval" and caller.town.over.is_set():
            return code  # whoever would approve has gone home
        if code.split()[-1] in {"done", "replayed", "done_unseen", "ok"}:
            tally.told_done.add(order)
            return code
        if code == BROKEN or code.split()[-1] in _AGAIN or code.startswith("503"):
            await asyncio.sleep(_after_s(body))
            continue
        if code.split()[-1] == "session_ended" or code.startswith("401"):
            return code
        tally.told_not_done.add(order)
        return code
    return tally.note_odd(caller.who, f"{caller.town.now()} {order}: nobody could say what became of it")


_AGAIN: Final = {
    "in_doubt", "not_recorded", "still_running", "control_plane_unavailable", "overloaded", "contended", "tool_unavailable",
    "tool_busy", "tool_late", "halted", "needs_approval", "approvals_waiting", "rate_limited",
}  # fmt: skip


def _after_s(body: Any) -> float:
    said = (body or {}).get("_meta", body or {}).get("interlock/decision", {}) if isinstance(body, dict) else {}
    return min(5.0, max(0.5, said.get("retry_after_ms", 1000) / 1000)) if isinstance(said, dict) else 1.0


async def payer(town: Town, seed: int) -> None:
    """Refunds with keys; one in eight is asked for twice at once, one in eight once more when it is done."""
    caller = Caller(town, "refunds with a key, by hand", seed)

    async def ask(token: str, order: str, amount: str) -> tuple[str, Any]:
        return await caller.tool(token, "bank.refund", {"order": order, "amount": amount}, key=order)

    while not town.over.is_set():
        token = await caller.session(caller.user())
        for _ in range(20):
            if town.over.is_set() or not token:
                break
            order, amount = town.order("o"), f"{caller.mind.randint(1, release.MOST_ALONE)}.00"
            chance = caller.mind.random()
            if chance < 1 / 8:
                await asyncio.gather(*(until_told(caller, token, order, amount, ask) for _ in range(2)))
            else:
                await until_told(caller, token, order, amount, ask)
            if chance > 7 / 8:
                await until_told(caller, token, order, amount, ask)
            await town.pause(0.45, caller.mind)
    await caller.http.aclose()


async def api_caller(town: Town, seed: int) -> None:
    """The same through the HTTP API."""
    caller = Caller(town, "refunds by the HTTP API", seed)

    async def ask(token: str, order: str, amount: str) -> tuple[str, Any]:
        body = {"operation": "bank.refund", "arguments": {"order": order, "amount": amount}}
        return await caller.asked("POST", "/v1/calls", token=token, json=body, headers={"idempotency-key": order}, ok="done")

    while not town.over.is_set():
        token = await caller.session(caller.user())
        for _ in range(20):
            if town.over.is_set() or not token:
                break
            await until_told(caller, token, town.order("h"), "5.00", ask)
            await town.pause(0.7, caller.mind)
    await caller.http.aclose()


async def asker(town: Town, seed: int) -> None:
    """Refunds that a person must approve, and who waits for it."""
    caller = Caller(town, "refunds that wait for a person", seed)

    async def ask(token: str, order: str, amount: str) -> tuple[str, Any]:
        return await caller.tool(token, "bank.refund", {"order": order, "amount": amount}, key=order)

    while not town.over.is_set():
        token = await caller.session(caller.user())
        if token:
            await until_told(caller, token, town.order("a"), "80.00", ask)
        await town.pause(3.0, caller.mind)
    await caller.http.aclose()


async def approver(town: Town) -> None:
    """Somebody who says yes to what waits."""
    caller = Caller(town, "a person who approves", 1)
    while not town.over.is_set():
        token = town.issuer.user_token(release.APPROVER)
        _, body = await caller.asked("GET", "/v1/approvals", token=token, ok="listed")
        for waiting in (body or {}).get("approvals", ()):
            path = f"/v1/approvals/{waiting['approval_id']}/approve"
            await caller.asked("POST", path, token=token, json={"note": "fine"}, ok="approved")
        await town.pause(2.0, caller.mind)
    await caller.http.aclose()


async def refused(town: Town, seed: int) -> None:
    """What is not allowed, does not exist, or does not make sense."""
    caller = Caller(town, "denied and invalid calls", seed)
    while not town.over.is_set():
        token = await caller.session(caller.user())
        for _ in range(15):
            if town.over.is_set() or not token:
                break
            kind = caller.mind.randrange(6)
            if kind == 0:
                await caller.tool(token, "desk.delete", {"ticket": 1})
            elif kind == 1:
                await caller.tool(
                    token, "bank.refund", {"order": "d", "amount": f"{release.MOST_AT_ALL + 1}.00"}, key=town.order("d")
                )
            elif kind == 2:
                await caller.tool(token, "bank.refund", {"order": 7, "sum": "1"})
            elif kind == 3:
                await caller.tool(token, "nothing.there", {})
            elif kind == 4:
                await caller.tool("not-a-token", "bank.balance", {"account": "a"})
            else:
                headers = {"mcp-protocol-version": STATELESS, "content-type": "application/json"}
                await caller.asked("POST", "/mcp", token=token, content=b'{"jsonrpc": "2.0", "id": ', headers=headers)
            await town.pause(0.4, caller.mind)
    await caller.http.aclose()


async def large(town: Town, seed: int) -> None:
    """Results of some hundred kilobytes, now and then of more than a megabyte."""
    caller = Caller(town, "large results", seed)
    while not town.over.is_set():
        token = await caller.session(caller.user())
        for _ in range(10):
            if town.over.is_set() or not token:
                break
            await caller.tool(token, "desk.export", {"kilobytes": caller.mind.choice((100, 200, 400, 1500))})
            await town.pause(2.5, caller.mind)
    await caller.http.aclose()


async def watcher(town: Town, seed: int) -> None:
    """Somebody with the page open: its stream of news, opened again whenever it ends."""
    caller = Caller(town, "the page's stream", seed)
    while not town.over.is_set():
        headers = {"cookie": f"interlock_person={town.issuer.user_token(release.OPERATOR)}", "accept": "text/event-stream"}
        try:
            async with caller.http.stream("GET", f"{town.url}/page/live", headers=headers) as stream:
                if stream.status_code != httpx2.codes.OK:
                    town.tally.note(caller.who, f"{stream.status_code} come back later")
                else:
                    town.tally.streams += 1
                    async for _ in stream.aiter_bytes():
                        if town.over.is_set():
                            break
                    town.tally.note(caller.who, "ended, opened anew")
        except httpx2.TransportError as error:
            town.tally.note_broken(caller.who, error, town.now())
        await town.pause(1.0, caller.mind)
    await caller.http.aclose()


async def operator(town: Town, releases: list[dict[str, str]], *, kill_every_s: float, release_every_s: float) -> None:
    """Stops the desk for a moment now and then, and every few minutes puts another release in force."""
    caller = Caller(town, "operators", 2)
    town_of = town.issuer.user_token
    turn = 0
    next_kill_s, next_release_s = time.monotonic() + kill_every_s, time.monotonic() + release_every_s
    while not town.over.is_set():
        await town.pause(1.0, caller.mind)
        if time.monotonic() > next_kill_s:
            next_kill_s = time.monotonic() + kill_every_s
            body = {"scope": "tool:desk", "reason": "soak"}
            oki = town_of(release.OPERATOR)
            await caller.asked("POST", "/v1/controls/kill", token=oki, json=body, ok="killed")
            await town.pause(2.0, caller.mind)
            code = BROKEN
            while code == BROKEN:
                code, _ = await caller.asked("POST", "/v1/controls/resume", token=oki, json=body, ok="resumed")
        if time.monotonic() > next_release_s:
            next_release_s = time.monotonic() + release_every_s
            turn += 1
            files = {"files": releases[turn % len(releases)]}
            token = town_of(release.PROPOSER)
            _, body = await caller.asked("POST", "/v1/releases", token=token, json=files, ok="proposed")
            if isinstance(body, dict) and "digest" in body:
                path = f"/v1/releases/{body['digest']}/activate"
                why = {"reason": "soak"}
                await caller.asked("POST", path, token=town_of(release.ACTIVATOR), json=why, ok="activated")
    await caller.http.aclose()


def everybody(town: Town, releases: list[dict[str, str]]) -> dict[str, Callable[[], Awaitable[None]]]:
    """All clients, by their names."""
    found: dict[str, Callable[[], Awaitable[None]]] = {}
    for number in range(4):
        found[f"sdk{number}"] = lambda number=number: through_sdk(town, 100 + number, mode=STATELESS)
    for number in range(3):
        source = f"127.0.0.{20 + number}"
        found[f"older{number}"] = lambda number=number, source=source: through_sdk(
            town, 200 + number, mode="legacy", source=source
        )
    for number in range(4):
        found[f"payer{number}"] = lambda number=number: payer(town, 300 + number)
    for number in range(2):
        found[f"watcher{number}"] = lambda number=number: watcher(town, 400 + number)
    found |= {
        "api": lambda: api_caller(town, 500),
        "asker": lambda: asker(town, 600),
        "approver": lambda: approver(town),
        "refused": lambda: refused(town, 700),
        "large": lambda: large(town, 800),
        "operator": lambda: operator(town, releases, kill_every_s=95.0, release_every_s=170.0),
    }
    return found


def dumps(value: Any) -> str:
    """JSON as it is kept."""
    return json.dumps(value, indent=1)
