"""What one claim and its settlement cost Postgres: the short way beside the long one, in turns, on one database.

`python -m bench.commits [ROUNDS]` prints medians of the processor time of a backend, in µs, for callers that come alone and for
eight and thirty-two at a time. Nothing else is measured, so that it says nearly the same on a busy machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.cost import cpu_ns
from interlock.app.sources import SystemIds
from interlock.core.budget import Charge
from interlock.core.claim import ClaimRequest, Epochs, SettleRequest
from interlock.core.context import Item
from interlock.core.who import Lineage, Session
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallProposed, SessionOpened
from interlock.store.batch import Request, arguments
from interlock.store.database import open_database
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate
from interlock.store.plain import plain_arguments
from interlock.store.processes import Processes
from interlock.store.queries import load
from interlock.store.sessions import Sessions

ROUNDS: Final = 20
SIZES: Final = {1: 60, 8: 8, 32: 4}
PROCESS: Final = "prc_bench"
_IDS: Final = SystemIds()
_TEXT: Final = "what a decision was made on, of about the length that it has " * 12


def _event(call_id: str) -> Any:
    body = CallProposed(operation="local.ping", arguments=None, arguments_digest=_TEXT, call_hash="sha256:" + "0" * 64)
    return draft(body, ids=_IDS, call_id=call_id)


def claim_of(session: Session) -> ClaimRequest:
    """A call as most are: no key, two ceilings, nine scopes, three events."""
    call_id, own = _IDS.new("call"), session.session_id
    return ClaimRequest(
        claim_id=_IDS.new("clm"),
        call_id=call_id,
        session_id=own,
        lineage_id=session.lineage.id,
        operation="local.ping",
        call_hash="sha256:" + "0" * 64,
        release_digest="sha256:" + "1" * 64,
        epochs=Epochs(control=0, release=0, revocation=0),
        facts_version=1,
        scopes=("fleet", f"session:{own}", *(f"scope:{n}:local.ping" for n in range(7))),
        idempotency=None,
        settle_by_ms=40_000,
        events=tuple(_event(call_id) for _ in range(3)),
        charges=tuple(
            Charge(
                budget=name, account=f"{name}:{own}", amount=1, limit=10**9, window_s=0, shared=False, about=own, lifted=False
            )
            for name in ("calls-per-run", "calls-per-session")
        ),
    )


def settlement_of(claim: ClaimRequest) -> SettleRequest:
    """Its end, with a small result that enters the context."""
    item = Item(source=claim.operation, reference=claim.call_id, tokens={4: b"12345678", 16: b"87654321"}, is_complete=True)
    return SettleRequest(
        claim_id=claim.claim_id,
        session_id=claim.session_id,
        lineage_id=claim.lineage_id,
        attempt=1,
        state="succeeded",
        outcome=None,
        events=(_event(claim.call_id),),
        enters=item,
    )


async def _opened(sessions: Sessions, number: int) -> Session:
    who = {"tenant": "acme", "environment": "bench", "agent": "bot"}
    lineage = Lineage(**who, user=f"user{number}")
    session = Session(session_id=_IDS.new("ses"), lineage=lineage, task="t", roles=(), attributes={}, expires_at_us=4 * 10**15)
    told = SessionOpened(
        session_id=session.session_id, **who, user=lineage.user, task="t", roles=(), attributes={}, expires_at_us=0
    )
    await sessions.open(session, draft(told, ids=_IDS))
    return session


class Way:
    """One connection that commits batches in one of the two ways."""

    def __init__(self, connection: asyncpg.Connection[Any], *, is_plain: bool) -> None:
        self._connection, self._is_plain, self._known = connection, is_plain, set[str]()

    async def send(self, requests: Sequence[Request]) -> None:
        """Commit a batch."""
        columns = plain_arguments(PROCESS, requests, self._known) if self._is_plain else None
        name = "commit_requests" if columns is None else "commit_plain"
        rows = await self._connection.fetch(
            load()[name], *(columns or arguments(PROCESS, requests, again=False, known=self._known))
        )
        if not rows or (columns is not None and rows[0][0] is None):
            raise RuntimeError("what is measured was not done")
        self._known |= {charge.account for one in requests if isinstance(one, ClaimRequest) for charge in one.charges}

    async def cost_us(self, sessions: Sequence[Session], times: int) -> float:
        """Processor time for each claim with its settlement."""
        pid = await self._connection.fetchval("SELECT pg_backend_pid()")
        claims = [[claim_of(session) for session in sessions] for _ in range(times)]
        before = cpu_ns(pid)
        for batch in claims:
            await self.send(batch)
            await self.send([settlement_of(claim) for claim in batch])
        return (cpu_ns(pid) - before) / 1000 / times / len(sessions)


async def measured(owner_url: str, app_url: str, rounds: int) -> dict[str, float]:
    """Medians by way and size."""
    await migrate(owner_url)
    database = await open_database(app_url)
    await Processes(database).register(PROCESS, "bench")
    sessions = [await _opened(Sessions(database), number) for number in range(max(SIZES))]
    ways = {name: Way(await asyncpg.connect(app_url), is_plain=name == "short") for name in ("long", "short")}
    for way in ways.values():
        for size in SIZES:
            await way.cost_us(sessions[:size], 8)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for size, times in SIZES.items():
            for name, way in ways.items():
                found.setdefault(f"{size} at a time, {name} way", []).append(await way.cost_us(sessions[:size], times))
    await database.close()
    return {name: round(statistics.median(costs), 1) for name, costs in found.items()}


def run(rounds: int = ROUNDS) -> dict[str, float]:
    """The same on a durable Postgres of its own."""
    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    try:
        return asyncio.run(measured(lease.running.owner_url, lease.running.app_url, rounds))
    finally:
        lease.release()
        embedded.stop(state)


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:2])), indent=1))
