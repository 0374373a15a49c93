"""A call as a readable story: asked, looked at, decided by which policy, done, returned."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from interlock.app.plane import Plane
from interlock.app.sight import UnknownRecordError
from interlock.app.traces import TraceLine
from interlock.server.page.calls import facts
from interlock.server.page.cookie import login_secret, token_of_cookie
from interlock.server.page.forms import form_token
from interlock.server.page.html import page
from interlock.server.page.login import no_such_page

SIGNS: Final = {"plain": "·", "good": "✓", "bad": "✕", "wait": "◔", "doubt": "?"}
MAX_EVENTS_SHOWN: Final = 500


def routes(plane: Plane) -> list[Any]:
    """The route of a trace."""

    @get("/page/trace/{call_id:str}", include_in_schema=False)
    async def trace(request: Request[Any, Any, Any], call_id: FromPath[str]) -> Response[str]:
        token = token_of_cookie(request)
        person = await plane.person(token)
        call = await plane.live.one(person, call_id)
        if call is None:
            raise no_such_page()
        try:
            told = await plane.desk.traces.show(person, call_id)
        except UnknownRecordError as error:
            raise no_such_page() from error
        shown = told.lines[:MAX_EVENTS_SHOWN]
        return page(
            "trace.html",
            person=person,
            form_token=form_token(login_secret(request)),
            lines=[{"line": line, "sign": SIGNS[line.tone]} for line in shown],
            decisions=[found for line in shown if (found := _decision(line)) is not None],
            events=[(line, None if line.body is None else bytes(line.body).decode()) for line in shown],
            whole=not (await plane.live.sight(person)).own,
            left_out=len(told.lines) - len(shown),
            **facts(call),
        )

    return [trace]


def _decision(row: TraceLine) -> dict[str, Any] | None:
    """A decision for reading; None for other events, and for what cannot be read."""
    if row.kind != "call.decided" or row.body is None:
        return None
    try:
        decision = msgspec.json.decode(row.body, type=dict[str, Any])["decision"]
        duties = {name: value for name, value in (decision.get("obligations") or {}).items() if value}
        return {
            "outcome": {"allow": "allowed", "deny": "denied"}.get(decision["type"], "needs approval"),
            "release": decision["release_digest"],
            "engine": decision.get("engine", ""),
            "facts": decision.get("facts_digest", ""),
            "policies": decision.get("policies", []),
            "reasons": decision.get("reasons", []),
            "requirements": decision.get("requirements", []),
            "obligations": duties,
            "at_us": row.at_us,
        }
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return None
