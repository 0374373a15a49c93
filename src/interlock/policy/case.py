"""One decision in the making: the seven questions, asked in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import cedarpy
import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import Facts, Obligations, PolicyRef, Reason, Requirement
from interlock.core.terms import LAYER_QUESTION, Effect, Layer, Posture, Question
from interlock.policy.codes import LAYER_CODE, SPEAKING_LAYERS, Code
from interlock.policy.encoding import (
    Section,
    is_a_time,
    json_text,
    moving_sections,
    now_section,
    resource_attributes,
    standing_key,
    standing_sections,
)
from interlock.policy.errors import FactsRefusedError, ObligationError, PolicyError
from interlock.policy.evaluate import Outcome, evaluate, failed
from interlock.policy.limits import first_unmet
from interlock.policy.obligations import NONE, fill, meet
from interlock.policy.prepared import Prepared, Standing
from interlock.policy.reads import WHOLE, Step
from interlock.policy.slices import Handle, LayerSlice, OperationSlices, Rule
from interlock.release.model import ApprovalRule, Limit

READ_ONLY_EFFECTS: Final = frozenset({Effect.READ})
CANARY_ID: Final = "canary:"
GUARDED_ID: Final = "posture:guarded"
GUARDED_SAY: Final = "Under the present posture a person looks at every change first."


class StoppedError(PolicyError):
    """One of the questions was answered No. Never leaves this package: `Engine.decide` turns it into a Deny."""

    def __init__(self, question: Question, *reasons: Reason) -> None:
        super().__init__(question.name)
        self.question = question
        self.reasons = reasons


class Case:
    """One decision in the making. Used once and thrown away."""

    __slots__ = (
        "_attributes",
        "_encoded",
        "_entities",
        "_holding",
        "_known",
        "_prepared",
        "_refusal",
        "asks",
        "contract",
        "facts",
        "lifted",
        "obligations",
        "policies",
        "question",
        "requirements",
        "slices",
    )

    contract: Contract
    slices: OperationSlices
    _known: Standing

    def __init__(self, prepared: Prepared, facts: Facts) -> None:
        self._prepared = prepared
        self.facts = facts
        self.question = Question.WHICH_TOOL
        self.policies: list[PolicyRef] = []
        self.requirements: list[Requirement] = []
        self.asks: list[Reason] = []
        self.lifted: list[str] = []
        self.obligations: Obligations = NONE
        self._encoded: dict[str, Section] = {}
        self._refusal: FactsRefusedError | None = None
        self._holding: frozenset[str] | set[str] | None = None
        self._entities: dict[tuple[bool, bool], cedarpy.Entities] = {}
        self._attributes: dict[str, Any] = {}

    def answer(self) -> None:
        """Ask the seven questions. Raises `StoppedError` at the first No."""
        self.prepare()
        self._holding = self._at_once()
        self._layer(Layer.IDENTITY)
        self._task()
        self._layer(Layer.DELEGATION)
        self._arguments()
        guard_fired = self._capability()
        self._layer(Layer.DATA)
        self._guard(guard_fired)
        self._posture()

    def identify(self) -> None:
        """Ask the first two: which tool, and whether this agent may use it at all. Raises `StoppedError` at a No."""
        self.prepare()
        self._layer(Layer.IDENTITY)

    def prepare(self) -> None:
        """Question 1: which operation is this, and may anything be decided about it at all."""
        facts, prepared = self.facts, self._prepared
        contract = prepared.release.contracts.get(facts.operation)
        if contract is None:
            raise StoppedError(Question.WHICH_TOOL, Reason(code=Code.UNKNOWN_OPERATION))
        if contract.internal:
            raise StoppedError(Question.WHICH_TOOL, Reason(code=Code.OPERATION_INTERNAL))
        if not contract.reviewed_by:
            raise StoppedError(Question.WHICH_TOOL, Reason(code=Code.OPERATION_NOT_REVIEWED))
        if not contract.effects or not contract.effects <= facts.effects:
            raise StoppedError(Question.WHICH_TOOL, invalid_facts("the effects are less than the contract's"))
        if facts.resource is not None and (contract.resource is None or facts.resource.type != contract.resource.type):
            raise StoppedError(Question.WHICH_TOOL, invalid_facts("the resource is not of the contract's type"))
        self.contract = contract
        if facts.canaries:
            # INVARIANT: no policy and no person lifts this. Nobody has a reason to send a planted secret anywhere.
            told = (Reason(code=Code.CANARY, policy_id=f"{CANARY_ID}{name}") for name in facts.canaries)
            raise StoppedError(Question.WHAT_IS_FORBIDDEN, *told)
        if facts.posture is Posture.HALTED:
            raise StoppedError(Question.WHAT_IS_FORBIDDEN, Reason(code=Code.HALTED))
        if facts.posture is Posture.READ_ONLY and facts.effects != READ_ONLY_EFFECTS:
            raise StoppedError(Question.WHAT_IS_FORBIDDEN, Reason(code=Code.READ_ONLY))
        self.slices = prepared.slices.of(contract, facts.effects, facts.agent)
        try:
            key = standing_key(facts)
            known = prepared.standing.get(key)
            if known is None:
                known = Standing(standing_sections(facts, prepared.release.user_attributes))
                prepared.standing.put(key, known)
            self._known = known
            self._encoded = moving_sections(facts, contract)
            self._attributes = resource_attributes(contract, facts.resource)
        except FactsRefusedError as error:
            raise StoppedError(Question.WHICH_TOOL, invalid_facts(str(error), error.field)) from error
        try:
            self._encoded["args"] = prepared.arguments[contract.operation].encode(facts.arguments)
        except FactsRefusedError as error:
            self._refusal = error  # told only after the agent and the user have been found entitled to an answer

    def _task(self) -> None:
        task = self._prepared.release.tasks.get(self.facts.task)
        if task is None or not self.facts.purpose or task.purpose != self.facts.purpose:
            raise StoppedError(Question.FOR_THIS_USER, Reason(code=Code.TASK_UNKNOWN))

    def _arguments(self) -> None:
        if self._refusal is not None:
            reason = Reason(code=Code.INVALID_ARGUMENTS, say=str(self._refusal), field=self._refusal.field)
            raise StoppedError(Question.WHICH_OPERATION, reason)

    def _layer(self, layer: Layer) -> None:
        """Ask one layer on its own."""
        self.question = LAYER_QUESTION[layer]
        piece = self.slices.layers[layer]
        self._resource_known(piece)
        if piece.full is None:
            self._no(layer)
            return
        outcome = self.ask(piece.full)
        self._no_errors(outcome)
        if outcome.allowed:
            self._fired(outcome.fired)
            return
        self._forbidden(layer, outcome.fired)
        self._permitted(piece)
        self._lift(outcome.fired)

    def _capability(self) -> tuple[str, ...] | None:
        """Ask capability, and guard in the same breath.

        Returns the guard's forbids that fired; None when guard has to be asked apart.
        """
        layer = Layer.CAPABILITY
        self.question = LAYER_QUESTION[layer]
        piece, both = self.slices.layers[layer], self.slices.capability_and_guard
        self._resource_known(piece)
        if both is None or piece.permits is None:
            self._layer(layer)
            return None
        outcome = self.ask(both)
        if outcome.errors:
            self._layer(layer)
            return None
        if outcome.allowed:
            self._fired(outcome.fired)
            return ()
        own = tuple(name for name in outcome.fired if self._rule(name).policy.layer is layer)
        self._forbidden(layer, own, alone=not outcome.fired)
        self._permitted(piece)
        self._lift(own)
        return tuple(name for name in outcome.fired if name not in own)

    def _guard(self, fired: tuple[str, ...] | None) -> None:
        layer = Layer.GUARD
        self.question = LAYER_QUESTION[layer]
        piece = self.slices.layers[layer]
        self._resource_known(piece)
        if fired is None:
            if piece.full is None:
                return
            outcome = self.ask(piece.full)
            self._no_errors(outcome)
            if outcome.allowed:
                return
            fired = outcome.fired
            self._forbidden(layer, fired)
        elif fired:
            self._forbidden(layer, fired)
        self._lift(fired)

    def _permitted(self, piece: LayerSlice) -> None:
        """With its forbids lifted, the layer must still hold a permit."""
        if piece.permits is None:
            self._no(piece.layer)
            return
        outcome = self.ask(piece.permits)
        self._no_errors(outcome)
        if not outcome.allowed:
            self._no(piece.layer)
        self._fired(outcome.fired)

    def _forbidden(self, layer: Layer, fired: Sequence[str], *, alone: bool = True) -> None:
        """Stop at a forbid that nothing lifts, or when nothing fired at all: then there is no permit."""
        if not fired and alone:
            self._no(layer)
        final = [rule for rule in map(self._rule, fired) if not rule.is_liftable]
        if final:
            self._fired(rule.policy.id for rule in final)
            raise StoppedError(self.question, *(self._reason(LAYER_CODE[layer], rule) for rule in final))

    def _lift(self, fired: Sequence[str]) -> None:
        """Take on what the liftable forbids that fired ask for."""
        self._fired(fired)
        for rule in map(self._rule, fired):
            self._oblige(rule)
            if rule.policy.approval:
                self._require(rule)
        if self.obligations.read_only and self.facts.effects != READ_ONLY_EFFECTS:
            demanding = [rule for rule in map(self._rule, fired) if "read-only" in rule.policy.obligations]
            raise StoppedError(self.question, *(self._reason(Code.READ_ONLY, rule) for rule in demanding))

    def _oblige(self, rule: Rule) -> None:
        if rule.demands is None:
            raise StoppedError(
                self.question, Reason(code=Code.UNKNOWN_OBLIGATION, detail=rule.unknown, policy_id=rule.policy.id)
            )
        try:
            for demand in rule.demands:
                self.obligations = meet(self.obligations, fill(demand, self.facts))
        except ObligationError as error:
            raise StoppedError(
                self.question, Reason(code=Code.UNKNOWN_OBLIGATION, detail=str(error), policy_id=rule.policy.id)
            ) from error

    def _require(self, rule: Rule) -> None:
        approval = self._prepared.release.approvals.get(rule.policy.approval)
        if approval is None:
            detail = f"there is no approval rule {rule.policy.approval!r}"
            raise StoppedError(self.question, Reason(code=Code.UNKNOWN_APPROVAL_RULE, detail=detail, policy_id=rule.policy.id))
        self._put_to_people(approval, self._reason(Code.APPROVAL_REQUIRED, rule))

    def _posture(self) -> None:
        """Under a guarded posture whatever is more than reading is put to people, and refused where nobody is named for it."""
        if self.facts.posture is not Posture.GUARDED or self.facts.effects == READ_ONLY_EFFECTS:
            return
        self.question = Question.WHAT_IS_FORBIDDEN
        approval = self._prepared.release.approvals.get(self._prepared.release.guarded)
        if approval is None:
            raise StoppedError(self.question, Reason(code=Code.READ_ONLY, detail="guarded, and release.yaml names no rule"))
        self._put_to_people(approval, Reason(code=Code.APPROVAL_REQUIRED, policy_id=GUARDED_ID, say=GUARDED_SAY))

    def _put_to_people(self, approval: ApprovalRule, reason: Reason) -> None:
        for lift in self.facts.approvals:
            if lift.rule == approval.name and reason.policy_id in lift.policy_ids:
                self.lifted.append(lift.approval_id)
                return
        self.requirements.append(
            Requirement(
                rule=approval.name,
                policy_id=reason.policy_id,
                role=approval.role,
                holds_s=approval.holds_s,
                show=approval.show,
            )
        )
        self.asks.append(reason)

    def _resource_known(self, piece: LayerSlice) -> None:
        """A forbid must not stay silent because what it tests about the resource could not be learnt.

        INVARIANT: `resource has x` is false for an unknown attribute, so a forbid that needs one is never evaluated without it.
        """
        needed = piece.forbid_resource_reads
        if not needed or self.contract.resource is None:
            return
        missing = needed - {WHOLE} - self._attributes.keys()
        if self.facts.resource is None or not self.facts.resource.id or missing:
            detail = f"unknown about the resource: {', '.join(sorted(missing)) or 'everything'}"
            raise StoppedError(LAYER_QUESTION[piece.layer], Reason(code=Code.RESOURCE_UNKNOWN, detail=detail))

    def ask(self, handle: Handle) -> Outcome:
        """What a policy set says: known already, where all policies of the operation were asked at once."""
        return self._evaluated(handle) if self._holding is None else _said(handle, self._holding)

    def _at_once(self) -> frozenset[str] | set[str] | None:
        """The names of all policies of the operation that hold; None when each layer has to be asked by itself.

        INVARIANT: what an operation's policies come to under a standing is a function of which standing conditions hold.
        """
        if self._refusal is not None or not is_a_time(self.facts.now_us):
            return None  # only who reads what was refused is to say so
        try:
            apart = self._prepared.apart(self.slices)
            if apart is None:
                return None
            outcomes = [self._evaluated(handle) for handle in apart.standing]
            if not all(map(_is_plain, apart.standing, outcomes)):
                return None
            pinned = self._prepared.pins.of(apart, tuple(outcome.fired for outcome in outcomes))
            if not pinned.parts:
                return pinned.certain
            holding = set(pinned.certain)
            for part in pinned.parts:
                outcome = self._evaluated(part.conditions)
                if not _is_plain(part.conditions, outcome):
                    return None
                for name in outcome.fired:
                    holding.update(part.policies[name])
        except (PolicyError, ValueError):
            return None
        return holding

    def _evaluated(self, handle: Handle) -> Outcome:
        """Evaluate a policy set, given only the part of the facts that it reads; remembered by exactly these bytes.

        INVARIANT: the answer is a function of what is passed to Cedar, and all that is passed is in the key.
        """
        facts = self.facts
        try:
            if handle.needs.is_volatile:
                return self.evaluate(handle)
            context = self.context(handle)
            if handle.as_user:
                key = (handle.number, self.slices, facts.user if handle.needs.names_users else "", facts.roles, context)
            else:
                key = (handle.number, self.slices, facts.agent, (), context)
            outcome = self._prepared.memo.get(key)
            if outcome is None:
                outcome = evaluate(handle.policies, self._request(handle, context), self.entities(handle))
                if not outcome.errors:  # which name the user, whom the key may leave out
                    self._prepared.memo.put(key, outcome)
        except (PolicyError, ValueError) as error:
            return failed(error)
        return outcome

    def evaluate(self, handle: Handle) -> Outcome:
        """Evaluate a policy set, and remember nothing."""
        return evaluate(handle.policies, self._request(handle, self.context(handle)), self.entities(handle))

    def everything(self) -> str:
        """The JSON text of the whole context, for people; refused arguments and a time that is none are left out."""
        now = {"now": now_section(self.facts.now_us)} if is_a_time(self.facts.now_us) else {}
        return json_text({**self._known.sections, **self._encoded, **now})

    def context(self, handle: Handle) -> str:
        """The JSON text of the part of the context that the handle's policies read."""
        standing = self._standing_text(handle)
        if not handle.needs.moving:
            return standing
        moving = json_text(self._moving(handle))
        return moving if not handle.needs.standing else f"{standing[:-1]},{moving[1:]}"

    def _standing_text(self, handle: Handle) -> str:
        text = self._known.texts.get(handle.needs.standing)
        if text is None:
            text = self._known.texts[handle.needs.standing] = json_text(_shown(self._known.sections, handle.needs.standing))
        return text

    def _moving(self, handle: Handle) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for step in handle.needs.moving:
            key = step[0]
            if key == "now":
                shown[key] = now_section(self.facts.now_us)
                continue
            if key == "args" and self._refusal is not None:
                raise self._refusal
            shown |= _shown(self._encoded, (step,))
        return shown

    def _request(self, handle: Handle, context: str) -> dict[str, Any]:
        facts = self.facts
        return {
            "principal": {"type": "User", "id": facts.user} if handle.as_user else {"type": "Agent", "id": facts.agent},
            "action": {"type": "Action", "id": self.slices.action_id},
            "resource": {"type": self.slices.resource_type, "id": self._resource_id() if handle.needs.uses_resource else ""},
            "context": context,
        }

    def _resource_id(self) -> str:
        if self.contract.resource is None:
            return self.contract.tool
        return "" if self.facts.resource is None else self.facts.resource.id

    def entities(self, handle: Handle) -> cedarpy.Entities:
        """The action with its groups, and where they matter the user with their roles and the resource."""
        resource = self.facts.resource if handle.needs.uses_resource else None
        kind = (handle.as_user, resource is not None and resource.attributes is not None)
        known = self._entities.get(kind)
        if known is not None:
            return known
        # Who a user is does not change from call to call; a resource does.
        key = (self.slices, self.facts.user, self.facts.roles) if kind == (True, False) else None
        known = None if key is None else self._prepared.people.get(key)
        if known is not None:
            return known
        added: list[dict[str, Any]] = []
        if kind[0]:
            roles = [{"type": "Role", "id": role} for role in self.facts.roles]
            added.append({"uid": {"type": "User", "id": self.facts.user}, "attrs": {}, "parents": roles})
        if kind[1] and resource is not None:
            added.append({"uid": {"type": resource.type, "id": resource.id}, "attrs": self._attributes, "parents": []})
        entities = self.slices.entities.with_added_json_str(json_text(added)) if added else self.slices.entities
        self._entities[kind] = entities
        if key is not None:
            self._prepared.people.put(key, entities)
        return entities

    def _rule(self, name: str) -> Rule:
        return self._prepared.slices.rules[name]

    def _fired(self, names: Iterable[str]) -> None:
        self.policies.extend(self._rule(name).ref for name in names)

    def _reason(self, code: Code, rule: Rule) -> Reason:
        speaks = rule.policy.layer in SPEAKING_LAYERS
        return Reason(code=code, say=rule.policy.say if speaks else "", policy_id=rule.policy.id)

    def _no(self, layer: Layer) -> None:
        reason = Reason(code=LAYER_CODE[layer])
        if layer is Layer.CAPABILITY:
            unmet = first_unmet(self._limits(), self.facts.arguments)
            if unmet is not None:
                say = f"This tool may be used, but not with these arguments: {unmet.say}"
                reason = msgspec.structs.replace(reason, say=say, field=unmet.argument)
        raise StoppedError(self.question, reason)

    def _limits(self) -> list[tuple[Limit, ...]]:
        """The limits of the grants by which this user may let this agent do it: what they may know when it is not enough."""
        rules, said = self._prepared.slices.rules, {ref.id for ref in self.policies if ref.layer is Layer.DELEGATION}
        grants = (name for name in sorted(said) if name.startswith("grant:"))
        own = (rules.get(f"{name.removesuffix(Layer.DELEGATION.value)}{Layer.CAPABILITY.value}") for name in grants)
        return [rule.policy.limits for rule in own if rule is not None]

    def _no_errors(self, outcome: Outcome) -> None:
        if outcome.errors:
            raise StoppedError(self.question, Reason(code=Code.EVALUATION_ERROR, detail="; ".join(outcome.errors)))


def _is_plain(conditions: Handle, outcome: Outcome) -> bool:
    """Whether permits were answered as they can be: without an error, and allowed by those that hold, all of them asked.

    INVARIANT: a condition that is not named here counts as false. Else the policies are asked as they were written, by layers.
    """
    return not outcome.errors and outcome.allowed is bool(outcome.fired) and conditions.permits.issuperset(outcome.fired)


def _said(handle: Handle, holding: frozenset[str] | set[str]) -> Outcome:
    """What Cedar says of a policy set of which these hold, and none errs: the forbids, or else the permits."""
    forbids = handle.forbids & holding
    if forbids:
        return Outcome(allowed=False, fired=tuple(sorted(forbids)))
    permits = handle.permits & holding
    return Outcome(allowed=bool(permits) or handle.guard_permit, fired=tuple(sorted(permits)))


def _shown(sections: Mapping[str, Section], plan: Iterable[Step]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, below in plan:
        section = sections[key]
        shown[key] = section if below is None else {name: section[name] for name in below if name in section}
    return shown


def invalid_facts(detail: str, field: str = "") -> Reason:
    """The reason when what the gateway gathered cannot be relied on."""
    return Reason(code=Code.INVALID_FACTS, detail=detail, field=field)
