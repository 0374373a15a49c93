"""Commands that read the record as a person: calls found, one told as a story, all of them taken away."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json, Limit, OfAgent, OfOperation, OfSession, OfUser, stream
from interlock.cli.output import NO, OK, USAGE, Failure, print_json, print_table
from interlock.cli.shown import Text

TONES: Final = {"plain": "", "good": "green", "bad": "red", "wait": "yellow", "doubt": "magenta"}
Outcome = Annotated[str, Parameter(help="succeeded, failed, in_doubt, denied, needs_approval, replayed…")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which calls. Commands take it as `wanted: Wanted = ALL`."""

    agent: OfAgent = ""
    user: OfUser = ""
    session: OfSession = ""
    operation: OfOperation = ""
    decision: Annotated[str, Parameter(help="allow, deny or require_approval.")] = ""
    outcome: Outcome = ""
    since: Annotated[str, Parameter(help="Only calls at or after this time, ISO 8601.")] = ""
    until: Annotated[str, Parameter(help="Only calls before this time, ISO 8601.")] = ""


ALL: Final = Wanted()


def list_traces(
    *,
    wanted: Wanted = ALL,
    limit: Limit = 50,
    page: Annotated[str, Parameter(name="--next", help="What the page before said.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Recorded calls, newest first: your own, or with the role `traces` those of your tenant."""
    found = caller.ask(f"/v1/traces?{query(asdict(wanted), next=page, limit=str(limit))}")
    if as_json:
        print_json(found)
        return OK
    rows = []
    for call in found["calls"]:
        ended = f"{call['outcome']}: {call['code']}" if call["code"] else call["outcome"]
        who = f"{call['agent']} for {call['user']}"
        rows.append((when(call["at_us"]), call["call_id"], who, call["operation"] or "?", call["decision"], ended))
    names = ("time", "call", "agent for user", "operation", "decided", "ended")
    print_table(names, rows, empty="no calls are recorded that you may see", whole="call")
    if found["next"]:
        print(f"more with --next {found['next']}")
    return OK


def show(
    identifier: Annotated[
        str, Parameter(help="A call id, a session id, a decision id, or `control`; the newest call that fits when not given.")
    ] = "",
    *,
    operation: OfOperation = "",
    outcome: Outcome = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """One call or session as a story: asked, looked at, decided by which policy, done, returned."""
    if identifier and (operation or outcome):
        raise Failure("the id says which call already", hint="leave out --operation and --outcome", code=USAGE)
    if not identifier:
        calls = caller.ask(f"/v1/traces?{query({'operation': operation, 'outcome': outcome}, limit='1')}")["calls"]
        if not calls:
            raise Failure("no call is recorded that fits and that you may see", hint="interlock trace list", code=NO)
        identifier = calls[0]["call_id"]
    found = caller.ask(f"/v1/traces/{quote(identifier, safe='')}")
    if as_json:
        print_json(found)
        return OK
    tell(Console(soft_wrap=True), found["lines"])
    return OK


def tell(console: Console, lines: list[dict[str, Any]]) -> None:
    """Print a story."""
    for line in lines:
        at = datetime.fromtimestamp(line["at_us"] / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]
        console.print(Text(f"{line['seq']:>4}  {at}  "), Text(line["told"], style=TONES.get(line["tone"], "")))


def export(
    *,
    written: Annotated[str, Parameter(name="--format", help="json (a line each) or csv.")] = "json",
    wanted: Wanted = ALL,
    caller: Caller = ANYBODY,
) -> int:
    """Every recorded call of your tenant that matches, on standard output, for the role `audit`."""
    if written not in {"json", "csv"}:
        raise Failure(f"{written!r} is no format; say json or csv", code=USAGE)
    for chunk in stream(caller.server, f"/v1/traces/export?{query(asdict(wanted), format=written)}", token=caller.token()):
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()
    return OK


def query(asked: dict[str, str], **more: str) -> str:
    """The query of a request: what was said, and nothing else."""
    return urlencode({name: value for name, value in {**asked, **more}.items() if value})


def when(at_us: Any) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(int(at_us) / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
