"""W3C Trace Context: where a call stands in somebody's distributed trace. It correlates; it identifies and allows nothing."""

from __future__ import annotations

import re
from typing import Final

import msgspec

TRACEPARENT: Final = "traceparent"
MAX_TRACEPARENT_CHARS: Final = 128
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?", re.ASCII)
_SAMPLED: Final = 1


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """A span: 32 and 16 lower-case hexadecimal characters, neither all zero; `sampled` is whether its maker records it."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def text(self) -> str:
        """As a `traceparent` of version 00."""
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.sampled)}"


def read_traceparent(text: object) -> TraceContext | None:
    """The span that a `traceparent` names, or None when it names none (W3C Trace Context, section 3.2).

    It comes from strangers, so whatever is not of the form is nothing. Of later versions only what this one knows is read.
    """
    if not isinstance(text, str) or len(text) > MAX_TRACEPARENT_CHARS:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & _SAMPLED))


def first_traced(*said: object) -> TraceContext | None:
    """The span of the first of these that names one; None when none does."""
    return next((found for text in said if (found := read_traceparent(text)) is not None), None)
