"""Load a release folder whole, or say everything that is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from interlock.core.canonical import canonical, digest
from interlock.core.contract import Contract
from interlock.core.terms import Layer
from interlock.release import cedar
from interlock.release.budgets import read_budgets
from interlock.release.contracts import read_tool
from interlock.release.documents import Node, Problems, read_yaml
from interlock.release.errors import Problem, ReleaseError
from interlock.release.grants import Grantee, GrantError, GrantSpec, compile_grant
from interlock.release.history import read_history
from interlock.release.issuers import Issuer, read_issuers, wrong_voucher
from interlock.release.model import (
    Administration,
    AgentIdentity,
    ApprovalRule,
    Policy,
    Release,
    Task,
    Tool,
)
from interlock.release.risk import read_risk
from interlock.release.testfiles import TEST_FILE, read_tests
from interlock.release.trust import wrongly_trusted

MAX_FILES: Final = 2_000
MAX_APPROVAL_HOLDS_S: Final = 7 * 24 * 3600
_TEAMS: Final = ("platform", "product", "security")
_ATTRIBUTE_KINDS: Final = {"string", "set", "long", "bool"}
_OBLIGATION: Final = re.compile(
    r"^(redact:[\w.-]+|columns:[^:]*:[\w,.-]+|rows:[^:]+\[\]:[\w]+=.+|rate:[1-9]\d*/[1-9]\d*s|read-only|log)$"
)
_KNOWN_PLACES: Final = re.compile(
    r"^(release|agents|tasks|approvals|budgets|history|issuers|risk)\.yaml$|^tools/[^/]+\.yaml$|^policies/[^/]+/[^/]+\.cedar$|^tests/[^/]+\.yaml$|\.md$"
)


class ReleaseSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`release.yaml`."""

    name: str
    owners: dict[str, list[str]] = {}
    user_attributes: dict[str, str] = {}
    administration: Administration = Administration()
    guarded: str = ""


class IdentitySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent's identity in one environment."""

    issuer: str
    subject: str


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `tasks.yaml`."""

    purpose: str
    open_to: list[str]
    agents: list[str]


class ApprovalSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `approvals.yaml`."""

    role: str
    exclude: str = msgspec.field(default="requester", name="not")
    holds_s: int = 900
    show: list[str] = []


def read_files(folder: Path) -> dict[str, str]:
    """The texts of a release folder's files by their path in it. Raises `ReleaseError`."""
    files: dict[str, str] = {}
    problems: list[Problem] = []
    if not (folder / "release.yaml").is_file():
        raise ReleaseError((Problem(str(folder), 0, "no release.yaml here; this is not a release folder"),))
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        name = "/".join(parts)
        try:
            files[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(name, 0, f"cannot be read as UTF-8 text: {error}"))
        if len(files) > MAX_FILES:
            raise ReleaseError((Problem(str(folder), 0, f"more than {MAX_FILES} files; is this the release folder?"),))
    if problems:
        raise ReleaseError(tuple(problems))
    return files


def load(folder: Path, variables: Mapping[str, str] | None = None) -> Release:
    """Load the release in a folder; with `variables` None, `${NAME}` is left as written. Raises `ReleaseError`."""
    return from_files(read_files(folder), variables)


def digest_of(files: Mapping[str, str]) -> str:
    """The digest of a release: over the texts of its files as written, before any variable is filled in."""
    return digest(canonical(dict(files)))


def from_files(files: Mapping[str, str], variables: Mapping[str, str] | None = None) -> Release:
    """Load a release from the texts of its files. Raises `ReleaseError` with every problem found."""
    loader = _Loader(files, variables)
    release = loader.load()
    if loader.problems.found:
        raise ReleaseError(tuple(sorted(set(loader.problems.found))))
    return release


class _Loader:
    def __init__(self, files: Mapping[str, str], variables: Mapping[str, str] | None) -> None:
        self.files = files
        self.variables = variables
        self.problems = Problems()

    def load(self) -> Release:
        for name in self.files:
            if not _KNOWN_PLACES.search(name):
                self.problems.found.append(
                    Problem(name, 0, "no file of a release has this name; move it or begin it with a dot")
                )
        spec = self._convert("release.yaml", ReleaseSpec) or ReleaseSpec(name="")
        owners = {team: tuple(parts) for team, parts in spec.owners.items()} or dict.fromkeys(_TEAMS, ())
        for name, kind in spec.user_attributes.items():
            if kind not in _ATTRIBUTE_KINDS:
                where = self._node("release.yaml").at("user_attributes").at(name)
                self.problems.add(where, f"user_attributes.{name} is one of {', '.join(sorted(_ATTRIBUTE_KINDS))}")
        issuers = read_issuers(self._node("issuers.yaml", needed=False), self._valid_attributes(spec), self.problems)
        identities = self._identities(issuers)
        environments = tuple(sorted({identity.environment for identity in identities}))
        agents = {identity.agent for identity in identities}
        tools, contracts = self._tools(environments)
        self._check_contracts(contracts)
        approvals = self._approvals()
        if spec.guarded and spec.guarded not in approvals:
            where = self._node("release.yaml").at("guarded")
            self.problems.add(where, f"there is no approval rule {spec.guarded!r} in approvals.yaml")
        tasks = self._tasks(agents)
        history = read_history(self._node("history.yaml", needed=False), contracts, self.problems)
        schema = json.dumps(cedar.schema_of(contracts.values(), self._valid_attributes(spec), history))
        policies = self._policies(identities, contracts, approvals, set(owners), tasks, schema)
        self._check_reach(contracts, policies)
        return Release(
            name=spec.name,
            digest=digest_of(self.files),
            files=self.files,
            owners=owners,
            user_attributes=self._valid_attributes(spec),
            administration=spec.administration,
            guarded=spec.guarded,
            identities=identities,
            issuers=issuers,
            tasks=tasks,
            tools=tools,
            contracts=contracts,
            approvals=approvals,
            policies=policies,
            cedar_schema=schema,
            tests=tuple(
                test
                for name in sorted(self.files)
                if TEST_FILE.match(name)
                for test in read_tests(self._node(name), contracts, self.problems)
            ),
            history=history,
            budgets=read_budgets(self._node("budgets.yaml", needed=False), contracts, approvals, self.problems),
            risk=read_risk(self._node("risk.yaml", needed=False), self.problems),
        )

    def _valid_attributes(self, spec: ReleaseSpec) -> dict[str, str]:
        return {name: kind for name, kind in spec.user_attributes.items() if kind in _ATTRIBUTE_KINDS}

    def _node(self, name: str, *, needed: bool = True) -> Node:
        text = self.files.get(name)
        if text is None:
            if needed:
                self.problems.found.append(Problem(name, 0, "this file is missing"))
            return Node({}, name, {})
        known = read_yaml(name, text, self.problems)
        return Node({}, name, {}) if known is None or known.value is None else known

    def _convert(self, name: str, kind: type[ReleaseSpec]) -> ReleaseSpec | None:
        node = self._node(name)
        return self.problems.convert(node, kind) if node.value else None

    def _identities(self, issuers: Mapping[str, Issuer]) -> tuple[AgentIdentity, ...]:
        found: list[AgentIdentity] = []
        for agent, node in self._node("agents.yaml").items():
            for environment, inside in node.items():
                if environment == "grants":
                    continue
                spec = self.problems.convert(inside, IdentitySpec)
                if spec is not None:
                    mistake = wrong_voucher(issuers, spec.issuer, spec.subject, environment)
                    if mistake:
                        self.problems.add(inside, mistake)
                    identity = AgentIdentity(agent=agent, environment=environment, issuer=spec.issuer, subject=spec.subject)
                    found.append(identity)
                    same = [
                        other for other in found[:-1]
                        if (other.issuer, other.subject) == (spec.issuer, spec.subject)
                    ]  # fmt: skip
                    if same:
                        # INVARIANT: one proof, one agent, one environment.
                        self.problems.add(inside, f"{same[0].agent} in {same[0].environment} has the same issuer and subject")
        return tuple(found)

    def _tools(self, environments: tuple[str, ...]) -> tuple[dict[str, Tool], dict[str, Contract]]:
        tools: dict[str, Tool] = {}
        contracts: dict[str, Contract] = {}
        for file in sorted(name for name in self.files if re.match(r"^tools/[^/]+\.yaml$", name)):
            name = file.removeprefix("tools/").removesuffix(".yaml")
            found = read_tool(name, self._node(file), environments, self.variables, self.problems)
            if found is not None:
                tools[name] = found[0]
                contracts |= {contract.operation: contract for contract in found[1]}
        return tools, contracts

    def _check_contracts(self, contracts: Mapping[str, Contract]) -> None:
        shapes: dict[tuple[str, str], tuple[str, str]] = {}
        for contract in contracts.values():
            node = Node(None, f"tools/{contract.tool}.yaml", {}, "$")
            if contract.resource is not None:
                reader = contracts.get(contract.resource.read)
                if reader is None or not reader.is_read_only or len(reader.arguments.fields) != 1:
                    self.problems.add(
                        node,
                        f"{contract.operation}: resource.read names {contract.resource.read!r}, which must only read "
                        "and take just the id",
                    )
                for name, kind in contract.resource.attributes.items():
                    known = shapes.setdefault((contract.resource.type, name), (kind, contract.operation))
                    if known[0] != kind:
                        self.problems.add(
                            node,
                            f"{contract.operation} says {contract.resource.type}.{name} is a {kind}, {known[1]} a {known[0]}",
                        )
            if contract.evidence is not None:
                reader = contracts.get(contract.evidence.read)
                given = contract.evidence.arguments.keys() | contract.arguments.required
                if reader is None or not reader.is_read_only or not reader.arguments.required <= given:
                    self.problems.add(
                        node,
                        f"{contract.operation}: verify.read names {contract.evidence.read!r}, which must only read, "
                        "and whose arguments `with` must give",
                    )
            for kind in ("verify", "undo"):
                named = getattr(contract, kind)
                if named and named not in contracts:
                    self.problems.add(node, f"{contract.operation}: {kind} names {named!r}, which is no operation here")
        for contract, complaint in wrongly_trusted(contracts):
            self.problems.add(Node(None, f"tools/{contract.tool}.yaml", {}, "$"), complaint)

    def _approvals(self) -> dict[str, ApprovalRule]:
        found = {}
        for name, node in self._node("approvals.yaml", needed=False).items():
            spec = self.problems.convert(node, ApprovalSpec)
            if spec is not None and spec.exclude != "requester":
                self.problems.add(node, "`not` is `requester`: nobody ever approves what is done in their own name")
            if spec is not None and not 0 < spec.holds_s <= MAX_APPROVAL_HOLDS_S:
                self.problems.add(node, f"`holds_s` is 1 to {MAX_APPROVAL_HOLDS_S} seconds")
            if spec is not None:
                found[name] = ApprovalRule(
                    name=name, role=spec.role, exclude=spec.exclude, holds_s=spec.holds_s, show=tuple(spec.show)
                )
        return found

    def _tasks(self, agents: set[str]) -> dict[str, Task]:
        found = {}
        for name, node in self._node("tasks.yaml").items():
            spec = self.problems.convert(node, TaskSpec)
            if spec is None:
                continue
            for agent in spec.agents:
                if agent not in agents:
                    self.problems.add(node.at("agents"), f"task {name}: there is no agent {agent!r}")
            found[name] = Task(name=name, purpose=spec.purpose, open_to=tuple(spec.open_to), agents=tuple(spec.agents))
        return found

    def _policies(
        self,
        identities: tuple[AgentIdentity, ...],
        contracts: Mapping[str, Contract],
        approvals: Mapping[str, ApprovalRule],
        teams: set[str],
        tasks: Mapping[str, Task],
        schema: str,
    ) -> tuple[Policy, ...]:
        made = [*self._granted(identities, contracts, approvals, tasks), *self._written(approvals, teams)]
        seen: dict[str, Policy] = {}
        for policy in made:
            earlier = seen.setdefault(policy.id, policy)
            if earlier is not policy:
                self.problems.found.append(
                    Problem(policy.file, policy.line, f"the id {policy.id!r} is taken by {earlier.file}:{earlier.line}")
                )
        for index, messages in cedar.check([policy.cedar for policy in made], schema).items():
            policy = made[index]
            for message in messages:
                self.problems.found.append(Problem(policy.file, policy.line, f"policy {policy.id!r}: {message}"))
        return tuple(made)

    def _granted(
        self,
        identities: tuple[AgentIdentity, ...],
        contracts: Mapping[str, Contract],
        approvals: Mapping[str, ApprovalRule],
        tasks: Mapping[str, Task],
    ) -> list[Policy]:
        made: list[Policy] = []
        for agent, node in self._node("agents.yaml").items():
            environments = tuple(item.environment for item in identities if item.agent == agent)
            for number, inside in enumerate(node.at("grants").each(), start=1):
                grant = self.problems.convert(inside, GrantSpec)
                if grant is None:
                    continue
                if grant.ask is not None and grant.ask.rule not in approvals:
                    self.problems.add(inside.at("ask"), f"there is no approval rule {grant.ask.rule!r} in approvals.yaml")
                for task in [grant.to.task] if isinstance(grant.to.task, str) else grant.to.task:
                    if task not in tasks:
                        self.problems.add(inside.at("for"), f"there is no task {task!r} in tasks.yaml")
                grantee = Grantee(agent=agent, number=number, environments=environments)
                for contract in self._named(grant.on, contracts, inside):
                    try:
                        compiled = compile_grant(grant, grantee, contract)
                    except GrantError as error:
                        self.problems.add(inside, f"grant {number} of {agent}: {error}")
                        break
                    for entry in compiled:
                        statement = next(cedar.statements(entry.text))
                        if statement.est is None:
                            self.problems.add(inside, f"grant {number} of {agent} cannot be compiled: {statement.error}")
                            continue
                        policy = _policy(statement, entry.layer, "agents.yaml", inside.line)
                        made.append(msgspec.structs.replace(policy, limits=entry.limits))
        return made

    def _named(self, on: str | list[str], contracts: Mapping[str, Contract], node: Node) -> list[Contract]:
        found: list[Contract] = []
        for name in [on] if isinstance(on, str) else on:
            if name.endswith(".*"):
                matching = [c for c in contracts.values() if c.tool == name.removesuffix(".*") and not c.internal]
            else:
                matching = [contracts[name]] if name in contracts else []
            if not matching:
                self.problems.add(node.at("on"), f"there is no operation {name!r}")
            found += matching
        return found

    def _written(self, approvals: Mapping[str, ApprovalRule], teams: set[str]) -> list[Policy]:
        made: list[Policy] = []
        for file in sorted(name for name in self.files if name.endswith(".cedar")):
            folder = file.split("/")[1] if file.count("/") == 2 else ""  # noqa: PLR2004  # policies/<layer>/<file>
            if folder not in {layer.value for layer in Layer}:
                self.problems.found.append(
                    Problem(file, 0, f"policies live in policies/<layer>/, a layer is one of {', '.join(Layer)}")
                )
                continue
            for statement in cedar.statements(self.files[file]):
                if statement.est is None:
                    self.problems.found.append(Problem(file, statement.line, statement.error))
                    continue
                problem = _refused(statement, Layer(folder), approvals, teams)
                if problem:
                    self.problems.found.append(Problem(file, statement.line, problem))
                    continue
                made.append(_policy(statement, Layer(folder), file, statement.line))
        return made

    def _check_reach(self, contracts: Mapping[str, Contract], policies: tuple[Policy, ...]) -> None:
        permits = [policy for policy in policies if policy.layer is Layer.IDENTITY and policy.effect == "permit"]
        for contract in contracts.values():
            groups = {contract.operation, f"tool:{contract.tool}", *(cedar.GROUPS[effect] for effect in contract.effects)}
            reached = any(policy.actions is None or groups & set(policy.actions) for policy in permits)
            if not reached and not contract.internal:
                self.problems.found.append(
                    Problem(
                        f"tools/{contract.tool}.yaml",
                        0,
                        f"nobody can reach {contract.operation}: grant it in agents.yaml, "
                        "or say `internal: true` or `draft: true`",
                    )
                )


def _refused(statement: cedar.Statement, layer: Layer, approvals: Mapping[str, ApprovalRule], teams: set[str]) -> str:
    notes = statement.annotations
    effect = (statement.est or {})["effect"]
    if not notes.get("id"):
        return 'the policy has no @id("...")'
    if notes["id"].startswith("grant:"):
        return "ids that begin with `grant:` belong to compiled grants"
    if notes.get("owner", "") not in teams:
        return f'policy {notes["id"]!r} needs @owner("..."), one of {", ".join(sorted(teams))}'
    if effect == "permit" and layer is Layer.GUARD:
        return f"policy {notes['id']!r}: the guard layer only forbids; a permit belongs to another layer"
    if effect == "permit" and ("approval" in notes or "obligation" in notes):
        return f"policy {notes['id']!r}: only a forbid can be lifted by @approval or @obligation"
    if "approval" in notes and notes["approval"] not in approvals:
        return f"policy {notes['id']!r}: there is no approval rule {notes['approval']!r} in approvals.yaml"
    if "obligation" in notes and not _OBLIGATION.match(notes["obligation"]):
        return f"policy {notes['id']!r}: the obligation {notes['obligation']!r} is not one that the gateway can enforce"
    return ""


def _policy(statement: cedar.Statement, layer: Layer, file: str, line: int) -> Policy:
    notes, est = statement.annotations, statement.est or {}
    return Policy(
        id=notes["id"],
        layer=layer,
        owner=notes.get("owner", ""),
        effect=est["effect"],
        actions=cedar.actions_of(est),
        cedar=statement.text,
        est=json.dumps(est),
        say=notes.get("say", ""),
        approval=notes.get("approval", ""),
        obligations=(notes["obligation"],) if "obligation" in notes else (),
        file=file,
        line=line,
    )
