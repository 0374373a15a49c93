"""Policies with what stands about a session written into them, so that each call shows Cedar only what moves.

Reading a context costs Cedar more than answering: each attribute about 4 µs, and most of them (who, for whom, under which
posture) are the same from call to call. So a set of policies that is asked again and again under one standing is parsed once
more, with `context.session.task` replaced by its value. That changes no answer: an attribute of a record that is known is
its value. Whatever reads the standing parts in another way is left as it is, and then they are shown as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cedarpy
import msgspec

from interlock.policy.errors import UnusableReleaseError
from interlock.policy.reads import WHOLE, access
from interlock.policy.slices import STANDING, Handle, parse_set

PINNED_MAX_ENTRIES: Final = 256
PIN_AFTER_USES: Final = 32
"""Parsing a set costs as much as some thirty calls save, so it is done when that many have shown that more will come."""


class Pin:
    """One set of policies under one standing: how often it was asked for, and the set once it is pinned."""

    __slots__ = ("policies", "uses")

    def __init__(self) -> None:
        self.uses = 0
        self.policies: cedarpy.PolicySet | None = None


class _UnpinnableError(Exception):
    """A policy reads the standing parts in a way that cannot be written into it."""


def pinned(handle: Handle, standing: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet | None:
    """The handle's policies for exactly this standing; None when they have to be shown it."""
    try:
        texts = {rule.policy.id: _rewritten(rule.est, standing) for rule in handle.rules}
        return parse_set(texts, guard_permit=handle.guard_permit)
    except (_UnpinnableError, UnusableReleaseError):
        return None


def _rewritten(est: str, standing: Mapping[str, Mapping[str, Any]]) -> str:
    return msgspec.json.encode(_with(msgspec.json.decode(est), standing)).decode()


def _with(node: Any, standing: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(node, list):
        return [_with(item, standing) for item in node]
    if not isinstance(node, dict) or "Value" in node:
        return node
    # A scope has no variables, and an annotation no syntax tree; both come through as they are.
    if node.get("Var") == "context":
        raise _UnpinnableError  # as a whole
    path = access(node)
    if path is not None and path[0] == "context":
        return _read(node, path[1:], standing)
    return {key: _with(item, standing) for key, item in node.items()}


def _read(node: Mapping[str, Any], path: Sequence[str], standing: Mapping[str, Mapping[str, Any]]) -> Any:
    """An attribute of the context, or the test whether it is there."""
    section, below = path[0], path[1:]
    if section not in STANDING:
        return node
    if len(below) != 1 or below[0] == WHOLE or section not in standing:
        raise _UnpinnableError
    known = standing[section]
    if "has" in node:
        return {"Value": below[0] in known}
    if below[0] not in known:
        raise _UnpinnableError  # an error of evaluation, which says what is missing
    return _literal(known[below[0]])


def _literal(value: Any) -> dict[str, Any]:
    if isinstance(value, (list, tuple)):
        return {"Set": [_literal(item) for item in value]}
    if type(value) not in {str, int, bool}:
        raise _UnpinnableError
    return {"Value": value}
