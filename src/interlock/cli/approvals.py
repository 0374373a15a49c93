"""Commands for people who decide: what waits, what exactly would run, yes or no."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json
from interlock.cli.output import OK, print_json, print_table
from interlock.cli.shown import Text

Id = Annotated[str, Parameter(help="The approval's id, `apr_…`.")]
Note = Annotated[str, Parameter(help="A note; the agent that asked will read it, and it goes on record.")]


def list_approvals(
    *,
    of: Annotated[
        str, Parameter(name="--which", help="open, approved, denied, withdrawn, expired, outdated, used, all.")
    ] = "open",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """What waits for people, newest first."""
    answer = caller.ask(f"/v1/approvals?state={of}")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["approvals"]:
        what = ", ".join(f"{name}={json.dumps(value)}" for name, value in item["shown"].items())
        who, by = f"{item['agent']} for {item['user']}", item["answered_by"] or item["role"]
        rows.append((item["approval_id"], item["operation"], what, who, by, _time(item["expires_at_us"]), item["state"]))
    names = ("id", "operation", "what", "agent for user", "answered by", "until", "state")
    print_table(names, rows, empty="nothing waits for you" if of == "open" else "nothing", whole="id")
    return OK


def show(
    approval: Id,
    *,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """One request: exactly what would run, why a person is asked, and what the decision knew."""
    item = caller.ask(f"/v1/approvals/{approval}")
    if as_json:
        print_json(item)
    else:
        _tell(item)
    return OK


def approve(
    approval: Id,
    *,
    note: Note = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Let exactly this call through, once."""
    return _answer("approve", approval, note, caller, as_json=as_json)


def deny(
    approval: Id,
    *,
    note: Note = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Say no; the agent is told so, with the note."""
    return _answer("deny", approval, note, caller, as_json=as_json)


def withdraw(
    approval: Id,
    *,
    note: Note = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Take back a request, or an approval that was not used yet."""
    return _answer("withdraw", approval, note, caller, as_json=as_json)


def _answer(verb: str, approval: str, note: str, caller: Caller, *, as_json: bool) -> int:
    item = caller.ask(f"/v1/approvals/{approval}/{verb}", body={"note": note})
    if as_json:
        print_json(item)
    elif item["state"] == "approved":
        print(f"approved: {item['operation']}, once, until {_time(item['expires_at_us'])}; the agent repeats its call")
    else:
        print(f"{item['state']}: {item['operation']}")
    return OK


def _tell(item: dict[str, Any]) -> None:
    console = Console(highlight=False)
    lines = [
        ("what", item["operation"]),
        *((f"  {name}", json.dumps(value)) for name, value in json.loads(item["arguments"]).items()),
        ("why", item["say"] or ", ".join(item["policy_ids"])),
        ("who", f"{item['agent']} for {item['user']} of {item['tenant']}, {item['environment']}, task {item['task']}"),
        ("knew", json.dumps(item["evidence"])),
        ("answered", f"by {item['answered_by']}" if item["answered_by"] else f"by {item['role']}, never by {item['user']}"),
        ("until", _time(item["expires_at_us"])),
        ("state", item["state"] + (f": {item['note']}" if item["note"] else "")),
    ]
    for name, value in lines:
        # What an agent wrote is text, never markup or an escape sequence.
        console.print(Text(f"{name:<12}"), Text(value.encode("unicode_escape").decode() if not value.isprintable() else value))


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
