"""Turn an event body into the committed form that the store appends. The one place where salts meet bodies."""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from interlock.core.event import EventDraft
from interlock.core.ports import Ids
from interlock.ledger.events import Body

_ENCODER = msgspec.json.Encoder(order="deterministic")


def draft(body: Body, *, ids: Ids, call_id: str = "") -> EventDraft:
    """An `EventDraft` whose commitment is HMAC-SHA256 over the body's JSON text, keyed by a fresh 16-byte salt."""
    text = _ENCODER.encode(body)
    salt = ids.salt()
    return EventDraft(
        kind=type(body).__struct_config__.tag,  # type: ignore[arg-type]  # every Body carries a str tag
        call_id=call_id,
        body=text.decode(),
        salt=salt,
        commitment=hmac.digest(salt, text, "sha256"),
    )


def read_body(text: str) -> Body:
    """The typed body of a stored event; raises `msgspec.ValidationError` for a kind this version does not know."""
    body: Body = _DECODER.decode(text)
    return body


_DECODER: Final[msgspec.json.Decoder[Body]] = msgspec.json.Decoder(Body)
