"""The smaller parts: agents' identities, tasks, approval rules, who administers and owns, attributes, tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from interlock.release.diff.changes import (
    Change,
    Direction,
    Found,
    Lines,
    Rule,
    always,
    differences,
    flipped,
    more_is,
    step,
    together,
)
from interlock.release.model import Release
from interlock.release.ownership import owners_of

_ADDED: Final = {True: Direction.WIDENS, False: Direction.NARROWS}
_NEUTRAL: Final = always(Direction.NEUTRAL)
_MORE: Final = more_is(Direction.WIDENS)
_RELEASE: Final = "release.yaml"
_UNSURE: Final = always(Direction.UNKNOWN)
LISTS_BY_NAME: Final = frozenset({"teams", "enforcement_points"})
# A field that is in no table is unknown too; here it is known to be.
IDENTITY_RULES: Final[Mapping[str, Rule]] = {"agent": _UNSURE, "environment": _UNSURE, "issuer": _UNSURE, "subject": _UNSURE}
TASK_RULES: Final[Mapping[str, Rule]] = {"name": _UNSURE, "purpose": _UNSURE, "open_to": _MORE, "agents": _MORE}
# A rule that nothing asks by decides nothing; what asks by it is a change of its own. `show` is an order of reading.
APPROVAL_RULES: Final[Mapping[str, Rule]] = {
    "name": _UNSURE,
    "role": _UNSURE,
    "exclude": _UNSURE,
    "holds_s": _MORE,
    "show": _NEUTRAL,
}


def part_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """Everything but grants, policies, tools and operations."""
    return [
        *_identities(old, new, was, now),
        *_tasks(old, new, was, now),
        *_approvals(old, new, was, now),
        *_administration(old, new, now),
        *_guarded(old, new, now),
        *_owners(old, new, now),
        *_attributes(old, new, now),
        *_tests(old, new),
    ]


def _named(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    change: Callable[[str, Direction, str], Change],
    added: Direction,
    told: Callable[[Any], str],
    rules: Mapping[str, Rule],
) -> list[Change]:
    """Things with names that came, went or changed in their fields."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(change(name, added, f"new: {told(new)}"))
        elif new is None:
            found.append(change(name, flipped(added), f"gone: {told(old)}"))
        else:
            found += [change(name, direction, what) for direction, what in differences(old, new, rules)]
    return found


def _identities(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    before = {f"{item.agent} in {item.environment}": item for item in old.identities}
    after = {f"{item.agent} in {item.environment}": item for item in new.identities}

    def change(name: str, direction: Direction, what: str) -> Change:
        lines, item = (now, after[name]) if name in after else (was, before[name])
        line = lines.of("agents.yaml", item.agent, item.environment)
        return Change(direction=direction, kind="identity", name=name, what=what, file="agents.yaml", line=line)

    return _named(before, after, change, Direction.WIDENS, lambda item: f"{item.subject} of {item.issuer}", IDENTITY_RULES)


def _tasks(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    def change(name: str, direction: Direction, what: str) -> Change:
        line = (now if name in new.tasks else was).of("tasks.yaml", name)
        return Change(direction=direction, kind="task", name=name, what=what, file="tasks.yaml", line=line)

    return _named(
        old.tasks,
        new.tasks,
        change,
        Direction.WIDENS,
        lambda task: f"{task.purpose}; open to {', '.join(task.open_to)}; {', '.join(task.agents)}",
        TASK_RULES,
    )


def _approvals(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    def change(name: str, direction: Direction, what: str) -> Change:
        line = (now if name in new.approvals else was).of("approvals.yaml", name)
        return Change(direction=direction, kind="approval rule", name=name, what=what, file="approvals.yaml", line=line)

    return _named(old.approvals, new.approvals, change, Direction.NEUTRAL, lambda rule: f"{rule.role} approve", APPROVAL_RULES)


def _administration(old: Release, new: Release, now: Lines) -> list[Change]:
    def change(name: str, found: Found) -> Change:
        line = now.of(_RELEASE, "administration", name)
        return Change(direction=found[0], kind="administration", name=name, what=found[1], file=_RELEASE, line=line)

    changes = []
    for name in type(old.administration).__struct_fields__:
        was, is_now = getattr(old.administration, name), getattr(new.administration, name)
        if was == is_now:
            continue
        if isinstance(was, tuple) and isinstance(is_now, tuple):
            changes.append(change(name, (_MORE(was, is_now), step(was, is_now))))
        elif isinstance(was, Mapping) and name in LISTS_BY_NAME:
            # Members of a team, or the tenants that an enforcement point may ask about.
            for key in sorted(was.keys() | is_now.keys()):
                listed = was.get(key, ()), is_now.get(key, ())
                if listed[0] != listed[1]:
                    changes.append(change(name, (_MORE(*listed), f"{key}: {step(*listed)}")))
        else:
            changes.append(change(name, (Direction.UNKNOWN, step(was, is_now))))
    return changes


def _guarded(old: Release, new: Release, now: Lines) -> list[Change]:
    """What becomes of writes under a guarded posture: refused, or put to people by a rule."""
    if old.guarded == new.guarded:
        return []
    direction = Direction.UNKNOWN
    if not old.guarded or not new.guarded:
        direction = _ADDED[bool(new.guarded)]
    what = f"writes are {_under_guarded(old)} → {_under_guarded(new)}"
    return [
        Change(
            direction=direction,
            kind="guarded posture",
            name="guarded",
            what=what,
            file=_RELEASE,
            line=now.of(_RELEASE, "guarded"),
        )
    ]


def _under_guarded(release: Release) -> str:
    return f"asked about by {release.guarded}" if release.guarded else "refused"


def _owners(old: Release, new: Release, now: Lines) -> list[Change]:
    """Who must stand behind a change. Fewer teams for a file: more can be changed."""
    if old.owners == new.owners:
        return []
    found = []
    files = old.files.keys() | new.files.keys()
    direction = together(more_is(Direction.NARROWS)(owners_of(file, old.owners), owners_of(file, new.owners)) for file in files)
    for team in sorted(old.owners.keys() | new.owners.keys()):
        was, places = old.owners.get(team, ()), new.owners.get(team, ())
        if was != places or (team in old.owners) != (team in new.owners):
            what = f"owns {step(was, places)}"
            line = now.of(_RELEASE, "owners", team)
            # Files that are still to come have owners too, so that no present file is touched says little.
            told = Direction.UNKNOWN if direction is Direction.NEUTRAL and set(was) != set(places) else direction
            found.append(Change(direction=told, kind="owners", name=team, what=what, file=_RELEASE, line=line))
    return found


def _attributes(old: Release, new: Release, now: Lines) -> list[Change]:
    found = []
    for name in sorted(old.user_attributes.keys() | new.user_attributes.keys()):
        was, kind = old.user_attributes.get(name), new.user_attributes.get(name)
        if was != kind:
            # An attribute decides nothing by being known; the policies that read it changed too, and are listed.
            direction = Direction.NEUTRAL if was is None or kind is None else Direction.UNKNOWN
            line = now.of(_RELEASE, "user_attributes", name)
            found.append(
                Change(direction=direction, kind="user attribute", name=name, what=step(was, kind), file=_RELEASE, line=line)
            )
    if old.name != new.name:
        line = now.of(_RELEASE, "name")
        what = step(old.name, new.name)
        found.append(Change(direction=Direction.NEUTRAL, kind="release", name="name", what=what, file=_RELEASE, line=line))
    return found


def _tests(old: Release, new: Release) -> list[Change]:
    """Tests decide nothing, but one less is worth a look."""
    before = {_test_key(test): test for test in old.tests}
    after = {_test_key(test): test for test in new.tests}
    found = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        what = "new" if was is None else "gone" if now is None else "changed"
        test = now or was
        if test is not None and (was is None or now is None or _unplaced(was) != _unplaced(now)):
            found.append(
                Change(
                    direction=Direction.NEUTRAL,
                    kind="test",
                    name=test.name,
                    what=f"{what}: expects {test.expect}",
                    file=test.file,
                    line=test.line,
                )
            )
    return found


def _test_key(test: Any) -> tuple[str, str]:
    return test.file, test.name


def _unplaced(test: Any) -> Any:
    return msgspec.structs.replace(test, line=0)
