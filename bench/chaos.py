"""The crash laboratory: gateways are killed and paused at named points while they pay; then the tool's table is the judge.

`python -m bench.chaos --minutes 10 --seed 7` is the long run, with a table and, with `--json FILE`, JSON. The same seed makes
the same faults in the same order; which call meets them is the machine's timing. `gateway URL STATE TOOL` is one of the
gateways: the named points are put into it here, so shipped code has none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvloop

from interlock.app.plane import RecordedSessions
from interlock.app.sources import SystemClock
from interlock.app.system import Settings, System, running
from interlock.core.who import Lineage, Session
from interlock.gateway.execution import Executor
from interlock.gateway.gate import Gate
from interlock.gateway.messages import Proposal, Returned
from interlock.ledger.reader import verify_database
from interlock.policy.permit import Permit
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate
from interlock.store.sessions import Sessions
from interlock.store.writer import Writer

GATEWAYS: Final = 3
CALLERS: Final = 4
PAUSED_S: Final = 2.5
TELL_EVERY_S: Final = 30.0
POINTS: Final = ("decided", "claimed", "before first byte", "sent", "answered", "settling", "settled", "released")
CONTRACT: Final = """
url: {url}
operations:
  pay:
    effects: [write]
    input: {{order: string}}
    output: {{n: integer}}
    verify: {{read: bank.paid, done_when: {{"rows[].key": {{is: $key}}}}}}
    settles_within_s: 2
    timeout_ms: 1500
    reviewed: {{by: bench}}
  once:
    effects: [write]
    honours_key: true
    input: {{order: string}}
    output: {{n: integer}}
    verify: {{read: bank.paid, done_when: {{"rows[].key": {{is: $key}}}}}}
    settles_within_s: 2
    timeout_ms: 1500
    reviewed: {{by: bench}}
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
        "tools/bank.yaml": CONTRACT.format(url=url),
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


def put_points(reach: Callable[[str], None]) -> None:
    """Put the named points into this process: `reach` is called at each."""

    def around(owner: Any, name: str, before: str, after: str) -> None:
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def with_points(*words: Any, **more: Any) -> Any:
            if before:
                reach(before)
            answer = await real(*words, **more)
            if after:
                reach(after)
            return answer

        setattr(owner, name, with_points)

    around(Writer, "claim", "decided", "claimed")
    around(Executor, "_invoke", "", "answered")
    around(Writer, "settle", "settling", "settled")
    around(Gate, "_execute", "", "released")
    spend = Permit.spend

    def spend_with_points(self: Permit, **more: Any) -> None:
        reach("before first byte")
        spend(self, **more)
        reach("sent")

    setattr(Permit, "spend", spend_with_points)  # noqa: B010  # its type forbids it, rightly


async def gateway(url: str, state: Path, tool: str) -> None:
    """One gateway: `call ID OPERATION ORDER`, and `arm POINT SIGNAL` for the next call that gets there."""
    armed: list[tuple[str, int]] = []

    def reach(point: str) -> None:
        for name, number in list(armed):
            if name == point:
                armed.remove((name, number))
                os.kill(os.getpid(), number)

    put_points(reach)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = Settings(state=state, database_url=url, environment="bench", release_files=files(tool))

    def tell(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    async with running(settings) as system:
        session = await opened(system, "ana")

        async def call(number: str, operation: str, order: str) -> None:
            proposal = Proposal(
                operation=f"bank.{operation}", arguments=json.dumps({"order": order}).encode(), idempotency_key=order
            )
            answer = await system.gate.call(session, proposal)
            done = isinstance(answer, Returned) or answer.code == "done_unseen"
            tell(id=number, done=done, code="" if isinstance(answer, Returned) else answer.code)

        tell(id="", process_id=system.process_id)
        calls = set()
        while line := (await lines.readline()).decode().split(maxsplit=1):
            words = line[1].strip()
            if line[0] == "arm":
                name, _, number = words.rpartition(" ")
                armed.append((name, int(number)))
            else:
                task = asyncio.create_task(call(*words.split()))
                calls.add(task)
                task.add_done_callback(calls.discard)


async def opened(system: System, user: str) -> Session:
    """A session; the same user is the same lineage in every gateway, so that calls repeated elsewhere are the same calls."""
    session = Session(
        session_id=system.ids.new("ses"),
        lineage=Lineage(tenant="acme", environment="bench", agent="bot", user=user),
        task="bench",
        roles=("Staff",),
        attributes={},
        expires_at_us=system.clock.wall_us() + 3_600_000_000,
    )
    await RecordedSessions(Sessions(system.database), system.ids).open(session, "")
    return session


class Remote:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._answers: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        self._numbers = 0
        self._hearing = asyncio.create_task(self._hear())

    @staticmethod
    async def start(url: str, state: Path, tool: str) -> Remote:
        """Start one and wait until it serves."""
        words = ("-m", "bench.chaos", "gateway", url, str(state), tool)
        pipe = asyncio.subprocess.PIPE
        with (state.parent / f"{state.name}.log").open("ab") as log:
            made = Remote(await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe, stderr=log))
        if await made._expect("") is None:
            raise RuntimeError(f"a gateway did not start; see {state}.log")
        return made

    async def call(self, operation: str, order: str) -> dict[str, Any] | None:
        """What the caller is told; None when the gateway died on the way."""
        self._numbers += 1
        answer = self._expect(str(self._numbers))
        self.say(f"call {self._numbers} {operation} {order}")
        return await answer

    def say(self, line: str) -> None:
        """Tell it something; one that is dead hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.process.stdin.write(line.encode() + b"\n")

    async def end(self) -> None:
        """Kill it, whatever state it is in."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._hearing

    def _expect(self, number: str) -> asyncio.Future[dict[str, Any] | None]:
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        if self._hearing.done():
            future.set_result(None)
        return future

    async def _hear(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            told = json.loads(line)
            self._answers.pop(told["id"]).set_result(told)
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)


class LaterClock(SystemClock):
    """The system's clock, as much later as one says."""

    later_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back."""
        return super().monotonic_s() + self.later_s


async def undertake(lease: Any, folder: Path, bank: Bank) -> dict[str, Any]:
    """When every gateway is dead: find out what became of each call, and judge by the bank's table."""
    owner = await asyncpg.connect(lease.layout.url("postgres"))
    bank.loses = 0.0
    settings = Settings(
        state=folder / "state", database_url=lease.running.app_url, environment="bench", release_files=files(bank.url)
    )
    try:
        await owner.execute("DELETE FROM process")  # nobody of them lives, nor looks into anything any more
        await owner.execute("UPDATE claim SET looked_until = NULL WHERE state = 'in_doubt'")
        async with running(settings) as system:
            clock = LaterClock()
            system.gate.reconciler._clock = clock  # noqa: SLF001  # what it waits for is over: they are all dead
            for _ in range(400):
                await system.heartbeat()
                await system.reconcile()
                clock.later_s += 20
                open_doubts = await owner.fetchval(
                    "SELECT count(*) FROM claim WHERE state IN ('claimed', 'in_doubt') AND asks_people = ''"
                )
                if not open_doubts:
                    break
            await system.sign_heads()
            public = system.keys.public_bytes("heads")
        claims = await owner.fetch(
            "SELECT c.claim_id, c.state, c.operation, c.asks_people, c.conflict, c.key IS NOT NULL AS keyed, "
            "EXISTS (SELECT FROM event e WHERE e.call_id = c.call_id AND e.kind = 'claim.retried') AS retried, "
            "EXISTS (SELECT FROM event e WHERE e.call_id = c.call_id AND e.kind = 'doubt.resolved') AS resolved "
            "FROM claim c WHERE c.operation IN ('bank.pay', 'bank.once')"
        )
    finally:
        await owner.close()
    report = await verify_database(lease.layout.url("interlock_auditor"), public, None)
    keys = Counter(key for _, key in bank.rows)
    settled = [row for row in claims if row["state"] in ("succeeded", "failed")]
    wrong = [row for row in settled if (row["state"] == "succeeded") != (keys[row["claim_id"]] == 1)]
    doubtful = [row for row in claims if row["state"] == "in_doubt"]
    open_still = sum(row["state"] == "claimed" for row in claims) + sum(not row["asks_people"] for row in doubtful)
    return {
        "claims": len(claims),
        "claims unaccounted for": open_still,
        "claims whose record is not what the tool's table says": len(wrong),
        "in doubt, found out by the tool's key": sum(row["retried"] for row in claims),
        "in doubt, found out by a reading": sum(row["resolved"] and not row["retried"] for row in claims),
        "in doubt, left to a person": sum(bool(row["asks_people"]) for row in doubtful),
        "contradicting late answers": sum(bool(row["conflict"]) for row in claims),
        "ledger": "intact" if report.intact else "NOT INTACT",
    }


def judged(bank: Bank, told_done: set[str]) -> dict[str, int]:
    """Duplicates and losses, by the tool's own table."""
    made = Counter(order for order, _ in bank.rows)
    return {
        "payments in the tool's table": len(bank.rows),
        "calls told as done": len(told_done),
        "duplicates": sum(count - 1 for count in made.values() if count > 1),
        "losses": sum(order not in made for order in told_done),
    }


async def at_every_point(lease: Any, folder: Path, *, seed: int) -> dict[str, Any]:
    """The short run: a gateway for each named point, killed there or paused beyond its lease, by the seed; then the judgement.

    Every call is repeated at another gateway while nobody knows what became of the first.
    """
    mind = random.Random(seed)
    plan = [(point, mind.choice((signal.SIGKILL, signal.SIGSTOP)), mind.choice(("pay", "once"))) for point in POINTS]
    told: set[str] = set()
    async with Bank(seed, loses=0.0).open() as bank:

        async def start() -> Remote:
            return await Remote.start(lease.running.app_url, folder / "state", bank.url)

        witness = await start()  # the first puts the release in force

        async def trial(point: str, number: int, operation: str) -> None:
            remote, order = await start(), point.replace(" ", "-")
            remote.say(f"arm {point} {int(number)}")
            first = asyncio.create_task(remote.call(operation, order))
            await asyncio.wait((first,), timeout=PAUSED_S)
            repeated = await witness.call(operation, order)
            with contextlib.suppress(ProcessLookupError):
                remote.process.send_signal(signal.SIGCONT)
            answer = await first
            told.update(order for said in (answer, repeated) if said is not None and said["done"])
            await remote.end()

        try:
            await asyncio.gather(*(trial(*words) for words in plan))
        finally:
            await witness.end()
        found = await undertake(lease, folder, bank)
        return {"plan": [(point, number.name, operation) for point, number, operation in plan], **judged(bank, told), **found}


class Storm:
    """Callers that repeat what is not settled, and somebody who breaks things."""

    def __init__(self, lease: Any, folder: Path, bank: Bank, seed: int) -> None:
        self._lease, self._folder, self._bank = lease, folder, bank
        self._random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.told: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.calls = self.starts = 0
        self._over = False
        self._remotes: list[Remote] = []

    async def rage(self, seconds: float) -> None:
        """Load and faults for so long; at the end every gateway is killed."""
        for _ in range(GATEWAYS):
            self._remotes.append(await self._new())
        callers = [asyncio.create_task(self._caller(number)) for number in range(CALLERS * GATEWAYS)]
        began_s = told_s = time.monotonic()
        try:
            while time.monotonic() < began_s + seconds:
                await asyncio.sleep(self._random.uniform(0.2, 1.2))
                await self._break_something()
                if time.monotonic() > told_s + TELL_EVERY_S:
                    told_s = time.monotonic()
                    self._say_how_far((told_s - began_s) / 60, seconds / 60)
        finally:
            self._over = True
            for remote in self._remotes:
                await remote.end()
            await asyncio.gather(*callers)

    def _say_how_far(self, minutes: float, of_minutes: float) -> None:
        done, faults = self.answers["done"], self.faults.total()
        so_far = f"{self.calls} calls, {done} done, {faults} faults, {self.starts} gateways started"
        print(f"{minutes:.1f} of {of_minutes:.1f} minutes: {so_far}", file=sys.stderr, flush=True)

    async def _new(self) -> Remote:
        self.starts += 1
        return await Remote.start(self._lease.running.app_url, self._folder / "state", self._bank.url)

    async def _caller(self, number: int) -> None:
        mind, order_number = random.Random(number), 0
        while not self._over:
            order_number += 1
            order, operation = f"o{number}-{order_number}", mind.choice(("pay", "once"))
            for _ in range(6):
                if self._over:
                    return
                self.calls += 1
                answer = await mind.choice(self._remotes).call(operation, order)
                self.answers[answer["code"] or "done" if answer else "gateway died"] += 1
                if answer is not None and answer["done"]:
                    self.told.add(order)
                    break
                await asyncio.sleep(mind.uniform(0.05, 0.8))

    async def _break_something(self) -> None:
        place = self._random.randrange(GATEWAYS)
        remote = self._remotes[place]
        kind = self._random.choice(("point", "point", "point", "pause", "backends", "database", "kill"))
        match kind:
            case "point":
                point = self._random.choice(POINTS)
                number = self._random.choice((signal.SIGKILL, signal.SIGSTOP))
                self.faults[f"{number.name} at: {point}"] += 1
                remote.say(f"arm {point} {int(number)}")
                await asyncio.sleep(0.5)
                await self._wake_or_replace(place, self._random.uniform(0.1, 3.0) if number == signal.SIGSTOP else 0.0)
            case "pause" | "kill":
                number = signal.SIGSTOP if kind == "pause" else signal.SIGKILL
                self.faults[f"{number.name} anywhere"] += 1
                with contextlib.suppress(ProcessLookupError):
                    remote.process.send_signal(number)
                await self._wake_or_replace(place, self._random.uniform(0.1, 3.0) if kind == "pause" else 0.0)
            case _:
                await self._hurt_database(kill=kind == "database")

    async def _wake_or_replace(self, place: int, pause_s: float) -> None:
        remote = self._remotes[place]
        await asyncio.sleep(pause_s)
        with contextlib.suppress(ProcessLookupError):
            remote.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.1)
        if remote.process.returncode is not None:
            await remote.end()
            self._remotes[place] = await self._new()

    async def _hurt_database(self, *, kill: bool) -> None:
        """Cut every connection of the gateways, or kill a backend: Postgres then restarts and recovers from its log."""
        self.faults["database killed, recovers from its log" if kill else "database connections cut"] += 1
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            owner = await asyncpg.connect(self._lease.layout.url("postgres"), timeout=5)
            try:
                found = await owner.fetch("SELECT pid FROM pg_stat_activity WHERE usename = 'interlock_app' ORDER BY pid")
                pids = [row["pid"] for row in found]
                if kill and pids:
                    os.kill(self._random.choice(pids), signal.SIGKILL)
                for pid in () if kill else pids:
                    await owner.execute("SELECT pg_terminate_backend($1)", pid)
            finally:
                await owner.close()


async def chaos(lease: Any, folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """The long run. Gives everything that the table shows."""
    async with Bank(seed, loses=0.02).open() as bank:
        storm = Storm(lease, folder, bank, seed)
        began_s = time.monotonic()
        await storm.rage(seconds)
        raged_s = time.monotonic() - began_s
        found = await undertake(lease, folder, bank)
        faults = dict(sorted((storm.faults + bank.faults).items()))
        return {
            "seed": seed,
            "minutes": round(raged_s / 60, 1),
            "calls": storm.calls,
            "gateways started": storm.starts,
            **judged(bank, storm.told),
            **found,
            "faults": faults,
            "answers": dict(storm.answers.most_common()),
        }


@contextlib.contextmanager
def durable() -> Any:
    """A Postgres of one's own with fsync, and a folder for everything else, which stays when something is thrown."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-chaos-"))
    lease = embedded.acquire(folder)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        yield lease, folder
    finally:
        lease.release()
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """A table and, with `--json FILE`, JSON; exit code 1 when anything was done twice, lost, or not accounted for."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with durable() as (lease, folder):
        found = uvloop.run(chaos(lease, folder, seconds=chosen.minutes * 60, seed=chosen.seed))
    for name, value in found.items():
        for part, count in value.items() if isinstance(value, dict) else ((name, value),):
            print(f"{f'{name}: {part}' if isinstance(value, dict) else part:70} {count!s:>12}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    bad = ("duplicates", "losses", "claims unaccounted for", "claims whose record is not what the tool's table says")
    return int(any(found[name] for name in bad) or found["ledger"] != "intact")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        uvloop.run(gateway(sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
    else:
        sys.exit(main())
