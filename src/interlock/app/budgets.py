"""How budgets stand, for people who may see the status."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.budget import HANDED_DOWN, Budget, Counted, Per
from interlock.core.who import Person
from interlock.store.budgets import Budgets, Usage

MAX_LISTED: Final = 200


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

    def __init__(self, budgets: Budgets, admin: AdminGate, *, environment: str) -> None:
        self._budgets = budgets
        self._admin = admin
        self._environment = environment

    async def usage(self, person: Person, *, name: str = "", limit: int = 50) -> tuple[BudgetView, ...]:
        """The fullest first, of the person's tenant or, for an operating one, of all. Raises `NotPermittedError`."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        found = await self._budgets.usage(tenant=tenant, environment=self._environment, name=name, limit=min(limit, MAX_LISTED))
        named = {budget.name: budget for budget in release.budgets}
        return tuple(_view(item, named.get(item.name)) for item in found)


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
