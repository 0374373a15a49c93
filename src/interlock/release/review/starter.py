"""A first release around one reviewed tool: reads flow, writes ask, the rest is denied, and everything is capped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jsonschema_rs
import msgspec

from interlock.core.contract import Contract
from interlock.core.terms import Effect
from interlock.release.cedar import GROUPS
from interlock.release.contracts import read_tool
from interlock.release.documents import Problems, read_yaml
from interlock.release.errors import ReleaseError
from interlock.release.review.draft import ListingError

TASK: Final = "work"
MAX_EXAMPLE_LEVELS: Final = 6

_RELEASE: Final = """\
# {name}: written by `interlock init`. Yours to change: `interlock release check` names every mistake with file and line.
name: {name}
# Which team owns which files. With more people, give the teams different roles below.
owners: {{platform: [release.yaml, tools], product: [agents.yaml, tasks.yaml, tests], security: [policies, approvals.yaml]}}
# Who may do what to the control plane itself. What is not named here may be done by nobody.
administration:
  operated_by: [local]
  teams: {{platform: [Owner, User], product: [Owner, User], security: [Owner]}}
  kill: [Owner, User]
  resume: [Owner]
  lower: [Owner]
  settle: [Owner]
  revoke: [Owner]
  propose: [Owner, User]
  activate: [Owner]
  review: [Owner]
  status: [Owner, User]
  traces: [Owner, User]
  audit: [Owner]
  approvals: [Owner]
  decide: [Owner, User]
"""
_AGENTS: Final = """\
{agent}:
  # On this machine the built-in issuer vouches for it. In production: issuers.yaml.
  {environment}: {{issuer: interlock-dev, subject: "agent:{agent}@{environment}"}}
  grants:
{grants}"""
_READS: Final = """\
    # What only reads flows.
    - on: [{operations}]
      for: {{roles: [User], task: {task}}}
      rate: "120/60s"
"""
_DENIED: Final = """\
    # Destroying and sending out: forbidden by policies/guard/first.cedar. When you lift that, these still wait for a person.
    - on: [{operations}]
      for: {{roles: [User], task: {task}}}
      ask: {{rule: changes}}
      rate: "20/60s"
"""
_WRITES: Final = """\
    # What changes something waits for a person, each time. Narrow it when you know what is safe: `where`, `ask: {{when: …}}`.
    - on: [{operations}]
      for: {{roles: [User], task: {task}}}
      ask: {{rule: changes}}
      rate: "20/60s"
"""
_TASKS: Final = "{task}: {{purpose: what {user} asks {agent} to do, open_to: [User], agents: [{agent}]}}\n"
_APPROVALS: Final = """\
# Whoever answers has this role, and is never the one in whose name it is done.
changes: {role: Owner, not: requester, holds_s: 900}
"""
_NO_HARM: Final = """\
// Final: no approval lifts it. To allow one operation, narrow this: `unless {{ action == Action::"tool.operation" }}`,
// or say who may lift it: @approval("changes").
@id("nothing-destroyed-nothing-sent-out")
@owner("security")
@say("Destroying things and sending things out are not allowed here yet.")
forbid (principal, action in [{groups}], resource);

"""
_NO_WRITES: Final = """\
@id("no-writes-when-worried")
@owner("security")
@say("This session may only read now.")
forbid (principal, action in [{groups}], resource)
when {{ context.session.posture != "normal" }};
"""
_DIRECTORY: Final = """\
# Who exists on this machine. For development: whoever can read the key folder can be anyone.
users:
  {user}: {{tenant: local, roles: [User]}}
  # Approves what {user}'s agent asks for. Nobody approves what is done in their own name, so this is a second person.
  {approver}: {{tenant: local, roles: [Owner]}}
agents:
  {agent}: {{subjects: {{{environment}: "agent:{agent}@{environment}"}}}}
"""


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in a first release."""

    release: str
    tool: str
    agent: str
    user: str
    approver: str
    environment: str


def first_release(names: Names, tool_file: str) -> dict[str, str]:
    """The files of a release around one tool file, with a test for every reviewed operation.

    Raises:
        ReleaseError: the tool file does not load.
        ListingError: nothing in it was reviewed.
    """
    words = msgspec.structs.asdict(names) | {"name": names.release, "task": TASK}
    problems = Problems()
    place = f"tools/{names.tool}.yaml"
    node = read_yaml(place, tool_file, problems)
    read = None if node is None else read_tool(names.tool, node, (names.environment,), None, problems)
    if read is None or problems.found:
        raise ReleaseError(tuple(sorted(set(problems.found))))
    contracts = read[1]
    if not contracts:
        raise ListingError("no operation was reviewed, so there is nothing to put into a release")
    reads = [contract for contract in contracts if contract.is_read_only]
    denied = [contract for contract in contracts if contract.effects & {Effect.DESTRUCTIVE, Effect.EGRESS}]
    writes = [contract for contract in contracts if contract not in reads and contract not in denied]
    grants = "".join(
        template.format(operations=", ".join(contract.operation for contract in granted), task=TASK)
        for template, granted in ((_READS, reads), (_WRITES, writes), (_DENIED, denied))
        if granted
    )
    files = {
        "release.yaml": _RELEASE.format(**words),
        "agents.yaml": _AGENTS.format(**words, grants=grants),
        "tasks.yaml": _TASKS.format(**words),
        "approvals.yaml": _APPROVALS,
        place: tool_file,
    }
    # Cedar refuses a policy about actions that nothing does.
    guard = "".join(
        template.format(groups=", ".join(f'Action::"{GROUPS[effect]}"' for effect in Effect if effect in harmful))
        for template, harmful in (
            (_NO_HARM, _effects_of(contracts) & {Effect.DESTRUCTIVE, Effect.EGRESS}),
            (_NO_WRITES, _effects_of(contracts) - {Effect.READ}),
        )
        if harmful
    )
    if guard:
        files["policies/guard/first.cedar"] = guard
    files["tests/first.yaml"] = _tests(contracts, reads, writes)
    return files


def _effects_of(contracts: Iterable[Contract]) -> frozenset[Effect]:
    return frozenset[Effect]().union(*(contract.effects for contract in contracts))


def directory(names: Names) -> str:
    """The people and the agent of a first release, for the built-in issuer."""
    return _DIRECTORY.format(**msgspec.structs.asdict(names))


def _tests(contracts: Iterable[Contract], reads: list[Contract], writes: list[Contract]) -> str:
    lines = ["# What must be decided. `interlock policy test` runs them.\n"]
    for contract in contracts:
        expect = "allow" if contract in reads else "ask changes" if contract in writes else "deny 7"
        arguments = example(json.loads(contract.input_schema))
        if arguments is None:
            lines.append(f"# {contract.operation}: write a test by hand; no example of its arguments could be made up\n")
            continue
        case = {"call": contract.operation, "args": arguments, "as": "User", "expect": expect}
        lines.append(f"- {json.dumps(case)}\n")
    return "".join(lines) if len(lines) > 1 else ""


def example(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments that fit a schema, as plain as they can be; None when none could be made up."""
    made = _example(schema, schema, 0)
    try:
        fits = isinstance(made, dict) and jsonschema_rs.validator_for(dict(schema)).is_valid(made)
    except (ValueError, jsonschema_rs.ValidationError):
        return None
    return made if fits and isinstance(made, dict) else None


def _example(schema: Any, root: Mapping[str, Any], level: int) -> Any:
    if not isinstance(schema, Mapping) or level > MAX_EXAMPLE_LEVELS:
        return None
    if isinstance(schema.get("$ref"), str):
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        return _example(target, root, level + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _example(schema[key][0], root, level + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    match kind:
        case "object" | None:
            names = schema.get("required", ())
            return {name: _example(schema.get("properties", {}).get(name), root, level + 1) for name in names}
        case "array":
            return [_example(schema.get("items", {}), root, level + 1) for _ in range(int(schema.get("minItems", 0)))]
        case "integer" | "number":
            return int(schema.get("minimum", 1)) if float(schema.get("minimum", 1)).is_integer() else 1
        case "boolean":
            return True
        case "string":
            return _FORMATS.get(str(schema.get("format", "")), "example"[: int(schema.get("maxLength", 7))])
        case _:
            return None


_FORMATS: Final = {
    "date": "2027-01-31",
    "date-time": "2027-01-31T12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "decimal": "1.00",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
