"""Sessions, and what is said in them: by the user on their own channel, and by the agent in the user's name."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, QueryParameter

from interlock.app.plane import Plane
from interlock.app.sessions import MAX_SESSIONS_LISTED, InputKept
from interlock.server.api.common import next_page, person_of, read, turn_page
from interlock.server.api.once import once
from interlock.server.api.who import SESSION, door, session_of
from interlock.store.sessions import SessionRow

_STATES: Final = {"live": "live", "ended": "ended", "all": ""}


class Said(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A text, at most 32 KiB of UTF-8."""

    text: Annotated[str, msgspec.Meta(min_length=1)]


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, newest first; give `next` back to go on, empty at the end."""

    sessions: tuple[SessionRow, ...]
    next: str = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/sessions", summary="Sessions: one's own, or with the role `traces` those of the tenant")
    async def listed(
        request: Request[Any, Any, Any],
        user: FromQuery[str] = "",
        agent: FromQuery[str] = "",
        task: FromQuery[str] = "",
        session_state: Annotated[str, QueryParameter(name="state", description="`live`, `ended` or `all`.")] = "live",
        page: Annotated[str, QueryParameter(name="next", description="`next` of the page before.")] = "",
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_SESSIONS_LISTED)] = 50,
    ) -> SessionPage:
        if session_state not in _STATES:
            raise HTTPException(status_code=400, detail=f"state is one of {', '.join(_STATES)}")
        person, after = await person_of(plane, request), turn_page(page)
        found = await plane.desk.sessions.listed(
            person, user=user, agent=agent, task=task, state=_STATES[session_state], after=after, limit=limit
        )
        last = next_page(found[-1].opened_at_us, found[-1].session_id) if len(found) == limit else ""
        return SessionPage(sessions=found, next=last)

    @get("/v1/sessions/{session_id:str}", summary="One session")
    async def shown(request: Request[Any, Any, Any], session_id: FromPath[str]) -> SessionRow:
        return await plane.desk.sessions.show(await person_of(plane, request), session_id)

    @post(
        "/v1/sessions/{session_id:str}/inputs",
        status_code=200,
        summary="Say something in one's own session, by one's own channel",
        opt=door(body=Said),
    )
    async def said(request: Request[Any, Any, Any], session_id: FromPath[str]) -> InputKept:
        person, text = await person_of(plane, request), (await read(request, Said)).text
        return await once(plane, request, person, InputKept, lambda: plane.desk.sessions.receive(person, session_id, text))

    @post(
        "/v1/sessions/{session_id:str}/assertions",
        status_code=200,
        summary="As the agent, say what the user is said to have said: recorded, and untrusted",
        opt=door(SESSION, body=Said),
    )
    async def asserted(request: Request[Any, Any, Any], session_id: FromPath[str]) -> InputKept:
        return await plane.desk.sessions.hear(session_of(request), session_id, (await read(request, Said)).text)

    return [listed, shown, said, asserted]
