"""Two releases compared as a whole, and the report."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.release.diff.changes import Change, Direction, Lines, on_a_line
from interlock.release.diff.contracts import contract_changes
from interlock.release.diff.grants import FILE, grant_changes
from interlock.release.diff.limits import budget_changes
from interlock.release.diff.parts import part_changes
from interlock.release.diff.past import history_changes
from interlock.release.diff.policies import GRANTED, policy_changes
from interlock.release.diff.risk import risk_changes
from interlock.release.diff.trust import issuer_changes
from interlock.release.model import Release
from interlock.release.ownership import changed, owners_of

_NOBODY: Final = "nobody"
_MARKS: Final = {
    Direction.WIDENS: "WIDENS",
    Direction.NARROWS: "narrows",
    Direction.NEUTRAL: "neutral",
    Direction.UNKNOWN: "UNKNOWN",
}
_ORDER: Final = (Direction.WIDENS, Direction.UNKNOWN, Direction.NARROWS, Direction.NEUTRAL)
# What each part of a loaded release is compared by, and the file or folder it is written in. A part that is not here is new,
# and a difference in it is unknown.
SEEN_AS: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "name": (frozenset({"release"}), "release.yaml"),
    "owners": (frozenset({"owners"}), "release.yaml"),
    "user_attributes": (frozenset({"user attribute"}), "release.yaml"),
    "administration": (frozenset({"administration"}), "release.yaml"),
    "guarded": (frozenset({"guarded posture"}), "release.yaml"),
    "identities": (frozenset({"identity"}), "agents.yaml"),
    "tasks": (frozenset({"task"}), "tasks.yaml"),
    "tools": (frozenset({"tool"}), "tools"),
    "contracts": (frozenset({"operation"}), "tools"),
    "approvals": (frozenset({"approval rule"}), "approvals.yaml"),
    "issuers": (frozenset({"issuer"}), "issuers.yaml"),
    "budgets": (frozenset({"budget"}), "budgets.yaml"),
    "risk": (frozenset({"risk", "canary"}), "risk.yaml"),
    "history": (frozenset({"history"}), "history.yaml"),
    "policies": (frozenset({"policy", "grant", "identity", "operation"}), "policies"),
    "cedar_schema": (frozenset({"operation", "user attribute", "history"}), "release.yaml"),
    "tests": (frozenset({"test"}), "tests"),
}
TEXT: Final = frozenset({"files", "digest"})


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """How `new` differs from `old` (digests). `files` are those whose text differs."""

    old: str
    new: str
    files: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many changes there are of each direction."""
        found = Counter(change.direction for change in self.changes)
        return {direction.value: found[direction] for direction in _ORDER}

    def of(self, *directions: Direction) -> tuple[Change, ...]:
        """The changes of these directions."""
        return tuple(change for change in self.changes if change.direction in directions)


def diff(old: Release, new: Release) -> Diff:
    """Every difference, each with its direction: those that widen first, then by place."""
    was, now = Lines(old.files), Lines(new.files)
    found = [
        *grant_changes(old, new, was, now),
        *policy_changes(old, new),
        *contract_changes(old, new, was, now),
        *budget_changes(old, new, was, now),
        *history_changes(old, new, was, now),
        *issuer_changes(old, new, was, now),
        *risk_changes(old, new, was, now),
        *part_changes(old, new, was, now),
    ]
    found += _compiled_otherwise(old, new, found)
    found += _overlooked(old, new, found)
    differing = changed(old.files, new.files)
    # INVARIANT: that nothing is different is said of no file in which, or in whose folder, something is.
    spoken_of = {change.file for change in found}
    explained = {file for file in differing if any(file == place or file.startswith(f"{place}/") for place in spoken_of)}
    found += [_only_text(file, old, new) for file in differing if file not in explained]
    owned = [_finished(change, old) for change in found]
    owned.sort(
        key=lambda change: (_ORDER.index(change.direction), change.file, change.line, change.kind, change.name, change.what)
    )
    return Diff(old=old.digest, new=new.digest, files=differing, changes=tuple(owned))


def _finished(change: Change, old: Release) -> Change:
    return msgspec.structs.replace(
        change,
        name=on_a_line(change.name),
        what=on_a_line(change.what),
        owners=tuple(sorted(owners_of(change.file, old.owners))),
    )


def _only_text(file: str, old: Release, new: Release) -> Change:
    what = "new" if file not in old.files else "gone" if file not in new.files else "written differently"
    return Change(
        direction=Direction.NEUTRAL, kind="file", name=file, what=f"{what}; nothing that decides is different", file=file
    )


def _compiled_otherwise(old: Release, new: Release, found: list[Change]) -> list[Change]:
    """Grants whose words stayed and whose meaning did not: because of something else, which is then listed, or unknown.

    INVARIANT: whatever changes a compiled policy is listed.
    """
    before, after = _compiled(old), _compiled(new)
    explained = {name for change in found if change.kind == "grant" for name in _names(change.name)}
    explained |= {change.name for change in found if change.kind == "operation"}
    agents = {change.name.partition(" in ")[0] for change in found if change.kind == "identity"}
    more = []
    for agent, operation in sorted(before.keys() | after.keys()):
        if before.get((agent, operation)) == after.get((agent, operation)):
            continue
        if agent in agents or operation in explained or f"{agent} {operation}" in explained:
            continue
        more.append(
            Change(
                direction=Direction.UNKNOWN,
                kind="grant",
                name=f"{agent} on {operation}",
                what="the same words come to mean something else",
                file=FILE,
            )
        )
    return more


def _names(name: str) -> list[str]:
    agent, _, operations = name.partition(" on ")
    return [f"{agent} {operation}" for operation in operations.split(", ")]


_COMPILED_ID: Final = re.compile(r"^grant:(?P<agent>.*):(?P<number>\d+):(?P<operation>[^:]+):(?P<layer>[^:]+)(?P<duty>:.*)?$")


def _compiled(release: Release) -> dict[tuple[str, str], Counter[str]]:
    """What grants compile to, by agent and operation, whatever their numbers."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for policy in release.policies:
        parts = _COMPILED_ID.match(policy.id) if policy.id.startswith(GRANTED) else None
        if parts is None:
            continue
        text = policy.cedar.partition("\n")[2]  # the first line is the id
        found[parts["agent"], parts["operation"]][f"{policy.layer.value} {parts['duty']} {text}"] += 1
    return found


def _overlooked(old: Release, new: Release, found: list[Change]) -> list[Change]:
    """Parts of a release that differ and of which nothing was said.

    INVARIANT: a part that this comparison does not know of is unknown, never the same.
    """
    kinds = {change.kind for change in found}
    more = []
    for name in Release.__struct_fields__:
        known, place = SEEN_AS.get(name, (frozenset(), "release.yaml"))
        if name in TEXT or kinds & known:
            continue
        if _meaning(name, getattr(old, name)) != _meaning(name, getattr(new, name)):
            what = "different, in a way that this comparison does not understand"
            more.append(Change(direction=Direction.UNKNOWN, kind="part", name=name, what=what, file=place))
    return more


def _meaning(name: str, value: Any) -> Any:
    """A part without the places where it stands."""
    if name == "policies":
        return Counter(
            (policy.layer, policy.effect, policy.owner, policy.say, policy.approval, policy.obligations, _est(policy.est))
            for policy in value
        )
    if name == "tests":
        return Counter(msgspec.json.encode(msgspec.structs.replace(test, line=0), order="sorted") for test in value)
    if name == "identities":
        return Counter(msgspec.json.encode(item) for item in value)
    return value


def _est(text: str) -> bytes:
    tree = msgspec.json.decode(text)
    if str(tree.get("annotations", {}).get("id", "")).startswith(GRANTED):
        del tree["annotations"]["id"]
    return msgspec.json.encode(tree, order="sorted")


def widening_lines(found: Diff, most: int) -> tuple[str, ...]:
    """What a release opens, or may open, a line each, for the record and for whoever agrees to it; at most so many lines."""
    loud = found.of(Direction.WIDENS, Direction.UNKNOWN)
    lines = [f"{change.direction.value}: {change.kind} {change.name} ({change.place}): {change.what}" for change in loud]
    return tuple(lines[:most]) + ((f"… and {len(lines) - most} more",) if len(lines) > most else ())


def render(found: Diff) -> str:
    """The report for people: by owning team, what widens first."""
    if not found.changes:
        return "no difference"
    by_team: dict[str, list[Change]] = defaultdict(list)
    for change in found.changes:
        by_team[", ".join(change.owners) or _NOBODY].append(change)
    lines: list[str] = []
    for team in sorted(by_team):
        lines.append(f"{team}:")
        for change in by_team[team]:
            lines.append(f"  {_MARKS[change.direction]:<8} {change.kind} {change.name}  ({change.place})")
            lines.append(f"           {change.what}")
    counted = [f"{count} {direction}" for direction, count in found.counts.items() if count]
    lines.append(f"{len(found.changes)} changes: {', '.join(counted)}")
    return "\n".join(lines)
