"""How fast the ledger is written in durable batches, and verified."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tempfile
import time
from pathlib import Path

import asyncpg

from interlock.ledger.verify import Event, Verifier
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate

BATCHES = 60
EVENTS = 500
VERIFIED = 100_000


async def _append(url: str) -> float:
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO chain (chain_id) SELECT 'bench' || n FROM generate_series(1, 50) n")
    chains = [f"bench{n % 50 + 1}" for n in range(EVENTS)]
    body, salt = '{"kind":"call.proposed","text":"' + "x" * 300 + '"}', bytes(16)
    commitment = hmac.digest(salt, body.encode(), "sha256")
    fields = (chains, ["call.proposed"] * EVENTS, ["call"] * EVENTS, [body] * EVENTS, [salt] * EVENTS, [commitment] * EVENTS)
    begun = time.perf_counter()
    for _ in range(BATCHES):
        await connection.execute("SELECT append_events($1, $2, $3, $4, $5, $6)", *fields)
    took = time.perf_counter() - begun
    await connection.close()
    return BATCHES * EVENTS / took


def _verify() -> float:
    link, events = bytes(32), []
    body, salt = '{"kind":"call.proposed","text":"' + "x" * 300 + '"}', bytes(16)
    commitment = hmac.digest(salt, body.encode(), "sha256")
    for seq in range(1, VERIFIED + 1):
        header = f"interlock/event/1\nbench\n{seq}\nkind\n{seq}\ncall\n".encode()
        link = hashlib.sha256(link + header + commitment).digest()
        events.append(Event("bench", seq, "kind", seq, "call", commitment, link, salt, body))
    verifier = Verifier({}, [], None, {"bench": VERIFIED})
    begun = time.perf_counter()
    for event in events:
        verifier.add(event)
    report = verifier.finish()
    took = time.perf_counter() - begun
    if not report.intact:
        raise RuntimeError("the bench's own ledger does not verify")
    return VERIFIED / took


def run() -> dict[str, float]:
    """Events a second, written durably in batches of 500 and verified on one core."""
    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    asyncio.run(migrate(lease.running.owner_url))
    written = asyncio.run(_append(lease.running.app_url))
    lease.release()
    return {"ledger events/s written": written, "ledger events/s verified": _verify()}
