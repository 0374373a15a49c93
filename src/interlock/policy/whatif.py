"""What another release would decide about the same requests."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from interlock.core.decision import Allow, Decision, Deny, Obligations, RequireApproval
from interlock.policy.engine import Engine
from interlock.policy.errors import PolicyError
from interlock.policy.obligations import NONE, meet
from interlock.policy.testing import facts_of
from interlock.release.diff.changes import Direction, on_a_line, together
from interlock.release.model import PolicyTest


class DecidedOtherwise(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the two releases decide differently. `old` and `new` are the decisions in a line each."""

    name: str
    place: str
    operation: str
    old: str
    new: str
    direction: Direction


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that were asked of both releases, and those decided differently."""

    asked: int
    differing: tuple[DecidedOtherwise, ...]


def what_would_change(old: Engine, new: Engine, tests: Iterable[PolicyTest]) -> WhatIf:
    """Ask both releases every request of these tests, the same one once, whatever they expect."""
    asked: set[bytes] = set()
    found = []
    for test in tests:
        request = msgspec.structs.replace(test, name="", file="", line=0, expect="", obligations=None)
        key = msgspec.json.encode(request, order="sorted")
        if key in asked:
            continue
        asked.add(key)
        was, now = _decided(old, test), _decided(new, test)
        if told(was) != told(now):
            found.append(
                DecidedOtherwise(
                    name=on_a_line(test.name),
                    place=f"{test.file}:{test.line}" if test.file else "",
                    operation=test.call,
                    old=on_a_line(told(was)),
                    new=on_a_line(told(now)),
                    direction=direction_of(was, now),
                )
            )
    return WhatIf(asked=len(asked), differing=tuple(found))


def _decided(engine: Engine, test: PolicyTest) -> Decision | str:
    """The decision, or why the release cannot be asked this."""
    try:
        return engine.decide(facts_of(engine, test))
    except (PolicyError, ValueError) as error:
        return str(error)


def told(decision: Decision | str) -> str:
    """A decision in a line, without what differs between any two releases (digests, the numbers of grants)."""
    match decision:
        case str():
            return f"cannot be asked: {decision}"
        case Allow(obligations=obligations):
            return f"allow{_obliged(obligations)}"
        case RequireApproval(requirements=requirements, obligations=obligations):
            return f"ask {', '.join(sorted({need.rule for need in requirements}))}{_obliged(obligations)}"
        case Deny(question=question, reasons=reasons):
            return f"deny {question.value} ({', '.join(reason.code for reason in reasons)})"


def _obliged(obligations: Obligations) -> str:
    if obligations == NONE:
        return ""
    plain = {name: value for name, value in msgspec.to_builtins(obligations, order="sorted").items() if value}
    return f", obliged {msgspec.json.encode(plain).decode()}"


def direction_of(old: Decision | str, new: Decision | str) -> Direction:
    """Whether the new decision lets more happen."""
    if isinstance(old, str) or isinstance(new, str):
        return Direction.UNKNOWN
    if isinstance(old, Deny) and isinstance(new, Deny):
        return Direction.NEUTRAL
    if isinstance(old, Deny) or isinstance(new, Deny):
        return Direction.WIDENS if isinstance(old, Deny) else Direction.NARROWS
    return together((_asked(old, new), _narrowed(old.obligations, new.obligations)))


def _asked(old: Allow | RequireApproval, new: Allow | RequireApproval) -> Direction:
    was, now = (
        {need.rule for need in decision.requirements} if isinstance(decision, RequireApproval) else set()
        for decision in (old, new)
    )
    if was == now:
        return Direction.NEUTRAL
    return Direction.NARROWS if was < now else Direction.WIDENS if now < was else Direction.UNKNOWN


def _narrowed(old: Obligations, new: Obligations) -> Direction:
    if old == new:
        return Direction.NEUTRAL
    both = meet(old, new)
    return Direction.NARROWS if both == new else Direction.WIDENS if both == old else Direction.UNKNOWN


def render(found: WhatIf) -> str:
    """The report for people."""
    lines = []
    for item in found.differing:
        lines.append(f"  {item.direction.value:<8} {item.name}: {item.operation}" + (f"  ({item.place})" if item.place else ""))
        lines += [f"           - {item.old}", f"           + {item.new}"]
    lines.append(f"{len(found.differing)} of {found.asked} decisions differ")
    return "\n".join(lines)
