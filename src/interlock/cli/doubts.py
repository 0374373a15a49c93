"""`interlock doubts`: calls whose end is not known, and a person's word on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json
from interlock.cli.output import OK, print_json, print_table
from interlock.cli.shown import Text

Call = Annotated[str, Parameter(help="The call, `call_…`, or its claim, `clm_…`.")]


def list_doubts(
    *,
    limit: Annotated[int, Parameter(help="How many to list.")] = 50,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Calls in doubt, newest first, and those settled against what a process said later."""
    answer = caller.ask(f"/v1/doubts?limit={limit}")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["doubts"]:
        stands = item["conflict"] or (f"asks you: {item['asks_people']}" if item["asks_people"] else _meanwhile(item))
        since = datetime.fromtimestamp(item["since_us"] / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        rows.append((item["call_id"], item["operation"], f"{item['agent']} for {item['user']}", since, stands))
    print_table(
        ("call", "operation", "agent for user", "since", "how it stands"), rows, empty="nothing is in doubt", whole="call"
    )
    return OK


def _meanwhile(item: Mapping[str, Any]) -> str:
    return "waits for the answers to what its tool asked" if item["awaits"] else "is being looked into"


def show(call: Call, *, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """One call: what was sent, why its end is not known, and what follows from either answer."""
    item = caller.ask(f"/v1/doubts/{call}")
    if as_json:
        print_json(item)
        return OK
    lines = (
        f"{item['call_id']}  {item['operation']} {json.dumps(item['arguments'])}",
        f"{item['agent']} for {item['user']} of {item['tenant']}, attempt {item['attempt']}, {item['state']}",
        item["conflict"] or item["asks_people"] or _meanwhile(item),
        f"--done: {item['if_done']}",
        f"--not-done: {item['if_not_done']}",
    )
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line))
    return OK


def settle(
    call: Call,
    *,
    done: Annotated[bool, Parameter(negative="--not-done", help="It took effect; or --not-done: it did not, and never will.")],
    reason: Annotated[str, Parameter(help="How you know; it goes on record.")],
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Say what became of a call in doubt."""
    answer = caller.ask(f"/v1/doubts/{call}/settle", body={"done": done, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        print(f"{answer['call_id']} is settled: {'done' if done else 'not done'}")
    return OK
