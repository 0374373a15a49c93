"""A call as a readable story: asked, looked at, decided by which policy, done, returned."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from interlock.app.live import UnknownCallError
from interlock.app.plane import Plane
from interlock.ledger.story import StoredEvent, tell
from interlock.server.page.calls import facts
from interlock.server.page.cookie import login_secret, token_of_cookie
from interlock.server.page.forms import form_token
from interlock.server.page.html import page
from interlock.server.page.login import no_such_page
from interlock.store.traces import EventRow

SIGNS: Final = {"plain": "·", "good": "✓", "bad": "✕", "wait": "◔", "doubt": "?"}
MAX_EVENTS_SHOWN: Final = 500


def routes(plane: Plane) -> list[Any]:
    """The route of a trace."""

    @get("/page/trace/{call_id:str}", include_in_schema=False)
    async def trace(request: Request[Any, Any, Any], call_id: FromPath[str]) -> Response[str]:
        token = token_of_cookie(request)
        person = await plane.person(token)
        try:
            call, events = await plane.live.story(person, call_id)
        except UnknownCallError as error:
            raise no_such_page() from error
        shown = events[:MAX_EVENTS_SHOWN]
        lines = tell(
            StoredEvent(chain_id=row.chain_id, seq=row.seq, kind=row.kind, at_us=row.at_us, call_id=row.call_id, body=row.body)
            for row in shown
        )
        return page(
            "trace.html",
            person=person,
            form_token=form_token(login_secret(request)),
            lines=[{"line": line, "sign": SIGNS[line.tone]} for line in lines],
            decisions=[found for row in shown if (found := _decision(row)) is not None],
            events=shown,
            left_out=len(events) - len(shown),
            **facts(call),
        )

    return [trace]


def _decision(row: EventRow) -> dict[str, Any] | None:
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
