"""Plans: sealed before anything untrusted was read, never widened, and what each call is compared with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from interlock.core.canonical import AmbiguousJsonError, JsonValue, canonical, digest, parse_strict
from interlock.core.choice import Choice, Pick, fits
from interlock.core.claim import LineageState
from interlock.core.contract import Contract, OpaqueShape
from interlock.core.decision import Traced
from interlock.core.plan import (
    NONE_PLANNED,
    UNPLANNED,
    Held,
    Plan,
    Planned,
    PlannedOperation,
    PlannedSource,
    PlannedTargets,
    SealedPlan,
    choices_of,
    forms,
    names_sources,
    planned,
)
from interlock.core.ports import Ids
from interlock.core.recent import Recent
from interlock.core.terms import Origin
from interlock.core.who import Session
from interlock.gateway.governed import Governed, Governing
from interlock.gateway.limits import (
    MAX_CACHED_LINEAGES,
    MAX_CACHED_PLAN_BYTES,
    MAX_CHOICE_CHARS,
    MAX_FIELD_PATH_CHARS,
    MAX_PLAN_BYTES,
    MAX_PLAN_OPERATIONS,
    MAX_PLANNED_VALUES,
)
from interlock.gateway.ports import PlanShelf, Standings
from interlock.ledger.contexts import PlanRefused, PlanSealed
from interlock.ledger.drafts import draft

_SAID: Final[Mapping[str, str]] = {
    "no_input": "A plan is made from what the user said in their own channel; they have said nothing in this session yet.",
    "tainted": "A plan is sealed before anything untrusted is read, and this session has read some. It goes on without one.",
    "other": "This session has a plan already, and it is never changed. Keep to it, or ask the user to start anew.",
    "handed_down": "This session was handed down: the plan of the session that all of it began with holds here.",
    "handed_on": "A plan is sealed before work is handed on to other agents, and this session has handed some on.",
    "ended": "This session has ended.",
}
INVALID: Final = "invalid"
_EMPTY_BYTES: Final = 300  # a session that has no plan takes about as much


class PlanRefusedError(Exception):
    """A plan that was not sealed; nothing was changed. `why` is `invalid`, or one of the states that do not allow a plan."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class PlanKept(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed plan. `again`: it was sealed before, by the same words."""

    session_id: str
    digest: str
    operations: tuple[PlannedOperation, ...]
    again: bool


class _Known(msgspec.Struct, frozen=True):
    facts_version: int
    sealed: SealedPlan | None
    size: int


class Plans:
    """The plans of sessions. Every method raises `StoreUnavailableError`: the call is then refused."""

    def __init__(self, shelf: PlanShelf, standings: Standings, governing: Governing, ids: Ids) -> None:
        self._shelf = shelf
        self._standings = standings
        self._governing = governing
        self._ids = ids
        self._known: Recent[str, _Known] = Recent(
            MAX_CACHED_LINEAGES, most_size=MAX_CACHED_PLAN_BYTES, size=lambda known: known.size
        )

    def forget(self) -> None:
        """Know nothing any more: the database has another past now."""
        self._known.clear()

    async def seal(self, session: Session, proposed: bytes) -> PlanKept:
        """Seal a plan as it was proposed (JSON text), or find the same one sealed.

        Raises:
            PlanRefusedError: it was not; that it was tried is on record.
        """
        standing = await self._standings.load(session)
        if standing is None:
            raise PlanRefusedError("ended", _SAID["ended"])
        governed = await self._governing.in_force(standing.release_digest, standing.epochs.release)
        try:
            plan = read_plan(governed, session, proposed)
        except PlanRefusedError as refused:
            await self._refuse(session, digest(proposed), refused.why, str(refused))
            raise
        body = canonical(msgspec.to_builtins(plan)).decode()
        name = digest(body.encode())
        event = draft(
            PlanSealed(
                digest=name,
                agent=session.lineage.agent,
                operations=plan.operations,
                release_digest=governed.release.digest,
            ),
            ids=self._ids,
        )
        answer = await self._shelf.seal(session, name, body, event)
        if answer not in {"sealed", "same"}:
            await self._refuse(session, name, answer, "")
            raise PlanRefusedError(answer, _SAID[answer])
        self._keep(session.session_id, 0, SealedPlan(digest=name, plan=plan, proposed=proposed))
        return PlanKept(session_id=session.session_id, digest=name, operations=plan.operations, again=answer == "same")

    async def holds(self, session: Session, proposed: bytes) -> None:
        """As `seal`, for a plan that comes with every call: asks nobody when this very text is known to be sealed."""
        known = self._known.get(session.session_id)
        if known is not None and known.sealed is not None and known.sealed.proposed == proposed:
            return
        await self.seal(session, proposed)

    async def of(
        self,
        session: Session,
        state: LineageState,
        contract: Contract,
        arguments: Mapping[str, JsonValue],
        holding: Callable[[Session], Awaitable[Held]] | None = None,
    ) -> tuple[Planned, PlannedTargets]:
        """How a call stands to the plan of its session, and which of its targets are as planned.

        `holding` gives what the session's results hold; without it they hold nothing.

        INVARIANT: sealing a plan changes the version of the facts, so that no call is claimed that was decided without it.
        """
        known = await self._current(session, state)
        if known.sealed is None:
            return UNPLANNED, NONE_PLANNED
        plan = known.sealed.plan
        held: Held = _nothing_held
        if holding is not None and names_sources(plan, contract.operation):
            held = await holding(session)
        return planned(plan, known.sealed.digest, contract, arguments, held)

    async def choices(self, session: Session, state: LineageState, operation: str) -> tuple[PlannedSource, ...]:
        """The choices that the session's plan makes among what an operation returns."""
        known = await self._current(session, state)
        return () if known.sealed is None else choices_of(known.sealed.plan, operation)

    async def _current(self, session: Session, state: LineageState) -> _Known:
        known = self._known.get(session.session_id)
        if known is None or (known.sealed is None and known.facts_version < state.facts_version):
            version, sealed = await self._shelf.plan(session)
            known = self._keep(session.session_id, version, sealed)
        return known

    def _keep(self, session_id: str, facts_version: int, sealed: SealedPlan | None) -> _Known:
        size = _EMPTY_BYTES + (0 if sealed is None else len(msgspec.json.encode(sealed)))
        known = _Known(facts_version, sealed, size)
        self._known.put(session_id, known)
        return known

    async def _refuse(self, session: Session, name: str, why: str, detail: str) -> None:
        body = PlanRefused(digest=name, agent=session.lineage.agent, why=why, detail=detail[:500])
        await self._shelf.refused(session, draft(body, ids=self._ids))


def _nothing_held(_: JsonValue, __: tuple[PlannedSource, ...]) -> bool:
    return False


def as_planned(traced: Mapping[str, Traced], targets: PlannedTargets) -> dict[str, Traced]:
    """Origins with what was planned: a value that was chosen before anything untrusted was read came from nothing untrusted.

    It stays so when untrusted text holds the same value later. What the user said or a reviewer trusts stays what it is. Of a
    value that was to come from a result, only the place was chosen.
    """

    def origin(name: str, found: Origin) -> Origin:
        for names, better in (
            (targets.fixed, Origin.PLANNED),
            (targets.chosen, Origin.CHOSEN),
            (targets.sourced, Origin.SOURCED),
            (targets.quoted, Origin.QUOTED),
        ):
            if name in names:
                return min(found, better, key=lambda item: item.rank)
        return found

    return {name: msgspec.structs.replace(item, origin=origin(name, item.origin)) for name, item in traced.items()}


def read_plan(governed: Governed, session: Session, proposed: bytes) -> Plan:
    """A proposed plan, `{"operations": ["tickets.get", {"operation": "payments.refund", "targets": {"order_id": "A1"}}]}`.

    A target has one value, or a list of those that it may have. Where it is not known yet, `sources` says which result it will
    come from: `{"sources": {"order_id": {"operation": "tickets.get", "field": "order_id"}}}`; in which of its rows, `choose`:
    `{"operation": "drive.list", "field": "files[].id", "choose": {"max": "files[].size"}}`. Raises `PlanRefusedError`.
    """
    try:
        found = parse_strict(proposed, max_bytes=MAX_PLAN_BYTES)
    except AmbiguousJsonError as error:
        raise PlanRefusedError(INVALID, f"The plan cannot be read: {error}.") from error
    listed = found.get("operations") if isinstance(found, dict) and set(found) == {"operations"} else None
    if not isinstance(listed, list) or not listed or len(listed) > MAX_PLAN_OPERATIONS:
        raise PlanRefusedError(INVALID, f'A plan is {{"operations": [...]}} with 1 to {MAX_PLAN_OPERATIONS} operations.')
    entries = [_entry(governed, session, item) for item in listed]
    # In one order, without repetitions: the same plan has the same digest.
    unique = {canonical(msgspec.to_builtins(entry)): entry for entry in entries}
    return Plan(operations=tuple(unique[key] for key in sorted(unique)))


def _entry(governed: Governed, session: Session, item: Any) -> PlannedOperation:
    if isinstance(item, str):
        item = {"operation": item}
    if not isinstance(item, dict) or not {"operation"} <= set(item) <= {"operation", "targets", "sources"}:
        raise PlanRefusedError(INVALID, "Each operation of a plan is a name, or {operation, targets, sources}.")
    targets, sources = item.get("targets", {}), item.get("sources", {})
    contract = _contract(governed, session, item["operation"])
    if not isinstance(targets, dict) or not isinstance(sources, dict):
        raise PlanRefusedError(INVALID, f"The targets of {contract.operation} are given by argument.")
    for argument in (*targets, *sources):
        if argument not in contract.targets:
            known = ", ".join(contract.targets) or "none"
            raise PlanRefusedError(INVALID, f"{argument[:80]!r} is no target of {contract.operation}; its targets: {known}.")
    if both := sorted(targets.keys() & sources.keys()):
        raise PlanRefusedError(INVALID, f"{both[0]} of {contract.operation} has a value and a source; give one of the two.")
    kept: dict[str, tuple[str, ...]] = {}
    for argument in sorted(targets):
        values = sorted(set(forms(targets[argument], contract.arguments.fields.get(argument, OpaqueShape()))))
        if targets[argument] is None or len(values) > MAX_PLANNED_VALUES:
            raise PlanRefusedError(INVALID, f"{argument} of {contract.operation}: give 1 to {MAX_PLANNED_VALUES} values.")
        kept[argument] = tuple(values)
    found = {argument: _sources(governed, session, sources[argument]) for argument in sorted(sources)}
    return PlannedOperation(operation=contract.operation, targets=kept, sources=found)


def _sources(governed: Governed, session: Session, given: Any) -> tuple[PlannedSource, ...]:
    """One source or a list of them, each the name of an operation or `{operation, field}`."""
    listed = given if isinstance(given, list) else [given]
    if not 1 <= len(listed) <= MAX_PLANNED_VALUES:
        raise PlanRefusedError(INVALID, f"A target comes from 1 to {MAX_PLANNED_VALUES} sources.")
    found: list[PlannedSource] = []
    for item in listed:
        source = {"operation": item} if isinstance(item, str) else item
        if not isinstance(source, dict) or not {"operation"} <= set(source) <= {"operation", "field", "choose"}:
            raise PlanRefusedError(INVALID, "A source is the name of an operation, or {operation, field, choose}.")
        field = source.get("field", "")
        if not isinstance(field, str) or len(field) > MAX_FIELD_PATH_CHARS:
            raise PlanRefusedError(INVALID, "The field of a source is a path in its output, as `rows[].email`.")
        choose = None if "choose" not in source else _choice(field, source["choose"])
        found.append(
            PlannedSource(operation=_contract(governed, session, source["operation"]).operation, field=field, choose=choose)
        )
    unique = {(source.operation, source.place): source for source in found}
    return tuple(unique[key] for key in sorted(unique))


def _choice(field: str, given: Any) -> Choice:
    """`{max: PATH}`, `{min: PATH}`, `{first: true}` or `{last: true}`, and `where: {PATH: VALUE}`, in the rows of the field."""
    words = 'Rows are chosen by {"max": PATH}, {"min": PATH}, {"first": true} or {"last": true}, and {"where": {PATH: VALUE}}.'
    if not isinstance(given, dict):
        raise PlanRefusedError(INVALID, words)
    where = given.get("where", {})
    picks = [name for name in given if name != "where"]
    if len(picks) > 1 or not isinstance(where, dict) or len(where) > MAX_PLANNED_VALUES:
        raise PlanRefusedError(INVALID, words)
    if any(not isinstance(item, str | int) or isinstance(item, bool) for item in where.values()):
        raise PlanRefusedError(INVALID, "Rows are chosen where a field is a text or a whole number.")
    pick = next((item for item in Pick if picks == [item.value]), None)
    by = given[picks[0]] if pick in {Pick.MAX, Pick.MIN} else ""
    if (picks and pick is None) or not isinstance(by, str) or (pick in {Pick.FIRST, Pick.LAST} and given[picks[0]] is not True):
        raise PlanRefusedError(INVALID, words)
    choice = Choice(pick=pick, by=by, where=tuple(sorted((path, str(value)) for path, value in where.items())))
    if not fits(field, choice) or len(choice.words) > MAX_CHOICE_CHARS:
        raise PlanRefusedError(
            INVALID, "Field and choice are paths in the rows of one list, as `files[].id` and `files[].size`."
        )
    return choice


def _contract(governed: Governed, session: Session, name: Any) -> Contract:
    contract = governed.contract(name) if isinstance(name, str) and session.may_use(name) else None
    if contract is None:
        raise PlanRefusedError(INVALID, f"There is no operation {str(name)[:80]!r} in this session.")
    return contract
