"""What budgets cost: one tenant's against 64 tenants', against the ceilings alone, against none, and against one row.

64 callers claim and settle, once through a writer (a process) each, and once through two that commit in batches. Medians of
short stretches taken in turn, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from interlock.app.sources import SystemIds
from interlock.core.budget import CEILINGS, Charge
from interlock.core.claim import Claimed, ClaimRequest, Epochs, Settled, SettleRequest
from interlock.core.event import EventDraft
from interlock.core.who import Lineage, Session
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallProposed, SessionOpened
from interlock.store.database import Database, open_database
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate
from interlock.store.processes import Processes
from interlock.store.sessions import Sessions
from interlock.store.writer import Writer

CALLERS: Final = 64
BATCHING_WRITERS: Final = 2
SECONDS: Final = 0.5
REPEATS: Final = 15
PLENTY: Final = 10**12
DAY_S: Final = 24 * 3600
IDS: Final = SystemIds()
KINDS: Final = ("none", "ceilings", "64 tenants", "one tenant", "one row")


class _Side(msgspec.Struct):
    database: Database
    writer: Writer
    session: Session


def _charges(kind: str, number: int, side: _Side) -> tuple[Charge, ...]:
    if kind == "none":
        return ()
    own = tuple(
        Charge(budget=item.name, account=f"{item.name}:x:{side.session.session_id}", amount=1, limit=PLENTY)
        for item in CEILINGS
        if item.counted.value == "calls"
    )
    if kind == "ceilings":
        return own
    who = str(number) if kind == "64 tenants" else kind
    day = Charge(
        budget="day",
        account=f"day:x:tenant:{who}",
        amount=1,
        limit=PLENTY,
        window_s=DAY_S,
        shared=kind != "one row",
    )
    return (*own, day)


async def _writer(url: str, name: str) -> tuple[Database, Writer]:
    database = await open_database(url, max_connections=2)  # one is the writer's own
    writer = Writer(database, process_id=name)
    await Processes(database).register(name, "bench")
    writer.start()
    return database, writer


async def _side(database: Database, writer: Writer, number: int) -> _Side:
    lineage = Lineage(tenant=f"t{number}", environment="bench", agent="bot", user=f"u{number}")
    session = Session(session_id=IDS.new("ses"), lineage=lineage, task="t", roles=(), expires_at_us=4 * 10**15)
    opened = SessionOpened(
        session_id=session.session_id,
        tenant=lineage.tenant,
        environment="bench",
        agent="bot",
        user=lineage.user,
        task="t",
        roles=(),
        attributes={},
        expires_at_us=0,
    )
    await Sessions(database).open(session, draft(opened, ids=IDS))
    return _Side(database, writer, session)


async def _call(side: _Side, charges: tuple[Charge, ...]) -> bool:
    call_id, claim_id = IDS.new("call"), IDS.new("clm")

    def event() -> EventDraft:
        body = CallProposed(operation="a.b", arguments=msgspec.Raw(b"{}"), arguments_digest="d" * 71, call_hash="h" * 71)
        return draft(body, ids=IDS, call_id=call_id)

    session, lineage = side.session.session_id, side.session.lineage.id
    answer = await side.writer.claim(
        ClaimRequest(
            claim_id=claim_id,
            call_id=call_id,
            session_id=session,
            lineage_id=lineage,
            operation="a.b",
            call_hash="h",
            release_digest="r",
            epochs=Epochs(control=0, release=0, revocation=0),
            facts_version=1,
            scopes=("fleet", "tenant:t", "operation:a.b"),
            idempotency=None,
            settle_by_ms=60_000,
            events=(event(), event(), event()),
            charges=charges,
        )
    )
    if not isinstance(answer, Claimed):
        return False
    settled = await side.writer.settle(
        SettleRequest(
            claim_id=claim_id,
            session_id=session,
            lineage_id=lineage,
            attempt=1,
            state="succeeded",
            outcome=None,
            events=(event(),),
        )
    )
    return isinstance(settled, Settled)


async def _measure(kind: str, sides: list[_Side]) -> float:
    until, done = time.perf_counter() + SECONDS, 0

    async def caller(number: int, side: _Side) -> None:
        nonlocal done
        while time.perf_counter() < until:
            if not await _call(side, _charges(kind, number, side)):
                raise RuntimeError(f"{kind}: not claimed or not settled")
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*[caller(number, side) for number, side in enumerate(sides)])
    return done / (time.perf_counter() - begun)


async def _run(url: str, writers: int, prefix: str) -> dict[str, float]:
    made = [await _writer(url, f"{prefix}{number}") for number in range(writers)]
    sides = [await _side(*made[number % writers], number) for number in range(CALLERS)]
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for repeat in range(REPEATS + 1):
        for kind in KINDS:
            rate = await _measure(kind, sides)
            if repeat:  # the first round warms up
                found[kind].append(rate)
    for database, writer in made:
        await writer.close()
        await database.close()
    medians = {kind: statistics.median(rates) for kind, rates in found.items()}
    return {
        **{f"budgets, {writers} writers, {kind}: calls/s": rate for kind, rate in medians.items()},
        f"budgets, {writers} writers, ceilings / none": medians["ceilings"] / medians["none"],
        f"budgets, {writers} writers, one tenant / 64 tenants": medians["one tenant"] / medians["64 tenants"],
        f"budgets, {writers} writers, one row / 64 tenants": medians["one row"] / medians["64 tenants"],
    }


def run() -> dict[str, float]:
    """Claims with their settlements a second, durable, and the ratios between the kinds."""
    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    asyncio.run(migrate(lease.running.owner_url))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_run(lease.running.app_url, BATCHING_WRITERS, "b"))
        found |= runner.run(_run(lease.running.app_url, CALLERS, "w"))
    lease.release()
    return found


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
