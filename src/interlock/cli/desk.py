"""Commands about sessions, agents and decisions without calls, as a person."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.caller import ANYBODY, Caller, Reason
from interlock.cli.common import Json, Limit, OfAgent, OfTask, OfUser
from interlock.cli.output import NO, OK, USAGE, Failure, print_json, print_table
from interlock.cli.shown import Text
from interlock.cli.traces import query, when


def list_sessions(
    *,
    agent: OfAgent = "",
    user: OfUser = "",
    task: OfTask = "",
    of: Annotated[str, Parameter(name="--which", help="live, ended or all.")] = "live",
    limit: Limit = 50,
    page: Annotated[str, Parameter(name="--next", help="What the page before said.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Sessions, newest first: your own, or with the role `traces` those of your tenant."""
    asked = {"agent": agent, "user": user, "task": task, "state": of, "next": page}
    found = caller.ask(f"/v1/sessions?{query(asked, limit=str(limit))}")
    if as_json:
        print_json(found)
        return OK
    rows = []
    for item in found["sessions"]:
        who, state = f"{item['agent']} for {item['user']}", "live" if item["live"] else "ended"
        times = (when(item["opened_at_us"]), when(item["expires_at_us"]))
        rows.append((item["session_id"], who, item["tenant"], item["task"], *times, state, item["posture"]))
    names = ("session", "agent for user", "tenant", "task", "opened", "until", "state", "posture")
    print_table(names, rows, empty="no sessions that you may see", whole="session")
    if found["next"]:
        print(f"more with --next {found['next']}")
    return OK


def show_session(
    session: Annotated[str, Parameter(help="The session's id, `ses_…`.")], *, caller: Caller = ANYBODY, as_json: Json = False
) -> int:
    """One session, live or ended."""
    found = caller.ask(f"/v1/sessions/{quote(session, safe='')}")
    if as_json:
        print_json(found)
        return OK
    for name, value in found.items():
        shown = when(value) if name.endswith("_at_us") else planned(value) if name == "plan" else value
        Console(highlight=False).print(Text(f"{name.removesuffix('_us'):<14}"), Text(str(shown)))
    return OK


def _place(source: dict[str, Any]) -> str:
    """Where a plan says that a value comes from."""
    told = " ".join((source["operation"], source["field"])).strip()
    choose = source.get("choose") or {}
    kept = [f"{path}={value}" for path, value in choose.get("where", ())]
    picked = " ".join((choose.get("pick") or "", choose.get("by", ""))).strip()
    chosen = " and ".join((*kept, *([picked] if picked else [])))
    return f"{told} with {chosen}" if chosen else told


def planned(operations: list[dict[str, Any]]) -> str:
    """A plan on a line: its operations, and what they may be done to where that was fixed."""
    told = []
    for item in operations:
        said = [f"{name}={'|'.join(values)}" for name, values in item["targets"].items()]
        for name, sources in item.get("sources", {}).items():
            said.append(f"{name} from " + " or ".join(map(_place, sources)))
        told.append(f"{item['operation']}({', '.join(said)})" if said else item["operation"])
    return "; ".join(told) or "none was sealed"


def end_session(
    session: Annotated[str, Parameter(help="The session's id, `ses_…`.")],
    *,
    reason: Reason,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """End a session: after the answer no call of it is claimed any more."""
    answer = caller.ask("/v1/revocations", body={"target": f"session:{session}", "reason": reason})
    if as_json:
        print_json(answer)
    else:
        print(f"ended: {session}")
    return OK


def start_fresh(
    agent: Annotated[str, Parameter(help="The agent, as `interlock sessions list` names it.")],
    *,
    reason: Annotated[str, Parameter(help="Why, if you like to say; it goes on record.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Begin your own work with an agent afresh: its sessions end, and what they had read taints no longer. Start it anew then.

    Posture, budgets, what was counted and how sensitive data it has seen stay as they are.
    """
    answer = caller.ask(f"/v1/agents/{quote(agent, safe='')}/fresh", body={"reason": reason})
    if as_json:
        print_json(answer)
    else:
        ended = ", ".join(answer["ended"]) or "none"
        print(f"afresh: {answer['agent']}; sessions ended: {ended}. What it opens next is not tainted.")
    return OK


def list_agents(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """Agents of the release in force: where they are known, what they were granted, how they are used."""
    found = caller.ask("/v1/agents")
    if as_json:
        print_json(found)
        return OK
    rows = [
        (
            agent["agent"],
            ", ".join(item["environment"] for item in agent["identities"]),
            ", ".join(agent["tasks"]),
            ", ".join(f"{grant['operation']} ({'+'.join(grant['effects'])})" for grant in agent["grants"]),
            str(agent["live_sessions"]),
            when(agent["last_opened_at_us"]) if agent["last_opened_at_us"] else "never",
        )
        for agent in found["agents"]
    ]
    names = ("agent", "environments", "tasks", "operations", "live sessions", "last opened")
    print_table(names, rows, empty="no agents that you may see", whole="agent")
    return OK


def decide(
    operation: Annotated[str, Parameter(help="The operation, as tool.operation.")],
    *,
    args: Annotated[str, Parameter(help="Its arguments as JSON.")] = "{}",
    agent: Annotated[str, Parameter(help="The agent; needed when there are several.")] = "",
    user: Annotated[str, Parameter(help="The user; you when not given.")] = "",
    role: Annotated[
        list[str] | None, Parameter(help="A role of the user; may be repeated. What their newest session says when not given.")
    ] = None,
    tenant: Annotated[str, Parameter(help="The user's tenant; yours when not given.")] = "",
    task: Annotated[str, Parameter(help="The task; the only one that fits when not given.")] = "",
    attributes: Annotated[str, Parameter(help="The user's attributes as JSON.")] = "{}",
    resource: Annotated[str, Parameter(help="The attributes of the object as JSON; unknown when not given.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """What would be decided by the release in force, and why; nothing is run. Exit code 1 when it is no plain yes."""
    body: dict[str, Any] = {
        "operation": operation,
        "arguments": _json(args, "--args"),
        "agent": agent,
        "user": user,
        "tenant": tenant,
        "task": task,
        "attributes": _json(attributes, "--attributes"),
    }
    body |= {"roles": role} if role else {}
    body |= {"resource": _json(resource, "--resource")} if resource else {}
    answer = caller.ask("/v1/decisions", body=body)
    if as_json:
        print_json(answer)
    else:
        _tell(answer)
    return OK if answer["outcome"] == "allow" else NO


def _tell(answer: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{answer['outcome']} {answer['code']}  {answer['say']}".strip()))
    for rule in answer["approvals"]:
        console.print(Text(f"  waits for {rule}"))
    for layer in answer["layers"]:
        console.print(Text(f"  {layer['question']} {layer['layer']}: {layer['answer']}"))
        for policy in layer["policies"]:
            if policy["said"] != "silent":
                console.print(Text(f"      {policy['said']:<7} {policy['id']}"))
    console.print(Text(f"  on record as {answer['decision_id']}"))


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(f"{name} is not JSON: {error}", code=USAGE) from error
