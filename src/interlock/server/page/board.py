"""The page itself: what waits for people, what is stopped, calls as they are decided. Each part can be fetched by itself.

Everything here goes through the same objects as the API. What a person may not see or do is not shown; it is refused as well.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request, Response, get

from interlock.app.live import MAX_LISTED_CALLS
from interlock.app.plane import Plane
from interlock.app.sight import Sight
from interlock.approvals.view import ApprovalView
from interlock.core.approval import ApprovalState
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.server.page.calls import CHOICES, facts, filter_of
from interlock.server.page.cookie import login_secret, token_of_cookie
from interlock.server.page.forms import form_token
from interlock.server.page.html import page
from interlock.server.page.scopes import choices
from interlock.server.page.troubles import troubles_part

MAX_OPEN_SHOWN: Final = 50
MAX_ANSWERED_SHOWN: Final = 8
MAX_IN_FLIGHT_SHOWN: Final = 20


def routes(plane: Plane) -> list[Any]:
    """The routes of the page and its parts."""

    async def known(request: Request[Any, Any, Any]) -> tuple[Person, dict[str, Any]]:
        token = token_of_cookie(request)
        person = await plane.person(token)
        return person, {"person": person, "form_token": form_token(login_secret(request))}

    @get("/", include_in_schema=False)
    async def board(request: Request[Any, Any, Any]) -> Response[str]:
        person, values = await known(request)
        values |= await approvals_part(plane, person)
        values |= await controls_part(plane, person)
        values |= await troubles_part(plane, person)
        values |= await _calls_part(plane, person, request)
        return page("board.html", **values)

    @get("/page/approvals", include_in_schema=False)
    async def approvals(request: Request[Any, Any, Any]) -> Response[str]:
        person, values = await known(request)
        return page("_approvals.html", **values, **await approvals_part(plane, person))

    @get("/page/controls", include_in_schema=False)
    async def controls(request: Request[Any, Any, Any]) -> Response[str]:
        person, values = await known(request)
        return page("_controls.html", **values, **await controls_part(plane, person))

    @get("/page/troubles", include_in_schema=False)
    async def troubles(request: Request[Any, Any, Any]) -> Response[str]:
        person, values = await known(request)
        return page("_troubles.html", **values, **await troubles_part(plane, person))

    @get("/page/calls", include_in_schema=False)
    async def calls(request: Request[Any, Any, Any]) -> Response[str]:
        person, values = await known(request)
        part = await _calls_part(plane, person, request)
        wanted = part["wanted"]
        query = {"agent": wanted.agent, "user": wanted.user, "operation": wanted.operation, "outcome": wanted.standing}
        # So that what was filtered is still there after loading the page anew, and can be handed on as a link.
        asked = urlencode({name: value for name, value in query.items() if value})
        return page("_calls.html", headers={"hx-replace-url": f"/?{asked}" if asked else "/"}, **values, **part)

    return [board, approvals, controls, troubles, calls]


async def approvals_part(plane: Plane, person: Person) -> dict[str, Any]:
    """What waits for people, and what they have said of late."""
    found = await plane.approvals.list(person, state=ApprovalState.OPEN.value, limit=MAX_OPEN_SHOWN)
    recent = await plane.approvals.list(person, state="", limit=MAX_OPEN_SHOWN)
    answered = [item for item in recent if item.state is not ApprovalState.OPEN][:MAX_ANSWERED_SHOWN]
    sight = await plane.live.sight(person)
    return {
        "open": [_approval(item, person, sight) for item in found],
        "answered": [_approval(item, person, sight) for item in answered],
        "traces": not sight.own,
    }


def _approval(item: ApprovalView, person: Person, sight: Sight) -> dict[str, Any]:
    is_own = (item.tenant, item.user) == (person.tenant, person.user)
    may_withdraw = item.tenant == person.tenant and (is_own or item.role in person.roles)
    evidence = {name: value for name, value in item.evidence.items() if value not in (None, "", [])}
    return {
        "item": item,
        "is_own": is_own,
        "may_withdraw": may_withdraw,
        "evidence": evidence,
        "sees_trace": sight.covers(item.tenant, item.user),
    }


async def controls_part(plane: Plane, person: Person) -> dict[str, Any]:
    """What is stopped, what this person may stop, whom we worry about, which release decides, who is alive."""
    admin = plane.admin
    release = await admin.release()
    sees_all = await admin.may(person, "status")
    resumes_all, resumes_own = await admin.may(person, "resume"), await admin.may(person, "resume", tenant=person.tenant)
    sees_own = await admin.may(person, "status", tenant=person.tenant)
    status = await plane.status(person) if sees_all else None
    own = f"tenant:{person.tenant}"
    return {
        "now": status,
        "stopped": [control for control in status.controls if control.halted] if status else [],
        "in_flight": sorted(status.in_flight.items())[:MAX_IN_FLIGHT_SHOWN] if status else [],
        "choices": await choices(plane, person, release),
        "resumes_all": resumes_all,
        "resumes_own": own if resumes_own and not resumes_all else "",
        "worried": await plane.postures.worried(person) if sees_own else (),
        "lowers": await admin.may(person, "lower", tenant=person.tenant),
        "postures": tuple(posture.value for posture in Posture),
        "traces": not (await plane.live.sight(person)).own,
    }


async def _calls_part(plane: Plane, person: Person, request: Request[Any, Any, Any]) -> dict[str, Any]:
    wanted = filter_of(request.query_params)
    found, since_us = await plane.live.newest(person, wanted)
    return {
        "calls": [facts(call) for call in found],
        "wanted": wanted,
        "since_us": since_us,
        "standings": CHOICES,
        "max_calls": MAX_LISTED_CALLS,
        "traces": not (await plane.live.sight(person)).own,
    }
