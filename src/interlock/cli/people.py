"""Commands that speak to a running server as a person: tokens, controls, releases."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from interlock.cli.caller import ANYBODY, Caller, Reason
from interlock.cli.common import Json, ask
from interlock.cli.output import OK, USAGE, Failure, print_json
from interlock.identity.exchange import GRANT_TYPE, JWT_TYPE


def token(
    *,
    agent: Annotated[str, Parameter(help="The agent that acts.")],
    user: Annotated[str, Parameter(help="The user it acts for.")],
    task: Annotated[str, Parameter(help="The task of the release that the session is for.")],
    session: Annotated[str, Parameter(help="Go on with this session under a new token.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Get a session token for an agent acting for a user, by token exchange with the development issuer."""
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": caller.of_user(user),
        "subject_token_type": JWT_TYPE,
        "actor_token": caller.of_agent(agent),
        "actor_token_type": JWT_TYPE,
        "task": task,
        "session_id": session,
    }
    answer = ask(caller.server, "/oauth/token", form=form)
    if as_json:
        print_json(answer)
    else:
        print(answer["access_token"])
    return OK


def kill(
    scope: Annotated[str, Parameter(help="fleet, tenant:T, environment:E, agent:A, tool:T, operation:O or source:S.")],
    *,
    reason: Reason,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Stop execution in a scope. After the answer no call in it is claimed any more."""
    answer = _control("kill", scope, reason, caller)
    if as_json:
        print_json(answer)
        return OK
    print(f"stopped: {answer['scope']} (epoch {answer['epoch']}); from now on nothing in it is claimed")
    for call in answer["in_flight"]:
        print(f"  may still take effect: {call['operation']} {call['call_id']}")
    return OK


def resume(
    scope: Annotated[str, Parameter(help="The scope as it was stopped.")],
    *,
    reason: Reason,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Let execution go on in a scope."""
    answer = _control("resume", scope, reason, caller)
    if as_json:
        print_json(answer)
    else:
        print(f"resumed: {answer['scope']} (epoch {answer['epoch']})")
    return OK


def status(
    *,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """What is stopped, which release decides, which processes live, what is in flight."""
    answer = caller.ask("/v1/controls")
    if as_json:
        print_json(answer)
        return OK
    console = Console()
    console.print(f"release  {answer['release']['name']}  {answer['release']['digest']}")
    console.print(f"processes  {len(answer['processes'])}   calls in flight  {sum(answer['in_flight'].values())}")
    table = Table("scope", "state", "by", "reason")
    for control in answer["controls"]:
        table.add_row(control["scope"], "stopped" if control["halted"] else "running", control["by"], control["reason"])
    console.print(table if answer["controls"] else "nothing was ever stopped")
    return OK


def _control(verb: str, scope: str, reason: str, caller: Caller) -> Any:
    if not reason.strip():
        raise Failure("say why with --reason; it goes on record", code=USAGE)
    return caller.ask(f"/v1/controls/{verb}", body={"scope": scope, "reason": reason})
