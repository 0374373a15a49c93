"""Read a ledger from the database for the verifier, in chunks, in one consistent snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import asyncpg

from interlock.ledger.verify import Event, Head, Report, Verifier
from interlock.ledger.witness import read_witness
from interlock.store.passwords import Password

CHUNK_EVENTS: Final = 5_000
_EVENTS: Final = """
SELECT e.chain_id, e.seq, e.kind, e.at_us, e.call_id, e.commitment, e.link, b.salt, b.body
FROM event e LEFT JOIN event_body b USING (chain_id, seq) ORDER BY e.chain_id, e.seq
"""


async def verify_database(
    url: str, public_keys: Mapping[str, bytes], witness: Path | None, password: Password | None = None
) -> Report:
    """Verify everything in a database; `url` needs no more than the auditor's rights."""
    connection = await asyncpg.connect(url, password=password)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            heads = await connection.fetch("SELECT n, body, key_id, signature FROM signed_head ORDER BY n")
            chains = await connection.fetch("SELECT chain_id, head_seq FROM chain")
            stored = {row["chain_id"]: row["head_seq"] for row in chains}
            verifier = Verifier(public_keys, [Head(*row) for row in heads], read_witness(witness), stored)
            async for row in connection.cursor(_EVENTS, prefetch=CHUNK_EVENTS):
                verifier.add(Event(*row))
            return verifier.finish()
    finally:
        await connection.close()
