"""The judge: the tool's own table against the ledger, and against what clients were told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.soak.tally import Tally
from interlock.identity.keys import KeyRing
from interlock.ledger.reader import verify_database

FOUND_OUT_S: Final = 90.0
_OPEN: Final = "SELECT count(*) FROM claim WHERE state IN ('claimed', 'in_doubt')"
_CLAIMS: Final = "SELECT claim_id, state FROM claim WHERE operation = 'bank.refund'"
_TABLES: Final = """
SELECT relname, pg_total_relation_size(oid) AS bytes, reltuples::bigint AS rows FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 12
"""


async def all_found_out(owner: asyncpg.Connection[Any]) -> int:
    """Wait until the gateways have found out about every call in doubt; gives how many are open still."""
    until_s = time.monotonic() + FOUND_OUT_S
    while (left := int(await owner.fetchval(_OPEN))) and time.monotonic() < until_s:  # noqa: ASYNC110  # the database is asked
        await asyncio.sleep(1)
    return left


async def judged(owner: asyncpg.Connection[Any], tools: asyncpg.Connection[Any], tally: Tally) -> dict[str, int]:
    """Duplicates, losses, and claims that say something else than the tool's table."""
    rows = await tools.fetch("SELECT order_id, reference FROM refund")
    made = Counter(row["order_id"] for row in rows)
    keys = Counter(row["reference"] for row in rows)
    claims = {row["claim_id"]: row["state"] for row in await owner.fetch(_CLAIMS)}
    wrong = [
        claim
        for claim, state in claims.items()
        if state in ("succeeded", "failed") and (state == "succeeded") != (keys[claim] == 1)
    ]
    return {
        "refunds in the tool's table": len(rows),
        "refunds told as done": len(tally.told_done),
        "done twice": sum(count - 1 for count in made.values()),
        "told as done and missing": sum(order not in made for order in tally.told_done),
        "told as not done and there": sum(order in made for order in tally.told_not_done),
        "in the table and without a claim": sum(key not in claims for key in keys),
        "claims": len(claims),
        "claims whose record is not what the tool's table says": len(wrong),
    }


async def ledger(url: str, state: Path) -> dict[str, Any]:
    """`audit verify`, in this process."""
    began_s = time.monotonic()
    report = await verify_database(url, KeyRing(state / "keys").public_bytes("heads"), state / "heads.jsonl")
    return {"ledger": "intact" if report.intact else "NOT INTACT", "verified_in_s": round(time.monotonic() - began_s, 1)}


async def tables(owner: asyncpg.Connection[Any]) -> dict[str, dict[str, float]]:
    """What takes the room."""
    await owner.execute("ANALYZE")
    return {row["relname"]: {"mb": round(row["bytes"] / 2**20, 1), "rows": row["rows"]} for row in await owner.fetch(_TABLES)}
