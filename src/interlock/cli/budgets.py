"""`interlock budgets`: how much of each budget is used, the fullest first."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from cyclopts import Parameter

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json
from interlock.cli.output import OK, print_json, print_table


def budgets(
    name: Annotated[str, Parameter(help="One budget of the release; all when not given.")] = "",
    *,
    limit: Annotated[int, Parameter(help="How many to list.")] = 20,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """How much of each budget is used and reserved, for whom, and what happens on a hit."""
    answer = caller.ask(f"/v1/budgets?{urlencode({'name': name, 'limit': limit})}")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["budgets"]:
        window = f"{item['window_s']} s" if item["window_s"] else f"one {item['per']}"
        hit = f"asks {item['asks']}" if item["asks"] else "stops"
        row = (item["name"], item["about"], item["used"], item["limit"], item["reserved"], window)
        rows.append((*row, hit if item["in_force"] else "not in force"))
    names = ("budget", "for", "used", "of", "reserved", "within", "on a hit")
    print_table(names, rows, empty="nothing is counted yet", whole="budget")
    return OK
