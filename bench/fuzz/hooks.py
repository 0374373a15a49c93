"""What schemathesis cannot know from a document: the names of operations, so that some of its calls reach the tool."""

from __future__ import annotations

from typing import Any, Final

import schemathesis

from bench.fuzz.places import CALLS

KNOWN: Final[tuple[dict[str, Any], ...]] = (
    {"operation": "shop.stock", "arguments": {"item": "tea"}},
    {"operation": "shop.note", "arguments": {"text": "hello"}},
    {"operation": "shop.pay", "arguments": {"order_id": "A1", "amount": "20.00"}},
    {"operation": "shop.refund", "arguments": {"order_id": "A1", "amount": "20.00"}},
)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Every other call is one of a known operation, with what was made up beside it."""
    if context.operation.path != CALLS or not isinstance(body, dict) or len(repr(body)) % 2:
        return body
    named = body.get("operation")
    if not isinstance(named, str) or not named or not isinstance(body.get("arguments"), dict):
        return body  # made up to be refused, and would not be any more
    return {**body, **KNOWN[len(repr(body)) // 2 % len(KNOWN)]}
