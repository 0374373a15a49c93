"""One evaluation by Cedar, through the smallest door there is: given bytes in, what fired out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar

import cedarpy
import msgspec
from cedarpy import _internal as _native

MEMO_MAX_ENTRIES: Final = 4_096
MAX_DETAIL_CHARS: Final = 500
_ALLOW: Final = "Allow"

Value = TypeVar("Value")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy set said: `fired` are the permits behind an Allow or the forbids behind a Deny. Any error is a no."""

    allowed: bool
    fired: tuple[str, ...]
    errors: tuple[str, ...] = ()


class Memo(Generic[Value]):
    """Remembers the most recently used answers, up to `max_entries`."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The remembered answer, or None."""
        value = self._entries.get(key)
        if value is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:  # another thread has just dropped it; the value is as good as before
                return value
        return value

    def values(self) -> Iterator[Value]:
        """What is remembered at present."""
        return iter(tuple(self._entries.values()))

    def put(self, key: Hashable, value: Value) -> None:
        """Remember an answer and forget the one unused for longest."""
        self._entries[key] = value
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: tuple[str, ...]
    errors: tuple[Any, ...]


class _Answer(msgspec.Struct, frozen=True):
    decision: Literal["Allow", "Deny"]
    diagnostics: _Diagnostics


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def evaluate(policies: cedarpy.PolicySet, request: dict[str, Any], entities: cedarpy.Entities) -> Outcome:
    """Ask Cedar. Never raises: whatever goes wrong is an outcome with errors, which is a no.

    Past cedarpy's own wrapper, which costs a third of the whole (it copies the request, and reads the answer into objects of
    its own): its native function takes the same request and gives the answer as JSON text. The version is pinned, and a test
    compares both ways.
    """
    try:
        (text,) = _native.is_authorized_batch([request], policies, entities._inner, None, False)  # noqa: SLF001
        answer = _ANSWER.decode(text)
        if answer.decision == _ALLOW and not answer.diagnostics.reason:
            raise ValueError("Cedar allows and names no policy")  # noqa: TRY301 told as whatever else goes wrong here
        errors = tuple(sorted(str(error)[:MAX_DETAIL_CHARS] for error in answer.diagnostics.errors))
        allowed = answer.decision == _ALLOW and not errors
        return Outcome(allowed=allowed, fired=tuple(sorted(answer.diagnostics.reason)), errors=errors)
    except Exception as error:  # noqa: BLE001 whatever the binding raises, the answer is no
        return failed(error)


def failed(error: Exception) -> Outcome:
    """The outcome of an evaluation that could not be made."""
    return Outcome(allowed=False, fired=(), errors=(f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS],))
