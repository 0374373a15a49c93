"""What a call takes from which budgets, and what a hit means: whom to ask, and as what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import assert_never

import msgspec

from interlock.core.approval import Approval, ApprovalState
from interlock.core.budget import HANDED_DOWN, MAX_UNITS, SHARED, Budget, Charge, Counted, Per, Reserved, units_of
from interlock.core.canonical import JsonValue
from interlock.core.claim import OverBudget
from interlock.core.contract import Contract
from interlock.core.decision import Allow, Reason, RequireApproval, Requirement
from interlock.core.recent import Recent
from interlock.core.who import Parent, Session
from interlock.gateway.governed import Governed
from interlock.gateway.limits import MAX_CACHED_TAKINGS
from interlock.gateway.reading import UnreadableProposalError
from interlock.release.model import ApprovalRule


class Taking(msgspec.Struct, frozen=True, kw_only=True):
    """What one call would take of anything that is counted, whatever its budgets."""

    contract: Contract
    arguments: Mapping[str, JsonValue]
    entities: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What one call takes: `reserved` are its charges as they are recorded, `timed` the accounts that count milliseconds.

    What those reserved is the longest the call may take.
    """

    charges: tuple[Charge, ...]
    reserved: tuple[Reserved, ...]
    timed: tuple[str, ...]


class Takings:
    """What calls take from budgets. What does not depend on their arguments is put together once a session and operation."""

    def __init__(self) -> None:
        self._known: Recent[tuple[str, str, str], tuple[str, Session, Taken]] = Recent(MAX_CACHED_TAKINGS)

    def of(self, governed: Governed, session: Session, run: str, taking: Taking, lifted: frozenset[str]) -> Taken:
        """What this call takes. Raises what `charges` raises."""
        key = (session.session_id, run, taking.contract.operation)
        known = self._known.get(key)
        if known is not None and not lifted and known[0] == governed.release.digest and known[1] == session:
            return known[2]
        budgets = governed.budgets(taking.contract)
        found = charges(budgets, session, run, taking, lifted)
        taken = Taken(charges=found, reserved=_reserved(budgets, found), timed=_timed(budgets, found))
        if not lifted and all(_is_steady(budget, taking.contract) for budget in budgets):
            self._known.put(key, (governed.release.digest, session, taken))
        return taken


def charges(
    budgets: Iterable[Budget], session: Session, run: str, taking: Taking, lifted: frozenset[str] = frozenset()
) -> tuple[Charge, ...]:
    """The charges of one call; `lifted` are the budgets that people let this very call go beyond.

    Raises:
        UnreadableProposalError: an argument that is counted says no amount, or a negative one, which would refill the budget.
    """
    found = list(_handed_down(session))
    for budget in budgets:
        amount = _amount(budget, taking)
        over = budget.per is Per.CALL and amount > budget.limit
        if amount > 0 and (over or budget.per is not Per.CALL):
            account, about = _account(budget, session, run, taking.contract)
            found.append(
                Charge(
                    budget=budget.name,
                    account=account,
                    amount=amount,
                    limit=budget.limit,
                    window_s=budget.window_s,
                    shared=budget.per in SHARED,
                    about=about,
                    lifted=budget.name in lifted,
                )
            )
    return tuple(found)


def lookup_charges(budgets: Iterable[Budget], session: Session, reader: Contract) -> tuple[Charge, ...]:
    """The charges of one reading of the gateway's own: of the budgets that count `lookups`, and of no other.

    Calls that are refused on what was looked up are charged for nothing else, so without this a caller that is told no could
    have a tool read for ever.
    """
    found = []
    for budget in budgets:
        if budget.counted is Counted.LOOKUPS and (not budget.on or reader.operation in budget.on):
            account, about = _account(budget, session, "", reader)
            found.append(
                Charge(budget=budget.name, account=account, amount=1, limit=budget.limit, window_s=budget.window_s, about=about)
            )
    return tuple(found)


def _handed_down(session: Session) -> Iterator[Charge]:
    own = Parent(session_id=session.session_id, agent=session.lineage.agent, max_calls=session.max_calls)
    for holder in (own, *session.parents):
        if holder.max_calls:
            account = f"{HANDED_DOWN}:{holder.session_id}"
            about = f"calls handed down to {holder.agent}, session {holder.session_id}"
            yield Charge(budget=HANDED_DOWN, account=account, amount=1, limit=holder.max_calls, about=about)


def _reserved(budgets: Iterable[Budget], taken: Iterable[Charge]) -> tuple[Reserved, ...]:
    named = {budget.name: budget for budget in budgets}

    def shown(charge: Charge) -> str:
        budget = named.get(charge.budget)
        return str(charge.amount) if budget is None else budget.shown(charge.amount)

    return tuple(Reserved(budget=item.budget, amount=shown(item)) for item in taken if item.account)


def _timed(budgets: Iterable[Budget], taken: Iterable[Charge]) -> tuple[str, ...]:
    named = {budget.name for budget in budgets if budget.counted is Counted.WALL_MS}
    return tuple(item.account for item in taken if item.budget in named)


def _is_steady(budget: Budget, contract: Contract) -> bool:
    """Whether every call of this contract takes the same of the budget, whatever its arguments are."""
    if budget.counted is Counted.ENTITIES:
        return contract.is_read_only or isinstance(contract.entities, int)
    return budget.counted is not Counted.SUM


def policy_id(budget: Budget) -> str:
    """What an approval is said to lift, when it lets one call go beyond a budget."""
    return f"budget:{budget.name}"


def given_for(said: Iterable[Approval], budget: Budget, spent: frozenset[str]) -> str:
    """The approval that lets this very call go beyond the budget; empty when nobody has given one that still holds."""
    for item in said:
        if item.state is ApprovalState.APPROVED and policy_id(budget) in item.policy_ids and item.approval_id not in spent:
            return item.approval_id
    return ""


def question(decision: Allow, budget: Budget, rule: ApprovalRule, over: OverBudget) -> RequireApproval:
    """A hit as people are asked about it."""
    window = f" in {budget.window_s} s" if budget.window_s else ""
    say = (
        f"This call would go beyond the budget {budget.name}: {budget.shown(over.used)} of {budget.shown(budget.limit)} "
        f"per {budget.per.value}{window} are used, and it takes {budget.shown(over.charge.amount)}."
    )
    needed = Requirement(rule=rule.name, policy_id=policy_id(budget), role=rule.role, holds_s=rule.holds_s, show=rule.show)
    return RequireApproval(
        release_digest=decision.release_digest,
        facts_digest=decision.facts_digest,
        engine=decision.engine,
        policies=decision.policies,
        requirements=(needed,),
        reasons=(Reason(code="over_budget", say=say, policy_id=policy_id(budget)),),
        obligations=decision.obligations,
    )


def _amount(budget: Budget, taking: Taking) -> int:
    acts = not taking.contract.is_read_only
    match budget.counted:
        case Counted.CALLS:
            return 1
        case Counted.WRITES:
            return int(acts)
        case Counted.ENTITIES:
            return min(taking.entities, MAX_UNITS) if acts else 0
        case Counted.WALL_MS:
            return taking.contract.timeout_ms
        case Counted.TOKENS | Counted.LOOKUPS:
            return 0  # a tool call takes none
        case Counted.SUM:
            units = units_of(taking.arguments.get(budget.argument))
            if units is None or units < 0:
                # INVARIANT: nothing that a caller sends gives a budget back.
                raise UnreadableProposalError(
                    "invalid_arguments",
                    "this amount is counted, so it must be a number of zero or more with at most four digits after the point",
                    budget.argument,
                )
            return units
        case _:
            assert_never(budget.counted)


def _account(budget: Budget, session: Session, run: str, contract: Contract) -> tuple[str, str]:
    """The name of the counter, and whom it is for as people read it."""
    lineage, prefix = session.lineage, _prefix(budget)
    place = f"{lineage.tenant} in {lineage.environment}"
    match budget.per:
        case Per.CALL:
            return "", ""
        case Per.RUN:
            name = f"{session.root}/{session.run or run}"
            return f"{prefix}{name}", f"run {name}"
        case Per.SESSION:
            return f"{prefix}{session.root}", f"session {session.root}"
        case Per.LINEAGE:
            return f"{prefix}{lineage.id}", f"agent {lineage.agent} for user {lineage.user} of {place}"
        case Per.USER:
            return _shared(prefix, lineage.tenant, lineage.environment, lineage.user), f"user {lineage.user} of {place}"
        case Per.AGENT:
            return _shared(prefix, lineage.tenant, lineage.environment, lineage.agent), f"agent {lineage.agent} of {place}"
        case Per.TENANT:
            return _shared(prefix, lineage.tenant, lineage.environment), f"tenant {place}"
        case Per.OPERATION:
            about = f"operation {contract.operation} of {place}"
            return _shared(prefix, lineage.tenant, lineage.environment, contract.operation), about
        case _:
            assert_never(budget.per)


@lru_cache(2_048)
def _prefix(budget: Budget) -> str:
    # A budget that counts something else, or for others, or over another time, is another counter; another limit is not.
    said = "|".join((budget.counted, budget.per, budget.argument, str(budget.window_s), *budget.on))
    return f"{budget.name}:{hashlib.sha256(said.encode()).hexdigest()[:8]}:{budget.per}:"


@lru_cache(2_048)
def _shared(prefix: str, *names: str) -> str:
    joined = "".join(f"{len(name)}:{name}" for name in names)
    return prefix + hashlib.sha256(joined.encode()).hexdigest()[:24]
