"""Agents of the release in force: who they are in each environment, what they were granted, how they are used."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath

from interlock.app.agents import AgentView
from interlock.app.fresh import Begun
from interlock.app.plane import Plane
from interlock.server.api.common import person_of, read
from interlock.server.api.once import once
from interlock.server.api.who import door


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    """All agents, by name: as many as the release names, so there are no pages."""

    agents: tuple[AgentView, ...]


class Afresh(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why, in the user's own words, if they like to say; 500 characters at most."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/agents", summary="Agents of the release in force")
    async def listed(request: Request[Any, Any, Any]) -> AgentList:
        return AgentList(agents=await plane.desk.agents.listed(await person_of(plane, request)))

    @get("/v1/agents/{agent:str}", summary="One agent")
    async def shown(request: Request[Any, Any, Any], agent: FromPath[str]) -> AgentView:
        return await plane.desk.agents.show(await person_of(plane, request), agent)

    @post(
        "/v1/agents/{agent:str}/fresh",
        status_code=200,
        summary="Begin one's own work with an agent afresh: its sessions end, and what they had read taints no longer",
        opt=door(body=Afresh, tells=(409,)),
    )
    async def fresh(request: Request[Any, Any, Any], agent: FromPath[str]) -> Begun:
        person, reason = await person_of(plane, request), (await read(request, Afresh)).reason
        return await once(plane, request, person, Begun, lambda: plane.desk.fresh.begin(person, agent, reason))

    return [listed, shown, fresh]
