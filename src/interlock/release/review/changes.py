"""What a server lists now against what was reviewed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from interlock.core.contract import Contract
from interlock.core.listing import ListedTool
from interlock.release.review.scan import plain

MAX_SHOWN_CHARS = 4_000


class Change(StrEnum):
    """How a listing differs. `changed` and `vanished` are about reviewed operations; `new` ones have no contract."""

    CHANGED = "changed"
    VANISHED = "vanished"
    UNPINNED = "unpinned"
    NEW = "new"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `pin` is the digest of what is listed now, empty when nothing is; `detail` is for people to read."""

    operation: str
    state: Change
    detail: str
    pin: str = ""


def differences(contracts: Iterable[Contract], listed: Iterable[ListedTool]) -> tuple[Difference, ...]:
    """What differs between the contracts of one tool and its server's listing, contracts first.

    Of two listed under one name, both are shown as changed: which of them a call reaches cannot be told.
    """
    now: dict[str, list[ListedTool]] = {}
    for tool in listed:
        now.setdefault(tool.name, []).append(tool)
    found = []
    known = set()
    for contract in contracts:
        known.add(contract.upstream_name)
        seen = now.get(contract.upstream_name, [])
        if not seen:
            found.append(_difference(contract.operation, Change.VANISHED, "the server lists it no more"))
        elif len(seen) > 1:
            found.append(_difference(contract.operation, Change.CHANGED, "the server lists it more than once", seen[-1].pin))
        elif not contract.reviewed_digest:
            found.append(_difference(contract.operation, Change.UNPINNED, "reviewed without a digest", seen[0].pin))
        elif seen[0].pin != contract.reviewed_digest:
            found.append(_difference(contract.operation, Change.CHANGED, changes(contract, seen[0]), seen[0].pin))
    for name in sorted(now.keys() - known):
        tool = now[name][0]
        found.append(_difference(plain(name, 100), Change.NEW, plain(tool.description, 200), tool.pin))
    return tuple(found)


def changes(contract: Contract, seen: ListedTool) -> str:
    """What a reviewer would see differently, as a unified diff; when it is only in hints or titles, that."""
    parts = (
        ("description", contract.description, plain(seen.description, MAX_SHOWN_CHARS)),
        ("input", contract.input_schema, seen.input_schema),
        ("output", contract.output_schema or "null", seen.output_schema or "null"),
    )
    lines: list[str] = []
    for part, before, after in parts:
        old, new = _lines(before, part), _lines(after, part)
        lines += difflib.unified_diff(old, new, f"{part} as reviewed", f"{part} now", lineterm="", n=1)
    return "\n".join(lines)[:MAX_SHOWN_CHARS] or "its title or its hints"


def _lines(text: str, part: str) -> list[str]:
    if part == "description":
        return text.splitlines()
    return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=True).splitlines()


def _difference(operation: str, state: Change, detail: str, pin: str = "") -> Difference:
    return Difference(operation=operation, state=state, detail=detail, pin=pin)
