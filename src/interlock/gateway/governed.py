"""A release made ready to govern: its engine and its compiled schemas, one object per digest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import jsonschema_rs
import msgspec

from interlock.core.budget import HANDED_DOWN, Budget, Charge, Counted, Per
from interlock.core.canonical import JsonValue
from interlock.core.claim import LineageState
from interlock.core.contract import Contract, Kind
from interlock.core.decision import Facts, Obligations, ResourceFacts, Traced
from interlock.core.history import HistoryFact, Recalled, Span
from interlock.core.mirrored import Mirrored, mirrored_parameters
from interlock.core.plan import Planned
from interlock.core.uris import match
from interlock.core.who import Session
from interlock.gateway.limits import LONGEST_SESSION_S
from interlock.gateway.messages import Found
from interlock.gateway.ports import Shelf
from interlock.policy.engine import Engine
from interlock.policy.obligations import parse
from interlock.policy.slices import EFFECT_GROUPS
from interlock.release.model import Release
from interlock.risk.canaries import Canaries
from interlock.tools.directory import Connectors

_PROVENANCE: Final = frozenset({"origins", "provenance"})
_PLAN: Final = frozenset({"plan"})


class ArgumentError(Exception):
    """Arguments that do not fit the schema. `field` is the dotted path of the first that does not."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Governed:
    """A release with its policy engine and validators. Validators are compiled on first use."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.engine = Engine(release)
        self._by_kind: dict[Kind, list[Contract]] = {}
        for contract in release.contracts.values():
            self._by_kind.setdefault(contract.kind, []).append(contract)
        self._mirrored: dict[str, Mirrored] = {}
        self._read_provenance: dict[str, bool] = {}
        self._read_plan: dict[str, bool] = {}
        self._history: dict[str, tuple[HistoryFact, ...]] = {}
        self.history_counted: frozenset[str] = frozenset().union(*(fact.counted for fact in release.history))
        works = [fact for fact in release.history if fact.per is Span.WORK]
        self.work_counted: frozenset[str] = frozenset().union(*(fact.counted for fact in works))
        self.history_window_s = max((fact.within_s or LONGEST_SESSION_S for fact in release.history), default=0)
        self._inputs: dict[str, jsonschema_rs.Validator] = {}
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        self.canaries = Canaries(release.risk.canaries)
        self._named_budgets = {budget.name: budget for budget in release.budgets}

    def contract(self, operation: str) -> Contract | None:
        """The contract of an operation that callers may name; None for unknown and internal ones."""
        found = self.release.contracts.get(operation)
        return None if found is None or found.internal else found

    def named(self, kind: Kind, name: str, tool: str | None = None) -> Found | None:
        """The operation that a server knows by a name, or that a URI leads to; None also when several tools offer it.

        What completes a prompt is found by the prompt's own operation, too: `@tool.operation`.
        """
        if kind is Kind.COMPLETION and name.startswith("@"):
            prompt = self.release.contracts.get(name[1:])
            if prompt is None or prompt.kind is not Kind.PROMPT:
                return None
            name, tool = prompt.upstream_name, prompt.tool
        found: dict[str, Found] = {}
        for contract in self._by_kind.get(kind, ()):
            if contract.internal or (tool is not None and contract.tool != tool):
                continue
            values = match(contract.upstream_name, name) if kind is Kind.RESOURCE else None
            if contract.upstream_name == name or values is not None:
                arguments = msgspec.json.encode(values or {})
                # A resource by its own name goes before a template that would fit as well.
                if contract.upstream_name == name:
                    found = {item: of for item, of in found.items() if not item.startswith(f"{contract.tool}.")}
                    found[contract.operation] = Found(operation=contract.operation, arguments=arguments)
                elif not any(item.startswith(f"{contract.tool}.") for item in found):
                    found[contract.operation] = Found(operation=contract.operation, arguments=arguments)
        return next(iter(found.values())) if len(found) == 1 else None

    def budgets(self, contract: Contract) -> tuple[Budget, ...]:
        """The budgets that may count calls of this contract."""
        found = self._budgets.get(contract.operation)
        if found is None:
            found = tuple(item for item in self.release.budgets if not item.on or contract.operation in item.on)
            self._budgets[contract.operation] = found
        return found

    def budget(self, charge: Charge) -> Budget:
        """The budget that a charge was made on; raises KeyError for one that the release has not."""
        if charge.budget == HANDED_DOWN:
            return Budget(name=HANDED_DOWN, counted=Counted.CALLS, per=Per.SESSION, limit=charge.limit)
        return self._named_budgets[charge.budget]

    def check_arguments(self, contract: Contract, arguments: JsonValue) -> None:
        """Raise `ArgumentError` unless the arguments fit the contract's input schema."""
        validator = self._inputs.get(contract.operation)
        if validator is None:
            validator = jsonschema_rs.validator_for(contract.input_schema)
            self._inputs[contract.operation] = validator
        if validator.is_valid(arguments):
            return
        error = next(iter(validator.iter_errors(arguments)))
        raise ArgumentError(error.message, ".".join(str(part) for part in error.instance_path))

    def mirrored(self, contract: Contract) -> Mirrored:
        """The arguments that stand in headers too."""
        found = self._mirrored.get(contract.operation)
        if found is None:
            found = self._mirrored[contract.operation] = mirrored_parameters(contract.input_schema)
        return found

    def wants_provenance(self, contract: Contract) -> bool:
        """Whether it matters where the arguments of this operation came from: it can do something, or a policy reads it."""
        if not contract.is_read_only:
            return True
        found = self._read_provenance.get(contract.operation)
        if found is None:
            found = self._read_provenance[contract.operation] = self.engine.reads(contract, _PROVENANCE)
        return found

    def wants_plan(self, contract: Contract) -> bool:
        """Whether it matters for this operation how it stands to the plan of its session."""
        found = self._read_plan.get(contract.operation)
        if found is None:
            found = self._read_plan[contract.operation] = self.engine.reads(contract, _PLAN)
        return found or self.wants_provenance(contract)

    def history_wanted(self, contract: Contract) -> tuple[HistoryFact, ...]:
        """The facts about the past that policies read which may speak about this operation."""
        found = self._history.get(contract.operation)
        if found is None:
            read = self.engine.history_read(contract) if self.release.history else frozenset()
            found = tuple(fact for fact in self.release.history if fact.name in read)
            self._history[contract.operation] = found
        return found

    def history_kept(self, contract: Contract) -> frozenset[str] | None:
        """The arguments that facts about the past have to know of this operation's calls; None when none counts them."""
        if contract.operation not in self.history_counted:
            return None
        return frozenset().union(*(fact.kept for fact in self.release.history if contract.operation in fact.on))

    def facts(
        self,
        session: Session,
        contract: Contract,
        arguments: bytes,
        hashed: str,
        entities: int,
        state: LineageState,
        resource: ResourceFacts | None,
        provenance: Mapping[str, Traced] | None,
        plan: Planned | None,
        history: Mapping[str, Recalled],
        now_us: int,
    ) -> Facts:
        """The closed record of all that the decision on this call may depend on."""
        task = self.release.tasks.get(session.task)
        lineage = session.lineage
        return Facts(
            operation=contract.operation,
            arguments=arguments.decode(),
            call_hash=hashed,
            effects=contract.effects,
            classification=contract.classification,
            entities=entities,
            agent=lineage.agent,
            user=lineage.user,
            tenant=lineage.tenant,
            environment=lineage.environment,
            task=session.task,
            purpose="" if task is None else task.purpose,
            roles=session.roles,
            attributes=session.attributes,
            session_id=session.session_id,
            posture=state.posture,
            tainted=state.tainted,
            confidentiality=state.confidentiality,
            resource=resource,
            now_us=now_us,
            provenance=provenance,
            plan=plan,
            history=history,
            tainted_by=state.tainted_by,
            confidential_by=state.confidential_by,
        )

    def visible(self, session: Session, state: LineageState, now_us: int) -> tuple[str, ...]:
        """The operations worth showing to this session."""
        task = self.release.tasks.get(session.task)
        lineage = session.lineage
        return self.engine.visible(
            agent=lineage.agent,
            user=lineage.user,
            tenant=lineage.tenant,
            environment=lineage.environment,
            task=session.task,
            purpose="" if task is None else task.purpose,
            roles=session.roles,
            attributes=session.attributes,
            posture=state.posture,
            tainted=state.tainted,
            confidentiality=state.confidentiality,
            now_us=now_us,
        )

    def may_apply(self, contract: Contract) -> Obligations:
        """Every output obligation that some policy could put on this operation, as one: what a listing must allow for."""
        tags = frozenset().union(*contract.fields.values()) if contract.fields else frozenset()
        named = {contract.operation, f"tool:{contract.tool}", *(EFFECT_GROUPS[effect] for effect in contract.effects)}
        columns = {
            text
            for policy in self.release.policies
            if policy.actions is None or named & set(policy.actions)
            for text in policy.obligations
            if text.startswith("columns:")
        }
        demands = [parse(text) for text in sorted(columns)]
        kept = [demand.columns for demand in demands if isinstance(demand, Obligations)]
        return Obligations(redact=tags, columns=tuple(rule for rules in kept for rule in rules))


class Governing:
    """Keeps the release in force ready, and makes another ready when the store says that it is in force now."""

    def __init__(self, shelf: Shelf, connectors: Connectors) -> None:
        self._shelf = shelf
        self._connectors = connectors
        self._ready: dict[str, Governed] = {}
        self._epoch = -1
        self._lock = asyncio.Lock()

    async def in_force(self, digest: str, release_epoch: int) -> Governed:
        """The release with this digest, loaded once. Raises what the shelf raises: the call is then refused.

        Tools follow the release with the highest epoch seen, so that a call decided by an older one, which can no longer be
        claimed, does not bring its tools back.
        """
        found = self._ready.get(digest)
        if found is not None and release_epoch <= self._epoch:
            return found
        async with self._lock:
            if digest not in self._ready:
                release = await self._shelf.load(digest, is_old=release_epoch < self._epoch)
                # Two are enough: the one in force, and the one that calls under way may still be deciding by.
                keep = list(self._ready.items())[-1:]
                self._ready = dict([*keep, (digest, await asyncio.to_thread(Governed, release))])
            if release_epoch > self._epoch:
                self._connectors.replace(self._ready[digest].release)
                self._epoch = release_epoch
            return self._ready[digest]
