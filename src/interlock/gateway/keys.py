"""Which earlier call counts as the same one: idempotency keys, their sources and scopes (DESIGN section 4)."""

from __future__ import annotations

import hashlib

import msgspec

from interlock.core.canonical import JsonValue, canonical
from interlock.core.claim import Idempotency
from interlock.core.contract import Contract, Repeat
from interlock.core.who import Lineage
from interlock.gateway.limits import CALLER_KEY_WINDOW_S


class Sameness(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a write, and the digest that a matching claim must carry (`same_hash`). No key: the call may repeat freely."""

    idempotency: Idempotency | None
    same_hash: str


def call_hash(operation: str, arguments: bytes) -> str:
    """`sha256:` digest of the operation and the canonical argument bytes: what a permit and a claim are bound to."""
    return _digest("call", operation.encode(), arguments)


def sameness(
    contract: Contract,
    lineage: Lineage,
    arguments: dict[str, JsonValue],
    raw: bytes,
    *,
    caller_key: str,
    repeat_of: str,
    hashed: str = "",
) -> Sameness:
    """The key of one call: the caller's, else `once_per`, else operation and arguments. Reads have none.

    Scope is tenant, environment, agent, user and operation, so nobody can meet another's key. `repeat_of` makes a call
    that repeats an earlier one on purpose a new one, which is itself done once. `hashed` is the call's hash, where it is known.
    """
    full = hashed or call_hash(contract.operation, raw)
    if contract.is_read_only:
        return Sameness(idempotency=None, same_hash=full)
    if caller_key:
        source, window_s, material, same = "caller", CALLER_KEY_WINDOW_S, caller_key.encode(), full
    elif contract.once_per:
        named: dict[str, JsonValue] = {name: arguments.get(name) for name in contract.once_per}
        material = canonical(named)
        source, window_s, same = "once_per", contract.once_window_s, _digest("once", contract.operation.encode(), material)
    elif contract.repeat is Repeat.ALLOW:
        return Sameness(idempotency=None, same_hash=full)
    else:
        source, window_s, material, same = "arguments", contract.once_window_s, raw, full
    key = hashlib.sha256(
        _joined(
            lineage.id.encode(),
            contract.operation.encode(),
            source.encode(),
            material,
            repeat_of.encode(),
        )
    ).digest()
    return Sameness(idempotency=Idempotency(key=key, source=source, window_s=window_s), same_hash=same)


def _digest(*parts: str | bytes) -> str:
    return "sha256:" + hashlib.sha256(_joined(*[p.encode() if isinstance(p, str) else p for p in parts])).hexdigest()


def _joined(*parts: bytes) -> bytes:
    # INVARIANT: no two different part lists join to the same bytes; each part is preceded by its length.
    return b"".join([len(part).to_bytes(8, "big") + part for part in parts])
