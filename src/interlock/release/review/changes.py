"""What a server lists now against what was reviewed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec

from interlock.core.canonical import digest
from interlock.core.contract import Contract, Kind
from interlock.core.listing import ListedTool
from interlock.release.review.scan import plain

MAX_SHOWN_CHARS = 4_000
UNREADABLE = "unreadable"
SEVERAL = "several:"


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


def differences(contracts: Collection[Contract], listed: Iterable[ListedTool]) -> tuple[Difference, ...]:
    """What differs between the contracts of one tool and its server's listing, contracts first.

    Only a `pin` that is a digest can be accepted. Of two listed under one name it is none (which of them a call reaches cannot
    be told), nor of a listing that cannot be read.
    """
    # Completions stand in no listing.
    contracts = [contract for contract in contracts if contract.kind is not Kind.COMPLETION]
    now: dict[tuple[Kind, str], list[ListedTool]] = {}
    for tool in listed:
        now.setdefault((tool.kind, tool.name), []).append(tool)
    found: list[Difference] = []
    for contract in contracts:
        seen = now.get((contract.kind, contract.upstream_name), [])
        try:
            found += _differing(contract, seen)
        except Exception as error:  # noqa: BLE001  # INVARIANT: what cannot be compared is not what was reviewed
            detail = f"its listing cannot be read ({type(error).__name__})"
            found.append(_difference(contract.operation, Change.CHANGED, detail, UNREADABLE))
    known = {(contract.kind, contract.upstream_name) for contract in contracts}
    for key in sorted(now.keys() - known):
        tool = now[key][0]
        found.append(_difference(plain(tool.name, 100), Change.NEW, plain(tool.description, 200), _pin_of(tool)))
    return tuple(found)


def _differing(contract: Contract, seen: list[ListedTool]) -> list[Difference]:
    if not seen and contract.kind is not Kind.TOOL and not contract.reviewed_digest:
        return []  # a server need not list every resource that it has
    if not seen:
        return [_difference(contract.operation, Change.VANISHED, "the server lists it no more")]
    if len(seen) > 1:
        together = digest("\n".join(sorted(_pin_of(tool) for tool in seen)).encode())
        return [_difference(contract.operation, Change.CHANGED, "the server lists it more than once", f"{SEVERAL}{together}")]
    if not contract.reviewed_digest:
        return [_difference(contract.operation, Change.UNPINNED, "reviewed without a digest", _pin_of(seen[0]))]
    pin = seen[0].pin
    if pin == contract.reviewed_digest:
        return []
    return [_difference(contract.operation, Change.CHANGED, changes(contract, seen[0]), pin)]


def _pin_of(tool: ListedTool) -> str:
    try:
        return tool.pin
    except Exception:  # noqa: BLE001  # a server may list what breaks every reader
        return UNREADABLE


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
    return "\n".join(lines)[:MAX_SHOWN_CHARS] or "its title, its hints or its own name"


def _lines(text: str, part: str) -> list[str]:
    if part == "description":
        return text.splitlines()
    return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=True).splitlines()


def _difference(operation: str, state: Change, detail: str, pin: str = "") -> Difference:
    return Difference(operation=operation, state=state, detail=detail, pin=pin)
