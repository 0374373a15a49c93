"""Sign the heads of the chains with a key that is not in the database, and leave a witness outside it.

A signed head says: at this time, these chains had come this far. Whoever cuts a chain short afterwards contradicts a signature;
whoever removes the signature contradicts the next one, or the witness file.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from interlock.ledger.witness import append_witness, last_witnessed
from interlock.store.database import UNAVAILABLE, why_not_done
from interlock.store.errors import StoreUnavailableError

CONTEXT: Final = b"interlock/heads/1\n"
MAX_HEADS_AT_ONCE: Final = 5_000
MAX_WITNESSED_AT_ONCE: Final = 100
_LOCK: Final = 0x1_7E_40_C4
_MOVED: Final = """
SELECT c.chain_id, c.head_seq, c.head_link FROM chain c LEFT JOIN signed_chain s USING (chain_id)
WHERE c.head_seq > coalesce(s.seq, 0) ORDER BY c.chain_id LIMIT $1
"""
_THERE: Final = "SELECT EXISTS (SELECT FROM signed_head WHERE n = $1 AND signature = $2)"
_SIGNED_SINCE: Final = "SELECT n, body, signature FROM signed_head WHERE key_id = $1 AND n > $2 ORDER BY n LIMIT $3"
_NEWEST: Final = "SELECT n, body, signature FROM signed_head WHERE key_id = $1 ORDER BY n DESC LIMIT $2"


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """One signature over the heads that moved. `body` is the signed text."""

    n: int
    body: str
    key_id: str
    signature: bytes


def sign(
    number: int, previous: str, at_us: int, heads: Sequence[tuple[str, int, bytes]], key_id: str, private: bytes
) -> SignedHead:
    """Sign heads (chain, seq, link). `previous` is the text of the signed head before, empty for the first."""
    body = msgspec.json.encode(
        {
            "n": number,
            "prev": hashlib.sha256(previous.encode()).hexdigest() if previous else "",
            "at_us": at_us,
            "heads": [[chain, seq, link.hex()] for chain, seq, link in heads],
        }
    )
    signature = Ed25519PrivateKey.from_private_bytes(private).sign(CONTEXT + body)
    return SignedHead(n=number, body=body.decode(), key_id=key_id, signature=signature)


async def sign_heads(pool: asyncpg.Pool[asyncpg.Record], key_id: str, private: bytes, witness: Path, at_us: int) -> int:
    """Sign what moved since the last time; gives the number of heads. One process at a time does it, the others skip.

    Then the witness takes up what was signed since its last line: by whichever process, and also when there was no room then.
    Raises `StoreUnavailableError`, or `OSError` when the witness cannot be written.
    """
    try:
        signed, count = await _signed_heads(pool, key_id, private, at_us)
        # After the commit: a row without its witness line is told as not witnessed, and never a line without its row.
        lines = await _not_witnessed(pool, key_id, private, await asyncio.to_thread(last_witnessed, witness), signed)
    except UNAVAILABLE as error:
        raise StoreUnavailableError(f"the heads were not signed, and are with the next round: {why_not_done(error)}") from error
    if lines:
        await asyncio.to_thread(append_witness, witness, *lines)
    return count


def witness_line(signed: SignedHead) -> dict[str, int | str]:
    """What a witness keeps of a signed head."""
    return {"n": signed.n, "body": signed.body, "key_id": signed.key_id, "signature": signed.signature.hex()}


async def _not_witnessed(
    pool: asyncpg.Pool[asyncpg.Record],
    key_id: str,
    private: bytes,
    last: Mapping[str, Any] | None,
    signed: SignedHead | None,
) -> list[dict[str, int | str]]:
    """The lines that a witness lacks behind its last one, at most so many. Only what bears our signature is taken up."""
    if last is None:
        rows = list(reversed(await pool.fetch(_NEWEST, key_id, MAX_WITNESSED_AT_ONCE)))
    elif await pool.fetchval(_THERE, last["n"], bytes.fromhex(last["signature"])):
        rows = list(await pool.fetch(_SIGNED_SINCE, key_id, last["n"], MAX_WITNESSED_AT_ONCE))
    else:
        # The database was set back: its numbers begin anew, and what is lost is put aside when it is made good.
        return [] if signed is None else [witness_line(signed)]
    public = Ed25519PrivateKey.from_private_bytes(private).public_key()
    heads = (SignedHead(n=row["n"], body=row["body"], key_id=key_id, signature=row["signature"]) for row in rows)
    return [witness_line(head) for head in heads if _is_signed(public, head)]


def _is_signed(public: Ed25519PublicKey, head: SignedHead) -> bool:
    try:
        public.verify(head.signature, CONTEXT + head.body.encode())
    except InvalidSignature:
        return False
    return True


async def _signed_heads(
    pool: asyncpg.Pool[asyncpg.Record], key_id: str, private: bytes, at_us: int
) -> tuple[SignedHead | None, int]:
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
            return None, 0
        moved = await connection.fetch(_MOVED, MAX_HEADS_AT_ONCE)
        if not moved:
            return None, 0
        last = await connection.fetchrow("SELECT n, body FROM signed_head ORDER BY n DESC LIMIT 1")
        heads = [(row["chain_id"], row["head_seq"], row["head_link"]) for row in moved]
        number, previous = (last["n"] + 1, last["body"]) if last is not None else (1, "")
        signed = sign(number, previous, at_us, heads, key_id, private)
        await connection.execute(
            "INSERT INTO signed_head (n, body, key_id, signature) VALUES ($1, $2, $3, $4)",
            signed.n,
            signed.body,
            signed.key_id,
            signed.signature,
        )
        await connection.execute(
            "INSERT INTO signed_chain (chain_id, seq) SELECT * FROM unnest($1::text[], $2::bigint[])"
            " ON CONFLICT (chain_id) DO UPDATE SET seq = excluded.seq",
            [chain for chain, _, _ in heads],
            [seq for _, seq, _ in heads],
        )
    return signed, len(heads)
