"""A ledger entry before Postgres has numbered and hashed it."""

from __future__ import annotations

import msgspec

CONTROL_CHAIN = "control"


class EventDraft(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is canonical JSON; `commitment` is HMAC-SHA256(salt, body), 32 bytes. Built by `ledger.draft` only."""

    kind: str
    call_id: str
    body: str
    salt: bytes
    commitment: bytes
