"""When every gateway is dead: what became of each call, by the table of the tool."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg

from bench.chaos.bank import Bank, files
from interlock.app.sources import SystemClock
from interlock.app.system import Settings, running
from interlock.ledger.reader import verify_database


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
