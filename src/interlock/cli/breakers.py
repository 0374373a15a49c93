"""`interlock breakers`: which tools are unstable, as each process sees them."""

from __future__ import annotations

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json
from interlock.cli.output import OK, print_json, print_table

_WORDS = {"closed": "goes through", "open": "shut for", "trying": "being tried"}


def breakers(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """Operations that were called in the last seconds, how many calls failed, and which are closed to calls."""
    answer = caller.ask("/v1/breakers")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["breakers"]:
        wait = f" {item['waits_ms'] / 1000:.0f} s" if item["phase"] == "open" else ""
        rows.append(
            (item["operation"], item["process_id"], f"{item['failed']} of {item['calls']}", f"{_WORDS[item['phase']]}{wait}")
        )
    names = ("operation", "process", "failed", "state")
    print_table(names, rows, empty="no tool was called in the last seconds", whole="state")
    return OK
