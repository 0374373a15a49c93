"""How budgets stand, for people who may see the status."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.budget import HANDED_DOWN, Budget, Counted, Per
from interlock.core.ports import Clock
from interlock.core.who import Person
from interlock.store.budgets import Budgets, Usage

MAX_LISTED: Final = 200
# From this share of its limit on a budget is nearly used up: early enough to raise it, late enough to mean something.
NEARLY_PERCENT: Final = 80
MAX_TIGHT: Final = 20
TIGHT_HOLDS_S: Final = 5.0
MAX_TENANTS_REMEMBERED: Final = 1_000
_NEVER: Final = float("-inf")


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """One budget for one of those it is counted for. Amounts are texts: sums of money are exact.

    `used` includes what is `reserved` by calls whose end is not known; `slices` is among how many processes a shared
    budget is handed out. `in_force` is false for one that the release no longer has, or counts otherwise.
    """

    name: str
    about: str
    tenant: str
    environment: str
    counts: str
    per: str
    limit: str
    used: str
    reserved: str
    window_s: int = 0
    asks: str = ""
    slices: int = 0
    in_force: bool = True


class PeoplesBudgets:
    """The budgets of the plane."""

    def __init__(self, budgets: Budgets, admin: AdminGate, *, environment: str, clock: Clock) -> None:
        self._budgets = budgets
        self._admin = admin
        self._environment = environment
        self._clock = clock
        self._tight: dict[str, tuple[float, tuple[Usage, ...]]] = {}
        self._asking = asyncio.Lock()

    async def usage(self, person: Person, *, name: str = "", limit: int = 50) -> tuple[BudgetView, ...]:
        """The fullest first, of the person's tenant or, for an operating one, of all. Raises `NotPermittedError`."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        found = await self._budgets.usage(tenant=tenant, environment=self._environment, name=name, limit=min(limit, MAX_LISTED))
        named = {budget.name: budget for budget in release.budgets}
        return tuple(_view(item, named.get(item.name)) for item in found)

    async def tight(self, person: Person) -> tuple[BudgetView, ...]:
        """Those in force that are nearly used up, the fullest first, some seconds old. Raises `NotPermittedError`.

        However many people look, every counter is looked at once in `TIGHT_HOLDS_S`.
        """
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        async with self._asking:
            until_s, found = self._tight.get(tenant, (_NEVER, ()))
            if until_s <= self._clock.monotonic_s():
                found = await self._budgets.tight(
                    tenant=tenant, environment=self._environment, percent=NEARLY_PERCENT, limit=MAX_TIGHT
                )
                if len(self._tight) >= MAX_TENANTS_REMEMBERED:
                    self._tight.clear()
                self._tight[tenant] = (self._clock.monotonic_s() + TIGHT_HOLDS_S, found)
        named = {budget.name: budget for budget in release.budgets}
        views = (_view(item, named.get(item.name)) for item in found)
        return tuple(view for view in views if view.in_force and percent_used(view) >= NEARLY_PERCENT)


def percent_used(view: BudgetView) -> int:
    """How much of the limit in force is used; more than a hundred where it was lowered, or people let more through."""
    limit = Decimal(view.limit)
    return int(Decimal(view.used) * 100 / limit) if limit else 100


def _view(item: Usage, budget: Budget | None) -> BudgetView:
    in_force = item.name == HANDED_DOWN or (budget is not None and budget.window_s == item.window_s)
    if budget is None:
        budget = Budget(name=item.name, counted=Counted.CALLS, per=Per.SESSION, limit=item.cap)
    return BudgetView(
        name=item.name,
        about=item.about,
        tenant=item.tenant,
        environment=item.environment,
        counts=budget.counted.value,
        per=budget.per.value,
        limit=budget.shown(item.cap if item.name == HANDED_DOWN else budget.limit),
        used=budget.shown(item.used),
        reserved=budget.shown(item.held),
        window_s=item.window_s,
        asks=budget.rule,
        slices=item.slices,
        in_force=in_force,
    )
