"""What needs a person's eye: calls whose end is not known, tools that are unstable, budgets that are nearly used up."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

import msgspec

from interlock.app.budgets import BudgetView, percent_used
from interlock.app.doubts import DoubtView
from interlock.app.plane import Plane
from interlock.core.who import Person
from interlock.store.breakers import BreakerRow

MAX_DOUBTS_SHOWN: Final = 20
MAX_BUDGETS_SHOWN: Final = 10


class Unstable(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that some process lets no call through to; `waits_ms` until it is tried again."""

    operation: str
    processes: int
    calls: int
    failed: int
    waits_ms: int


class Tight(msgspec.Struct, frozen=True, kw_only=True):
    """A budget at or near its limit; `percent` of it is used."""

    budget: BudgetView
    percent: int


async def troubles_part(plane: Plane, person: Person) -> dict[str, Any]:
    """What this person may see of it; nothing without the role `status`."""
    admin = plane.admin
    sees_own, sees_all = await admin.may(person, "status", tenant=person.tenant), await admin.may(person, "status")
    doubts = await plane.doubts.list(person, limit=MAX_DOUBTS_SHOWN) if sees_own else ()
    breakers = (await plane.breakers.view(person)).breakers if sees_all else ()
    budgets = await plane.budgets.tight(person) if sees_own else ()
    sight = await plane.live.sight(person)
    settles = await admin.may(person, "settle", tenant=person.tenant)
    return {
        "doubts": [
            {
                "item": item,
                "sees_trace": sight.covers(item.tenant, item.user),
                "is_own": (item.tenant, item.user) == (person.tenant, person.user),
                "settles": settles and may_be_settled(item, person),
            }
            for item in doubts
        ],
        "unstable": unstable(breakers),
        "tight": [Tight(budget=item, percent=percent_used(item)) for item in budgets[:MAX_BUDGETS_SHOWN]],
        "traces": not sight.own,
    }


def may_be_settled(item: DoubtView, person: Person) -> bool:
    """Whether a form is of any use here; what is posted all the same is refused by the plane itself."""
    return item.state == "in_doubt" and (item.tenant, item.user) != (person.tenant, person.user)


def unstable(rows: tuple[BreakerRow, ...]) -> list[Unstable]:
    """The operations that are closed to calls somewhere, over all processes."""
    shut = sorted((row for row in rows if row.phase != "closed"), key=lambda row: row.operation)
    found = []
    for operation, group in groupby(shut, key=lambda row: row.operation):
        told = list(group)
        found.append(
            Unstable(
                operation=operation,
                processes=len(told),
                calls=sum(row.calls for row in told),
                failed=sum(row.failed for row in told),
                waits_ms=max(row.waits_ms for row in told),
            )
        )
    return found
