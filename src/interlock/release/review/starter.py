"""A first release around one reviewed tool: reads flow, writes ask, the rest is denied, chains are seen, all is capped."""

from __future__ import annotations

import json
import re
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
owners:
  platform: [release.yaml, tools]
  product: [agents.yaml, tasks.yaml, tests]
  security: [policies, approvals.yaml, history.yaml, risk.yaml]
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
_HISTORY: Final = """\
# Facts about what came before, for policies/guard/chains.cedar. They speak of what operations do, so they hold for every
# tool that you import later.
"""
_SWEPT: Final = """\
listed: {formerly: reads, per: work, within: 1h}
destroyed: {count: destructive, per: work, within: 1h, with_this: true}
"""
_NOT_SWEPT: Final = """\
# Nothing reads lists and destroys yet; with a tool that does, uncomment this, and the sweep in chains.cedar.
# listed: {formerly: reads, per: work, within: 1h}
# destroyed: {count: destructive, per: work, within: 1h, with_this: true}
"""
_PERMISSIONS: Final = """\
# What changes who may do what. When you import more of the kind, name it here.
changed_permissions: {{formerly: [{operations}], per: work, within: 1h}}
"""
_NO_PERMISSIONS: Final = """\
# What changes who may do what. None of your operations sounds like it; when you have one, name it here and in chains.cedar.
# changed_permissions: {formerly: [directory.add_role], per: work, within: 1h}
"""
_CHAINS: Final = """\
// Each step is allowed alone; together they are reviewed. Written for effects and classifications, not for names: they hold for
// every tool that you import later. A trace names the earlier steps behind a call that one of these stopped.

@id("private-data-does-not-leave-unseen")
@owner("security")
@approval("changes")
@say("Confidential data was read here before. What is sent out now waits for a person.")
forbid (principal, action, resource)
when { action in Action::"egress" && context.session.confidentiality >= 2 };

@id("untrusted-content-destroys-nothing-unseen")
@owner("security")
@approval("changes")
@say("Something that others may have written was read here before. What is destroyed now waits for a person.")
forbid (principal, action, resource)
when { action in Action::"destructive" && context.session.tainted };

// Final: this is how data is stolen. A plan that was sealed before anything untrusted was read says otherwise.
@id("private-data-and-untrusted-content-send-nothing")
@owner("security")
@say("Confidential data and a text that others wrote were both read here, and this was not in the plan. Nothing is sent out.")
forbid (principal, action, resource)
when {
  action in Action::"egress" && context.session.confidentiality >= 2 && context.session.tainted &&
  !(["user", "derived", "trusted", "planned", "weak"].contains(context.origins.targets)) && !context.plan.agrees
};
"""
_SWEEPS: Final = """
// Final: one deletion is work; one after another down a list is a sweep.
@id("no-sweeps")
@owner("security")
@say("A list was read, and then more than three things were destroyed. Stop here, and tell the user.")
forbid (principal, action, resource)
when { action in Action::"destructive" && context.history.listed && context.history.destroyed > 3 };
"""
_NO_SWEEPS: Final = "\n" + "".join(f"// {line}\n" for line in _SWEEPS.strip().splitlines())
_CHANGED: Final = """
// Who changes what is allowed and then uses it has allowed it to themselves. Such changes are named in history.yaml.
@id("changed-permissions-are-not-used-unseen")
@owner("security")
@approval("changes")
@say("What is allowed was changed here within the hour. What is changed, destroyed or sent now waits for a person.")
forbid (principal, action, resource)
when {
  (action in Action::"writes" || action in Action::"destructive" || action in Action::"egress") &&
  context.history.changed_permissions
};
"""
_RISK: Final = """\
# From which score on a session is more worried about. One clear sign (an order to disregard instructions scores 75) makes it
# read only, two weak ones together make it guarded; a planted secret that is sent off halts it. Only a person lowers it again.
thresholds: {guarded: 40, read_only: 70, halted: 95}
# What an agent does for the first time is worth half: at the beginning everything is new.
weights: {novelty: 50}
# A classifier finds more (`pip install "interlock[detectors]"`); while it cannot look, that counts too:
# detectors: {classifier: {failing: 20}}
"""
_GIVES_RIGHTS: Final = re.compile(r"role|permission|grant|acl|privilege|access|member|admin|polic|invite|share", re.IGNORECASE)
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
    rights = [item.operation for item in contracts if item not in reads and _GIVES_RIGHTS.search(item.operation)]
    swept = bool(reads) and Effect.DESTRUCTIVE in _effects_of(contracts)
    files["policies/guard/chains.cedar"] = _CHAINS + (_SWEEPS if swept else _NO_SWEEPS) + (_CHANGED if rights else "")
    named = _PERMISSIONS.format(operations=", ".join(rights)) if rights else _NO_PERMISSIONS
    files["history.yaml"] = _HISTORY + (_SWEPT if swept else _NOT_SWEPT) + named
    files["risk.yaml"] = _RISK
    files["tests/first.yaml"] = _tests(contracts, reads, writes)
    if chains := _chain_tests(denied, swept=swept):
        files["tests/chains.yaml"] = chains
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


def _chain_tests(harmful: Iterable[Contract], *, swept: bool) -> str:
    """Tests of the final chains, which hold whatever else is lifted."""
    lines: list[str] = []
    for effect, name, given in (
        (Effect.DESTRUCTIVE, "a sweep down a list stops", {"history": {"listed": True, "destroyed": 4}}),
        (
            Effect.EGRESS,
            "confidential data does not go where a text says",
            {"session": {"tainted": True, "confidentiality": 2}},
        ),
    ):
        for contract in harmful:
            arguments = example(json.loads(contract.input_schema))
            targets = [target for target in contract.targets if arguments and target in arguments]
            if effect is Effect.DESTRUCTIVE and not swept:
                break
            if effect not in contract.effects or arguments is None or (effect is Effect.EGRESS and not targets):
                continue
            traced = {"provenance": dict.fromkeys(targets, "untrusted")} if effect is Effect.EGRESS else {}
            case = {"name": name, "call": contract.operation, "args": arguments, "as": "User", **given, **traced}
            lines.append(f"- {json.dumps({**case, 'expect': 'deny 7'})}\n")
            break
    return "".join(["# What must stay stopped, whatever you allow one by one.\n", *lines]) if lines else ""


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
