"""A plan that was made before anything untrusted was read: which operations a session may use and, where known, on what.

Values are compared in one form, by the shape that the contract declares: numbers by what they are, all else as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

import msgspec

from interlock.core.canonical import JsonValue, canonical
from interlock.core.choice import Choice
from interlock.core.contract import Contract, DecimalShape, LongShape, OpaqueShape, SetShape, Shape


class PlannedSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a value will come from that is not known yet: a result of `operation`, and of it the `field` (`rows[].email`).

    Without a field the value may stand anywhere in the result. `choose` says in which rows of a list it stands.
    """

    operation: str
    field: str = ""
    choose: Choice | None = None

    @property
    def place(self) -> str:
        """The field, or the choice among its rows, as a place of its own."""
        return self.field if self.choose is None else f"{self.field} with {self.choose.words}"


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operation of a plan. `targets` holds, by target argument, the values it may have; one that is missing is open.

    `sources` holds, by target argument, where its value will come from.
    """

    operation: str
    targets: Mapping[str, tuple[str, ...]] = {}
    sources: Mapping[str, tuple[PlannedSource, ...]] = {}

    @property
    def words(self) -> str:
        """The entry on a line, for people."""
        told = [f"{name}={'|'.join(values)}" for name, values in self.targets.items()]
        for name, sources in self.sources.items():
            told.append(f"{name} from {' or '.join(f'{item.operation} {item.place}'.strip() for item in sources)}")
        return f"{self.operation}({', '.join(told)})" if told else self.operation


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


class PlannedTargets(msgspec.Struct, frozen=True, kw_only=True):
    """The targets of one call that are as planned.

    `fixed` have the very value, `chosen` the one that a choice of the plan comes to, `sourced` one from the field of a result
    that the plan says, `quoted` one from somewhere in a result that the plan says.
    """

    fixed: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()
    sourced: frozenset[str] = frozenset()
    quoted: frozenset[str] = frozenset()


NONE_PLANNED = PlannedTargets()

Held: TypeAlias = Callable[[JsonValue, tuple[PlannedSource, ...]], bool]
"""Whether every value in an argument stands, whole, in a result of this session from one of these sources."""


def names_sources(plan: Plan, operation: str) -> bool:
    """Whether the plan says of a target of this operation where its value will come from."""
    return any(entry.sources for entry in plan.operations if entry.operation == operation)


def choices_of(plan: Plan, operation: str) -> tuple[PlannedSource, ...]:
    """The choices that the plan makes among the rows that an operation returns."""
    listed = (source for entry in plan.operations for sources in entry.sources.values() for source in sources)
    return tuple(dict.fromkeys(source for source in listed if source.choose is not None and source.operation == operation))


def planned(
    plan: Plan, digest: str, contract: Contract, arguments: Mapping[str, JsonValue], held: Held
) -> tuple[Planned, PlannedTargets]:
    """How a call stands to a plan, and which of its targets are as planned.

    What one entry says of several targets belongs together: a recipient of one entry and an amount of another do not agree.
    """
    entries = [entry for entry in plan.operations if entry.operation == contract.operation]
    agreeing = [entry for entry in entries if _agrees(entry, contract, arguments, held)]
    there = {name for name in contract.targets if arguments.get(name) is not None}
    fixed = any(there <= entry.targets.keys() for entry in agreeing)
    named = frozenset(name for entry in agreeing for name in entry.targets)
    placed = [(name, sources) for entry in agreeing for name, sources in entry.sources.items() if name not in named]
    made = [(name, tuple(source for source in sources if source.choose is not None)) for name, sources in placed]
    chosen = frozenset(name for name, sources in made if sources and held(arguments[name], sources))
    fields = [(name, tuple(source for source in sources if source.field)) for name, sources in placed]
    sourced = frozenset(name for name, sources in fields if sources and held(arguments[name], sources)) - chosen
    quoted = frozenset(name for name, _ in placed) - sourced - chosen
    stands = Planned(sealed=True, operation=bool(entries), agrees=bool(agreeing), fixed=fixed, digest=digest)
    return stands, PlannedTargets(fixed=named, chosen=chosen, sourced=sourced, quoted=quoted)


def _agrees(entry: PlannedOperation, contract: Contract, arguments: Mapping[str, JsonValue], held: Held) -> bool:
    for name, allowed in entry.targets.items():
        value = arguments.get(name)
        if value is None or not set(forms(value, contract.arguments.fields.get(name, OpaqueShape()))) <= set(allowed):
            return False
    # A value that comes from somewhere else contradicts the plan as much as another value does.
    return all(arguments.get(name) is not None and held(arguments[name], sources) for name, sources in entry.sources.items())


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
