"""Agents of the release in force: who they are in each environment, what they were granted, how they are used."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath

from interlock.app.agents import AgentView
from interlock.app.plane import Plane
from interlock.server.api.common import person_of


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    """All agents, by name: as many as the release names, so there are no pages."""

    agents: tuple[AgentView, ...]


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/agents", summary="Agents of the release in force")
    async def listed(request: Request[Any, Any, Any]) -> AgentList:
        return AgentList(agents=await plane.desk.agents.listed(await person_of(plane, request)))

    @get("/v1/agents/{agent:str}", summary="One agent")
    async def shown(request: Request[Any, Any, Any], agent: FromPath[str]) -> AgentView:
        return await plane.desk.agents.show(await person_of(plane, request), agent)

    return [listed, shown]
