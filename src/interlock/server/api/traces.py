"""Traces: calls found, one told as a story, many exported for the audit team."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request, get
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from interlock.app.plane import Plane
from interlock.app.traces import MAX_CALLS_LISTED, Trace
from interlock.server.api.common import next_page, person_of, turn_page
from interlock.server.api.who import door
from interlock.store.traces import CallQuery, CallRow

_DECISIONS: Final = ("", "allow", "deny", "require_approval")
# A cell that begins with one of these is a formula to spreadsheets; so is what follows a tab or a line break.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # full-width ones count too
_MEDIA: Final = {"csv": "text/csv; charset=utf-8; header=present", "json": "application/jsonl"}

_Since = Annotated[str, QueryParameter(name="since", description="Calls at or after this time, ISO 8601; UTC unless it says.")]
_Until = Annotated[str, QueryParameter(name="until", description="Calls before this time, ISO 8601.")]
_Decision = Annotated[str, QueryParameter(name="decision", description="`allow`, `deny` or `require_approval`.")]
_Outcome = Annotated[
    str,
    QueryParameter(name="outcome", description="`succeeded`, `failed`, `in_doubt`, `denied`, `needs_approval`, `replayed`…"),
]


class CallPage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls, newest first; give `next` back to go on, empty at the end."""

    calls: tuple[CallRow, ...]
    next: str = ""


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/v1/traces", summary="Recorded calls: one's own, or with the role `traces` those of the tenant")
    async def search(
        request: Request[Any, Any, Any],
        agent: FromQuery[str] = "",
        user: FromQuery[str] = "",
        operation: FromQuery[str] = "",
        session: FromQuery[str] = "",
        decision: _Decision = "",
        outcome: _Outcome = "",
        since: _Since = "",
        until: _Until = "",
        page: Annotated[str, QueryParameter(name="next", description="`next` of the page before.")] = "",
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_CALLS_LISTED)] = 50,
    ) -> CallPage:
        query = _query(agent, user, operation, session, decision, outcome, since, until)
        person, after = await person_of(plane, request), turn_page(page)
        found = await plane.desk.traces.search(person, query, after=after, limit=limit)
        return CallPage(calls=found, next=next_page(found[-1].at_us, found[-1].call_id) if len(found) == limit else "")

    @get(
        "/v1/traces/export",
        summary="Every call of the tenant that matches, as JSON lines or CSV, for the role `audit`",
        opt=door(gives=("application/jsonl", "text/csv")),
    )
    async def export(
        request: Request[Any, Any, Any],
        written: Annotated[Literal["json", "csv"], QueryParameter(name="format", description="JSON lines, or CSV.")] = "json",
        agent: FromQuery[str] = "",
        user: FromQuery[str] = "",
        operation: FromQuery[str] = "",
        session: FromQuery[str] = "",
        decision: _Decision = "",
        outcome: _Outcome = "",
        since: _Since = "",
        until: _Until = "",
    ) -> Stream:
        query = _query(agent, user, operation, session, decision, outcome, since, until)
        calls = await plane.desk.traces.export(await person_of(plane, request), query)
        lines = csv_lines(calls) if written == "csv" else json_lines(calls)
        headers = {"content-disposition": f'attachment; filename="traces.{"csv" if written == "csv" else "jsonl"}"'}
        return Stream(lines, media_type=_MEDIA[written], headers=headers)

    @get("/v1/traces/{trace_id:str}", summary="One call or session as events and as a story; `control` for the role `audit`")
    async def shown(request: Request[Any, Any, Any], trace_id: FromPath[str]) -> Trace:
        return await plane.desk.traces.show(await person_of(plane, request), trace_id)

    return [search, export, shown]


async def json_lines(calls: AsyncIterator[CallRow]) -> AsyncIterator[bytes]:
    """One JSON object a line."""
    async for call in calls:
        yield msgspec.json.encode(call) + b"\n"


async def csv_lines(calls: AsyncIterator[CallRow]) -> AsyncIterator[bytes]:
    """RFC 4180 with a header; `at` is written for people beside the exact `at_us`."""
    names = [*CallRow.__struct_fields__]
    yield _csv_line(["at", *names])
    async for call in calls:
        at = datetime.fromtimestamp(call.at_us / 1e6, UTC).isoformat(timespec="milliseconds")
        yield _csv_line([at, *(str(getattr(call, name)) for name in names)])


def _csv_line(cells: list[str]) -> bytes:
    # INVARIANT: no cell is a formula to a spreadsheet, whatever names people and agents have chosen.
    safe = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(safe)
    return out.getvalue().encode()


def _query(
    agent: str, user: str, operation: str, session: str, decision: str, outcome: str, since: str, until: str
) -> CallQuery:
    if decision not in _DECISIONS:
        raise HTTPException(status_code=400, detail=f"decision is one of {', '.join(_DECISIONS[1:])}")
    return CallQuery(
        agent=agent,
        user=user,
        operation=operation,
        session_id=session,
        decision=decision,
        outcome=outcome,
        since_us=_time_us(since) if since else 0,
        until_us=_time_us(until) if until else 2**62,
    )


def _time_us(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    except (ValueError, OverflowError) as error:
        raise HTTPException(status_code=400, detail=f"{text[:40]!r} is no time; write it like 2027-01-31T12:00:00Z") from error
