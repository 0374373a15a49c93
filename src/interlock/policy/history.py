"""What a declared fact says of one call, given the calls before it. Pure.

INVARIANT: of a fact about what may have happened, a call more never makes it less; of one about what was done, a call that
has not succeeded never makes it more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from interlock.core.budget import MAX_UNITS, UNITS_PER_ONE
from interlock.core.canonical import JsonValue
from interlock.core.contract import Contract
from interlock.core.history import Earlier, Form, HistoryFact, PastCall, Recalled, Span, brought, hash_of, hashed, keep

MAX_BECAUSE: Final = 3
MAX_COUNT: Final = 2**53
_NOTHING: Final[Mapping[Form, Recalled]] = {
    Form.FORMERLY: Recalled(value=False),
    Form.ONCE: Recalled(value=False),
    Form.COUNT: Recalled(value=0),
    Form.DISTINCT: Recalled(value=0),
    Form.SUM: Recalled(value="0.0000"),
}


class Present:
    """The call that is decided on, as facts about the past look at it."""

    __slots__ = ("_hashes", "arguments", "at_us", "contract", "lineage_id", "session_id")

    def __init__(
        self, *, contract: Contract, arguments: Mapping[str, JsonValue], lineage_id: str, session_id: str, at_us: int
    ) -> None:
        self.contract = contract
        self.arguments = arguments
        self.lineage_id = lineage_id
        self.session_id = session_id
        self.at_us = at_us
        self._hashes: dict[tuple[str, str], tuple[str, ...] | None] = {}

    def hashes(self, name: str, key: str) -> tuple[str, ...] | None:
        """The forms of an argument, hashed for a lineage; None when this call has no such argument, or nothing in it."""
        if (name, key) not in self._hashes:
            value = self.arguments.get(name)
            self._hashes[name, key] = None if value is None else hashed(self.contract, name, value, key)
        return self._hashes[name, key]

    def as_past(self, names: frozenset[str]) -> PastCall:
        """This call as it would be remembered, succeeded."""
        kept = keep(self.contract, self.arguments, names, self.lineage_id)
        return PastCall(
            claim_id="",
            call_id="",
            session_id=self.session_id,
            lineage_id=self.lineage_id,
            keyed_by=self.lineage_id,
            operation=self.contract.operation,
            at_us=self.at_us,
            state="succeeded",
            values=kept.v,
            units=kept.u,
        )


def nothing(fact: HistoryFact) -> Recalled:
    """What a fact says where nothing has happened."""
    return _NOTHING[fact.form]


def recall(
    fact: HistoryFact,
    calls: Sequence[PastCall],
    present: Present,
    contracts: Mapping[str, Contract],
    *,
    is_complete: bool = True,
) -> Recalled:
    """What a fact says of the present call.

    `calls` are the earlier ones of the lineage and of its work, in any order; `is_complete` is False when older ones were left
    out that might have counted. `contracts` are those of the release, to say what a call brought.
    """
    ours = [call for call in calls if _is_ours(fact, call, present)]
    begins_us = _begins(fact, ours, present)
    found = [
        call
        for call in ours
        if begins_us is not None and call.at_us >= begins_us and _counts(fact, call) and _matches(fact, call, present)
    ]
    found.sort(key=lambda call: (call.at_us, call.claim_id))
    because = tuple(_earlier(call, contracts) for call in found[:MAX_BECAUSE])
    if fact.with_this or fact.form is Form.ONCE:
        this = present.as_past(fact.kept)
        if this.operation in fact.on and _matches(fact, this, present):
            found.append(this)
    unknown = not is_complete and not fact.done
    match fact.form:
        case Form.FORMERLY | Form.ONCE:
            return Recalled(value=bool(found) or unknown, because=because)
        case Form.COUNT:
            return Recalled(value=MAX_COUNT if unknown else len(found), because=because)
        case Form.DISTINCT:
            return Recalled(value=MAX_COUNT if unknown else _distinct(fact, found), because=because)
        case Form.SUM:
            return Recalled(value=shown(MAX_UNITS if unknown else _sum(fact, found)), because=because)


def _is_ours(fact: HistoryFact, call: PastCall, present: Present) -> bool:
    match fact.per:
        case Span.SESSION:
            return call.session_id == present.session_id
        case Span.LINEAGE:
            return call.lineage_id == present.lineage_id
        case Span.WORK:
            return True


def _begins(fact: HistoryFact, calls: Sequence[PastCall], present: Present) -> int | None:
    """The time before which nothing counts, and at which things do; None when nothing counts at all.

    Only what is known to be done draws a line of `since`, where it began: so calls that began while it was under way count.
    """
    begins_us = present.at_us - fact.within_s * 1_000_000 if fact.within_s else 0
    if not fact.since:
        return begins_us
    lines = [call.at_us for call in calls if call.operation in fact.since and call.state == "succeeded"]
    if not lines:
        return None if fact.done else begins_us  # of what was done, nothing was done after a line that was never drawn
    # Of two that began together nobody knows which was first.
    return max(begins_us, max(lines) + (1 if fact.done else 0))


def _counts(fact: HistoryFact, call: PastCall) -> bool:
    if call.operation not in fact.on:
        return False
    return call.state == "succeeded" if fact.done else not (call.unsent and call.state == "failed")


def _matches(fact: HistoryFact, call: PastCall, present: Present) -> bool:
    for past, now in fact.matching.items():
        if not _same(fact, call.values.get(past), present.hashes(now, call.keyed_by)):
            return False
    for past, allowed in fact.where.items():
        wanted = tuple(hash_of(form, call.keyed_by) for form in allowed)
        had = call.values.get(past)
        if had is None:
            if fact.done:
                return False
        elif not set(had) & set(wanted):
            return False
    return True


def _same(fact: HistoryFact, had: tuple[str, ...] | None, has: tuple[str, ...] | None) -> bool:
    """Whether a past value is the present one. Of lists: one item in common, or for what was done all of the present ones."""
    if had is None or has is None:
        return not fact.done
    return set(has) <= set(had) and bool(has) if fact.done else bool(set(has) & set(had))


def _distinct(fact: HistoryFact, found: Sequence[PastCall]) -> int:
    values: set[str] = set()
    for call in found:
        had = call.values.get(fact.argument)
        # What is not known is taken for one value more.
        values.update((call.claim_id,) if had is None and not fact.done else had or ())
    return len(values)


def _sum(fact: HistoryFact, found: Sequence[PastCall]) -> int:
    total = 0
    for call in found:
        units = call.units.get(fact.argument)
        known = fact.argument in call.values
        if units is None and not known and not fact.done:
            return MAX_UNITS
        # A negative amount takes nothing back: what was done was done.
        total += max(0, units or 0)
    return min(total, MAX_UNITS)


def shown(units: int) -> str:
    """A sum as a person writes it, with four digits after the point."""
    return format(Decimal(units) / UNITS_PER_ONE, ".4f")


def _earlier(call: PastCall, contracts: Mapping[str, Contract]) -> Earlier:
    contract = contracts.get(call.operation)
    return Earlier(call_id=call.call_id, operation=call.operation, brought=() if contract is None else brought(contract))
