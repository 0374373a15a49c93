"""What people do on the page: answer, stop, resume, set a posture. Each is a form of ours and goes on record."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from interlock.app.containment import ACKNOWLEDGED, GONE, RUN_OUT, KillAnswer
from interlock.app.doubts import DoubtConflictError, UnknownDoubtError
from interlock.app.plane import Plane
from interlock.app.postures import PostureConflictError, UnknownLineageError
from interlock.app.scopes import UnknownScopeError
from interlock.approvals.errors import ApprovalError, NotOpenError, UnknownApprovalError
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.server.limits import MAX_REASON_CHARS, MAX_SCOPE_CHARS
from interlock.server.page.board import MAX_IN_FLIGHT_SHOWN, approvals_part, controls_part
from interlock.server.page.cookie import login_secret, token_of_cookie
from interlock.server.page.forms import form_token, read_meant
from interlock.server.page.html import page
from interlock.server.page.troubles import troubles_part
from interlock.store.controls import ControlAnswer

# What became of a call that a kill found begun; what may still do something comes first.
BECAME: Final = {
    "may_still_take_effect": "may still take effect",
    "in_doubt": "in doubt, it is being found out",
    "failed": "failed",
    "finished": "finished",
    "cancelled": "cancelled before it was sent",
}
LEASES: Final = {ACKNOWLEDGED: "acknowledged", RUN_OUT: "did not answer until their leases ran out", GONE: "gone"}


def routes(plane: Plane) -> list[Any]:
    """The routes of what people do."""

    async def meant(request: Request[Any, Any, Any]) -> tuple[Person, dict[str, str], dict[str, Any]]:
        token = token_of_cookie(request)
        person = await plane.person(token)
        return (
            person,
            await read_meant(request, login_secret(request)),
            {"person": person, "form_token": form_token(login_secret(request))},
        )

    @post("/page/approvals/{approval_id:str}", status_code=200, include_in_schema=False)
    async def answer(request: Request[Any, Any, Any], approval_id: FromPath[str]) -> Response[str]:
        person, form, values = await meant(request)
        to, note, status = form.get("to", ""), form.get("note", ""), 200
        try:
            if to == "withdraw":
                done = await plane.approvals.withdraw(person, approval_id, note=note)
            elif to in {"approve", "deny"}:
                done = await plane.approvals.answer(person, approval_id, approve=to == "approve", note=note)
            else:
                raise HTTPException(status_code=400, detail="say whether to approve, deny or withdraw")
            told = {"approve": "Approved", "deny": "Denied", "withdraw": "Withdrawn"}[to]
            after = " When the agent repeats this call, it runs once." if to == "approve" else ""
            said = {"tone": "good", "text": f"{told}: {done.operation}, {done.agent} for {done.user}.{after}", "items": []}
        except ApprovalError as error:
            said = {"tone": "bad", "text": f"Nothing was changed: {error}.", "items": []}
            status = 404 if isinstance(error, UnknownApprovalError) else 409 if isinstance(error, NotOpenError) else 403
        return _told(request, "_approvals.html", status, said, {**values, **await approvals_part(plane, person)})

    @post("/page/controls/{verb:str}", status_code=200, include_in_schema=False)
    async def control(request: Request[Any, Any, Any], verb: FromPath[str]) -> Response[str]:
        person, form, values = await meant(request)
        # What somebody took the trouble to write out is what they mean, whatever the list stands on.
        scope, reason = form.get("other", "").strip() or form.get("scope", ""), _reason(form)
        if verb not in {"kill", "resume"} or not 0 < len(scope) <= MAX_SCOPE_CHARS:
            raise HTTPException(status_code=400, detail="say what to stop or resume")
        try:
            said = (
                _stopped(await plane.kill(person, scope, reason))
                if verb == "kill"
                else _resumed(await plane.resume(person, scope, reason))
            )
        except UnknownScopeError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error
        except PostureConflictError as error:
            raise HTTPException(status_code=409, detail=str(error)) from error
        return _told(request, "_controls.html", 200, said, {**values, **await controls_part(plane, person)})

    @post("/page/doubts/{call_id:str}", status_code=200, include_in_schema=False)
    async def settle(request: Request[Any, Any, Any], call_id: FromPath[str]) -> Response[str]:
        person, form, values = await meant(request)
        reason, to, status = _reason(form), form.get("to", ""), 200
        if to not in {"done", "not_done"}:
            raise HTTPException(status_code=400, detail="say whether it was done")
        try:
            done = await plane.doubts.settle(person, call_id, done=to == "done", reason=reason)
            became = "it was done" if to == "done" else "it was not done"
            said = {"tone": "good", "text": f"Settled: {became}.", "items": [_call("", done.call_id, done.state)]}
        except (UnknownDoubtError, DoubtConflictError) as error:
            said = {"tone": "bad", "text": f"Nothing was changed: {error}.", "items": []}
            status = 404 if isinstance(error, UnknownDoubtError) else 409
        return _told(request, "_troubles.html", status, said, {**values, **await troubles_part(plane, person)})

    @post("/page/lineages/{lineage_id:str}", status_code=200, include_in_schema=False)
    async def posture(request: Request[Any, Any, Any], lineage_id: FromPath[str]) -> Response[str]:
        person, form, values = await meant(request)
        reason, to = _reason(form), form.get("posture", "")
        if to not in set(Posture):
            raise HTTPException(status_code=400, detail=f"a posture is one of {', '.join(Posture)}")
        try:
            done = await plane.postures.set(person, lineage_id, Posture(to), reason)
        except (UnknownLineageError, PostureConflictError) as error:
            raise HTTPException(status_code=409, detail=str(error)) from error
        said = {"tone": "good", "text": f"{done.agent} for {done.user} is {done.posture.value} now.", "items": []}
        return _told(request, "_controls.html", 200, said, {**values, **await controls_part(plane, person)})

    return [answer, control, settle, posture]


def _stopped(done: KillAnswer) -> dict[str, Any]:
    """What is certain after a kill, by whose word, and what became of the calls that had begun: the uncertain ones first."""
    count = done.in_flight_total
    rest = f" {count} {'call' if count == 1 else 'calls'} had begun; what became of {'it' if count == 1 else 'them'}"
    shown = sorted(done.in_flight, key=lambda call: list(BECAME).index(call.became))[:MAX_IN_FLIGHT_SHOWN]
    rest += f" (the first {len(shown)}):" if len(shown) < count else ":"
    note = f" Note: {done.note}." if done.note else ""
    text = f"Stopped: {done.scope}. Nothing in it is started any more, in any process ({_leases(done)}).{note}"
    items = [_call(call.operation, call.call_id, BECAME[call.became]) for call in shown]
    return {"tone": "good", "text": text + (rest if count else ""), "items": items}


def _leases(done: KillAnswer) -> str:
    if done.processes is None:
        return "the database went away meanwhile, and every lease has run out"
    counted = Counter(process.lease for process in done.processes)
    by = ", ".join(f"{count} {LEASES[lease]}" for lease, count in sorted(counted.items())) or "no process holds a lease"
    return f"{by}; {done.took_ms} ms"


def _call(operation: str, call_id: str, became: str) -> dict[str, str]:
    return {"operation": operation, "call_id": call_id, "became": became}


def _resumed(done: ControlAnswer) -> dict[str, Any]:
    note = f" Note: {done.note}." if done.note else ""
    return {"tone": "good", "text": f"Resumed: {done.scope}.{note}", "items": []}


def _reason(form: dict[str, str]) -> str:
    reason = form.get("reason", "").strip()
    if not 0 < len(reason) <= MAX_REASON_CHARS:
        raise HTTPException(status_code=400, detail=f"say why, in 1 to {MAX_REASON_CHARS} characters; it goes on record")
    return reason


def _told(
    request: Request[Any, Any, Any], part: str, status: int, said: dict[str, Any], values: dict[str, Any]
) -> Response[str]:
    """What was done: the part of the page that changed, or a page that says so when there is no script."""
    template = "_told.html" if request.headers.get("hx-request") else "told.html"
    return page(template, status=status, said=said, part=part, **values)
