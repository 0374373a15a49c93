"""Commands about the tools of a running server: what is pinned and how it is used, and accepting what changed upstream."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.caller import ANYBODY, Caller, Reason
from interlock.cli.common import Json
from interlock.cli.output import OK, Failure, print_json, print_table
from interlock.cli.shown import Text

_STYLES: Final = {"quarantined": "bold red", "vanished": "red", "unpinned": "yellow"}


def list_tools(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """Operations in force: what they do, who reviewed them, whether upstream is still what was reviewed, and their use."""
    answer = caller.ask("/v1/tools")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["operations"]:
        use = (str(item["calls"]), str(item["failed"]), str(item["in_doubt"]))
        rows.append((item["operation"], ", ".join(item["effects"]), item["reviewed_by"], item["pin"], *use))
    names = ("operation", "effects", "reviewed by", "pin", "calls in 7 days", "failed", "in doubt")
    print_table(
        names, rows, empty="no operations are in force", whole="operation", style_of=lambda row: _STYLES.get(row[3], "")
    )
    console = Console(highlight=False, soft_wrap=True)
    for server in answer["servers"]:
        when = _time(server["listed_at_us"]) if server["listed_at_us"] else "never"
        note = f", now: {server['error']}" if server["error"] else ""
        new = f", not imported: {', '.join(server['new'])}" if server["new"] else ""
        console.print(Text(f"{server['tool']}: listed {when}{note}{new}", style="yellow" if server["error"] else ""))
    for item in answer["operations"]:
        if item["quarantine"]:
            console.print(
                Text(f"\n{item['operation']} is quarantined; it is listed now as {item['quarantine']['pin']}", style="bold red")
            )
            _show(console, item["quarantine"])
    return OK


def accept(
    operation: Annotated[str, Parameter(help="The operation, as tool.operation.")],
    *,
    reason: Reason,
    pin: Annotated[
        str, Parameter(help="The digest of the listing you looked at; shown, with the difference, when not given.")
    ] = "",
    despite_findings: Annotated[bool, Parameter(negative="", help="You saw what looks suspicious in it.")] = False,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Let a quarantined operation run as it is listed now. For people of the team that owns it."""
    if not pin:
        _show_first(caller, operation)
    body = {"pin": pin, "reason": reason, "despite_findings": despite_findings}
    answer = caller.ask(f"/v1/tools/{quote(operation, safe='')}/accept", body=body)
    if as_json:
        print_json(answer)
    else:
        print(f"accepted: {operation} as it is listed now ({pin})")
    return OK


def _show_first(caller: Caller, operation: str) -> NoReturn:
    """Nobody accepts what they have not looked at: show it, and what to say to accept exactly that."""
    answer: Any = caller.ask("/v1/tools")
    for item in answer["operations"]:
        if item["operation"] == operation and item["quarantine"]:
            _show(Console(highlight=False, soft_wrap=True), item["quarantine"])
            raise Failure("look at the difference first", hint=f"accept exactly this with --pin {item['quarantine']['pin']}")
    raise Failure(f"{operation} is not quarantined", hint="`interlock tools list` shows what is")


def _show(console: Console, held: dict[str, Any]) -> None:
    for finding in held["findings"]:
        console.print(Text(f"suspicious: {finding}", style="red"))
    for line in held["detail"].splitlines():
        console.print(Text(f"    {line}", style={"+": "green", "-": "red"}.get(line[:1], "")))


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
