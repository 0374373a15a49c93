"""Budgets: how much of each is used, and for whom."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import QueryParameter

from interlock.app.budgets import MAX_LISTED, BudgetView
from interlock.app.plane import Plane
from interlock.server.api.common import person_of


class Usages(msgspec.Struct, frozen=True, kw_only=True):
    """The fullest budgets first."""

    budgets: tuple[BudgetView, ...]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/budgets", summary="How much of each budget is used")
    async def usage(
        request: Request[Any, Any, Any],
        name: Annotated[str, QueryParameter(name="name", description="One budget of the release; all when left out.")] = "",
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_LISTED)] = 50,
    ) -> Usages:
        return Usages(budgets=await plane.budgets.usage(await person_of(plane, request), name=name, limit=limit))

    return [usage]
