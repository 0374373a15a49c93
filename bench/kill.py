"""How long a kill takes to answer while several processes claim as fast as they can, and what commits afterwards.

`python -m bench.kill claim URL NAME` is one of the claiming processes.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from interlock.app.sources import SystemIds
from interlock.core.claim import Claimed, ClaimRequest, Halted, Stale
from interlock.core.who import Lineage, Session
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallProposed, ControlChanged, SessionOpened
from interlock.store.controls import Controls
from interlock.store.database import open_database
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate
from interlock.store.processes import Processes
from interlock.store.sessions import Sessions
from interlock.store.writer import Writer

IDS = SystemIds()
CLAIMERS = 16
ROUNDS = 25
RACED = 10_000


async def _claim(url: str, name: str) -> None:
    database = await open_database(url, max_connections=2)
    await Processes(database).register(name, "bench")
    writer = Writer(database, process_id=name)
    writer.start()
    sessions = Sessions(database)
    opened = []
    for number in range(CLAIMERS):
        lineage = Lineage(tenant="acme", environment="bench", agent=name, user=f"u{number}")
        session = Session(
            session_id=IDS.new("ses"), lineage=lineage, task="t", roles=(), attributes={}, expires_at_us=4 * 10**15
        )
        body = SessionOpened(
            session_id=session.session_id, tenant="acme", environment="bench", agent=name, user=lineage.user, task="t",
            roles=(), attributes={}, expires_at_us=0,
        )  # fmt: skip
        await sessions.open(session, draft(body, ids=IDS))
        opened.append(session)

    async def claim(session: Session) -> None:
        standing = await sessions.load(session)
        assert standing is not None
        epochs = standing.epochs
        while True:
            call = IDS.new("call")
            body = CallProposed(operation="a.b", arguments=None, arguments_digest="d", call_hash="h")
            answer = await writer.claim(
                ClaimRequest(
                    claim_id=IDS.new("clm"), call_id=call, session_id=session.session_id, lineage_id=session.lineage.id,
                    operation="a.b", call_hash="h", release_digest="r", epochs=epochs, facts_version=1,
                    scopes=("fleet",), idempotency=None, settle_by_ms=60_000, events=(draft(body, ids=IDS, call_id=call),),
                )
            )  # fmt: skip
            match answer:
                case Stale():
                    epochs = answer.epochs
                case Halted():
                    await asyncio.sleep(0.002)
                case Claimed():
                    pass

    print("ready", flush=True)
    await asyncio.gather(*[claim(session) for session in opened])


async def _race(urls: Any, processes: int) -> dict[str, float]:
    claiming = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.kill", "claim", urls.app_url, f"p{n}"], stdout=subprocess.PIPE, text=True
        )
        for n in range(processes)
    ]
    for process in claiming:
        process.stdout.readline()
    database = await open_database(urls.app_url)
    controls = Controls(database)
    connection = await asyncpg.connect(urls.auditor_url)

    async def switch(*, halted: bool) -> None:
        body = ControlChanged(scope="fleet", halted=halted, reason="bench", by="bench")
        event = draft(body, ids=IDS)
        await controls.change(scope="fleet", halted=halted, reason="bench", by="bench", event=event)

    times, late, claims = [], 0, 0
    begun = await connection.fetchval("SELECT count(*) FROM claim")
    rounds = 0
    while rounds < ROUNDS or claims < RACED:
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        await switch(halted=True)
        times.append((time.perf_counter() - started) * 1000)
        at_answer = await connection.fetchval("SELECT count(*) FROM claim")
        await asyncio.sleep(0.05)
        after = await connection.fetchval("SELECT count(*) FROM claim")
        late += after - at_answer
        claims = after - begun
        rounds += 1
        await switch(halted=False)
    for process in claiming:
        process.kill()
        process.wait()
        process.stdout.close()
    await connection.close()
    await database.close()
    times.sort()
    return {
        f"kill to answer p50 ms, {processes} processes": statistics.median(times),
        f"kill to answer p99 ms, {processes} processes": times[int(len(times) * 0.99)],
        f"claims raced, {processes} processes": claims,
        f"claims after the answer, {processes} processes": late,
    }


def run() -> dict[str, float]:
    """Four and eight processes."""
    found: dict[str, float] = {}
    for processes in (4, 8):
        state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
        lease = embedded.acquire(state)
        asyncio.run(migrate(lease.running.owner_url))
        found |= asyncio.run(_race(lease.running, processes))
        lease.release()
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["claim"]:
        asyncio.run(_claim(*sys.argv[2:4]))
    else:
        print(run())
