"""A plan that was made before anything untrusted was read: which operations a session may use and, where known, on what.

Values are compared in one form, by the shape that the contract declares: numbers by what they are, all else as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from interlock.core.canonical import JsonValue, canonical
from interlock.core.contract import Contract, DecimalShape, LongShape, OpaqueShape, SetShape, Shape


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operation of a plan. `targets` holds, by target argument, the values it may have; one that is missing is open."""

    operation: str
    targets: Mapping[str, tuple[str, ...]] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a session may do. An operation may stand in it several times, with other targets each time."""

    operations: tuple[PlannedOperation, ...]


class SealedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as sealed. `proposed` is the very text that a caller sends with every call, where that is known."""

    digest: str
    plan: Plan
    proposed: bytes = b""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """How one call stands to the plan of its session. Each of these is false where the one before it is.

    `operation`: the plan names it. `agrees`: nothing that the plan says of its targets contradicts. `fixed`: the plan says
    every target of the call, and they are these. `digest` is the plan's.
    """

    sealed: bool = False
    operation: bool = False
    agrees: bool = False
    fixed: bool = False
    digest: str = ""


UNPLANNED = Planned()


def planned(plan: Plan, digest: str, contract: Contract, arguments: Mapping[str, JsonValue]) -> tuple[Planned, frozenset[str]]:
    """How a call stands to a plan, and which of its targets have the very value that was planned.

    What one entry says of several targets belongs together: a recipient of one entry and an amount of another do not agree.
    """
    entries = [entry for entry in plan.operations if entry.operation == contract.operation]
    agreeing = [entry for entry in entries if _agrees(entry, contract, arguments)]
    there = {name for name in contract.targets if arguments.get(name) is not None}
    fixed = any(there <= entry.targets.keys() for entry in agreeing)
    named = frozenset(name for entry in agreeing for name in entry.targets)
    stands = Planned(sealed=True, operation=bool(entries), agrees=bool(agreeing), fixed=fixed, digest=digest)
    return stands, named


def _agrees(entry: PlannedOperation, contract: Contract, arguments: Mapping[str, JsonValue]) -> bool:
    for name, allowed in entry.targets.items():
        value = arguments.get(name)
        if value is None or not set(forms(value, contract.arguments.fields.get(name, OpaqueShape()))) <= set(allowed):
            return False
    return True


def forms(value: JsonValue, shape: Shape) -> tuple[str, ...]:
    """A value in the form in which it is compared, each item of a list by itself."""
    if isinstance(value, list):
        inner = shape.item if isinstance(shape, SetShape) else shape
        # An empty list is a value too: it must not agree with whatever was planned.
        return tuple(_unique(form for item in value for form in forms(item, inner))) or ("[]",)
    if isinstance(shape, SetShape):
        shape = shape.item
    if isinstance(shape, DecimalShape | LongShape) and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = Decimal(str(value).strip())
        except InvalidOperation:
            return (str(value),)
        return (format(number.normalize(), "f") if number.is_finite() else str(value),)
    if isinstance(value, str):
        return (value,)
    return (canonical(value).decode(),)


def _unique(items: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(items)
