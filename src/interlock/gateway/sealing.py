"""What a tool says for itself while it waits for answers, bound to the call that it was said for.

So nobody uses it for another: a tool with one credential for all its users could not tell whose state it gets back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

from interlock.core.who import Session
from interlock.gateway.messages import CallResult, Returned
from interlock.gateway.work import Work

_STATE: Final = b"interlock/request-state"


class Sealed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller gets to send back with its answers: the tool's own `state`, and how the call goes on.

    With `claim_id` the answers are for the claim of the call `call_id`, whose attempt `attempt` asked.
    With `held` they are for a call that is still under way in one process, and asked for the time `attempt`.
    """

    state: str | None = None
    claim_id: str = ""
    call_id: str = ""
    attempt: int = 0
    held: str = ""


class Seals:
    """Seals and opens them."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is one for all processes."""
        self._key = hmac.digest(secret, _STATE, "sha256")

    def seal(self, session: Session, operation: str, raw: bytes, what: Sealed) -> str:
        """The state as the caller gets it, for this lineage and this very call; `raw` are its arguments as hashed."""
        body = msgspec.json.encode(what)
        return base64.urlsafe_b64encode(self._tag(session, operation, raw, body) + body).decode()

    def sealed(self, result: CallResult, work: Work) -> CallResult:
        """A result with its state, if it has one, sealed for this call.

        INVARIANT: where a tool may have acted before it asked, the answers lead back to its claim and to no new one.
        """
        if not isinstance(result, Returned) or result.asks is None:
            return result
        what = Sealed(state=result.asks.state)
        if not work.is_undone_when_it_asks:
            claimed = work.claimed
            what = Sealed(
                state=result.asks.state,
                claim_id=claimed.claim_id,
                call_id=work.first_call or work.call_id,
                attempt=claimed.attempt,
            )
        elif result.asks.state is None:
            return result
        state = self.seal(work.session, work.contract.operation, work.arguments, what)
        return msgspec.structs.replace(result, asks=msgspec.structs.replace(result.asks, state=state))

    def open(self, session: Session, operation: str, raw: bytes, sealed: str) -> Sealed | None:
        """What was sealed; None when it was not given to this lineage for this very call."""
        try:
            data = base64.b64decode(sealed, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        tag, body = data[:32], data[32:]
        if not hmac.compare_digest(tag, self._tag(session, operation, raw, body)):
            return None
        return msgspec.json.decode(body, type=Sealed)

    def _tag(self, session: Session, operation: str, raw: bytes, body: bytes) -> bytes:
        parts = (session.lineage.id.encode(), operation.encode(), raw, body)
        joined = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, joined, hashlib.sha256)
