"""Commands that speak to a running server as a person: tokens, controls, releases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from interlock.cli.caller import ANYBODY, Caller, Reason
from interlock.cli.common import Json, ask
from interlock.cli.output import OK, USAGE, Failure, print_json, print_table
from interlock.cli.scoped import WRITTEN, Scoped


def token(
    *,
    task: Annotated[str, Parameter(help="The task of the release that the session is for.")],
    agent: Annotated[str, Parameter(help="The agent that acts, by the development issuer.")] = "",
    agent_token_file: Annotated[Path | None, Parameter(help="File with the agent's own token, of whoever issues it.")] = None,
    user: Annotated[
        str, Parameter(help="The user it acts for, by the development issuer; whoever is logged in when not given.")
    ] = "",
    session: Annotated[str, Parameter(help="Go on with this session under a new token.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Get a session token for an agent acting for a user, by token exchange."""
    from interlock.identity.exchange import GRANT_TYPE, JWT_TYPE  # noqa: PLC0415  # half a second that a kill must not wait for

    if bool(agent) == bool(agent_token_file):
        raise Failure("which agent?", hint="give --agent NAME or --agent-token-file FILE", code=USAGE)
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": caller.of_user(user) if user else caller.token(),
        "subject_token_type": JWT_TYPE,
        "actor_token": caller.of_agent(agent) if agent_token_file is None else _text_of(agent_token_file),
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


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read as a token", code=USAGE) from error


def kill(
    scope: Annotated[
        str, Parameter(help="fleet, tenant:T, environment:E, agent:A, user:T/U, tool:T, operation:O, source:S or session:S.")
    ] = "",
    *,
    reason: Reason,
    scoped: Scoped = WRITTEN,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Stop execution in a scope. After the answer no call in it starts any more, in any process."""
    answer = _control("kill", scoped.or_written(scope), reason, caller)
    if as_json:
        print_json(answer)
        return OK
    print(f"stopped: {answer['scope']} (epoch {answer['epoch']}, {answer['took_ms']} ms); from now on nothing in it starts")
    if answer["note"]:
        print(f"  mind: {answer['note']}")
    if answer["processes"] is None:
        print("  the database went away meanwhile: every lease has run out, and which processes there are is not known")
    for lease, held in sorted(_by(answer["processes"] or [], "lease").items()):
        names = ", ".join(process["process_id"] for process in held)
        print(f"  processes, {_LEASES[lease]}: {len(held)}{'' if lease == 'acknowledged' else f' ({names})'}")
    for became, calls in sorted(_by(answer["in_flight"], "became").items()):
        for call in calls:
            print(f"  {_BECAME[became]}: {call['operation']} {call['call_id']}")
    untold = answer["in_flight_total"] - len(answer["in_flight"])
    if untold:
        print(f"  and {untold} calls more that may still take effect")
    return OK


def resume(
    scope: Annotated[str, Parameter(help="The scope as it was stopped.")] = "",
    *,
    reason: Reason,
    release: Annotated[str, Parameter(help="For `restored`: the release in force, when you are asked to name it.")] = "",
    scoped: Scoped = WRITTEN,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Let execution go on in a scope."""
    more = {"release": release} if release else {}  # a server of the version before knows no such field
    answer = _control("resume", scoped.or_written(scope), reason, caller, **more)
    if as_json:
        print_json(answer)
    else:
        print(f"resumed: {answer['scope']} (epoch {answer['epoch']})")
        if answer["note"]:
            print(f"  mind: {answer['note']}")
    return OK


def posture(
    scope: Annotated[str, Parameter(help="A scope as for kill.")],
    to: Annotated[Literal["normal", "guarded", "read_only", "halted"], Parameter(help="How worried to be.")],
    *,
    reason: Reason,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Raise or lower the posture of a scope: guarded (writes ask), read_only, halted. Lowering is for somebody else."""
    if not reason.strip():
        raise Failure("say why with --reason; it goes on record", code=USAGE)
    answer = caller.ask("/v1/controls/posture", body={"scope": scope, "posture": to, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        print(f"{answer['scope']}: {answer['previous']} -> {answer['posture']} (epoch {answer['epoch']})")
    return OK


def revoke(
    target: Annotated[str, Parameter(help="user:NAME, agent:NAME or session:ID.")],
    *,
    reason: Reason,
    tenant: Annotated[str, Parameter(help="The user's tenant; your own when not given.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """End a session, or refuse every token that a user or an agent was issued before now."""
    if not reason.strip():
        raise Failure("say why with --reason; it goes on record", code=USAGE)
    answer = caller.ask("/v1/revocations", body={"target": target, "reason": reason, "tenant": tenant})
    if as_json:
        print_json(answer)
        return OK
    where = f" of {answer['tenant']}" if answer["tenant"] else ""
    print(f"revoked: {answer['target']}{where}; {answer['sessions']} sessions ended (epoch {answer['epoch']})")
    if answer["in_flight"]:
        print(f"  {answer['in_flight']} calls were claimed before and may still take effect; see `interlock trace list`")
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
    print(f"release  {answer['release']['name']}  {answer['release']['digest']}")
    print(f"processes  {len(answer['processes'])}   calls in flight  {sum(answer['in_flight'].values())}")
    if answer["in_flight"]:
        print_table(("in flight", "calls"), ((name, str(calls)) for name, calls in answer["in_flight"].items()), empty="")
    print_table(("process", "environment", "acknowledged epoch"), _leases(answer), empty="no process is there", whole="process")
    if answer["unstable"]:
        print_table(("unstable", "process", "failed", "tried again in"), _unstable(answer), empty="")
    names = ("scope", "state", "posture", "by", "reason")
    print_table(names, _controls(answer), empty="nothing was ever stopped", whole="scope")
    return OK


def _leases(answer: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for lease in answer["leases"]:
        behind = "" if lease["acked_epoch"] >= answer["epochs"]["control"] else " (behind)"
        yield lease["process_id"], lease["environment"], f"{lease['acked_epoch']}{behind}"


def _unstable(answer: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for item in answer["unstable"]:
        wait = f"{item['waits_ms'] / 1000:.1f} s" if item["phase"] == "open" else "being tried"
        yield item["operation"], item["process_id"], f"{item['failed']} of {item['calls']}", wait


def _controls(answer: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for control in answer["controls"]:
        stands = "stopped" if control["halted"] else "running"
        who = control["posture_by"] or control["by"]
        yield control["scope"], stands, control["posture"], who, control["posture_reason"] or control["reason"]


_LEASES: Final = {"acknowledged": "acknowledged", "ran out": "lease run out", "gone": "gone"}
_BECAME: Final = {
    "cancelled": "cancelled before it was sent",
    "finished": "finished",
    "failed": "failed",
    "in_doubt": "in doubt",
    "may_still_take_effect": "may still take effect",
}


def _by(items: list[dict[str, Any]], field: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item[field], []).append(item)
    return found


def _control(verb: str, scope: str, reason: str, caller: Caller, **more: str) -> Any:
    if not reason.strip():
        raise Failure("say why with --reason; it goes on record", code=USAGE)
    return caller.ask(f"/v1/controls/{verb}", body={"scope": scope, "reason": reason, **more})
