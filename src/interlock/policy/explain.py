"""Why a call is decided as it is: every layer, every policy that could have a say, and what each of them said."""

from __future__ import annotations

import msgspec

from interlock.core.decision import Allow, Decision, Deny, Facts, Obligations, RequireApproval
from interlock.core.terms import LAYER_QUESTION, Layer, Question
from interlock.policy.case import Case, StoppedError
from interlock.policy.errors import PolicyError
from interlock.policy.evaluate import Outcome, failed
from interlock.policy.prepared import Prepared
from interlock.policy.slices import Handle, LayerSlice, Rule


class PolicyVoice(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy said. `said` is `permit`, `forbid`, `ask` or `oblige` when it fired, else `silent` or `error`."""

    id: str
    effect: str
    said: str
    owner: str
    place: str
    say: str = ""
    approval: str = ""
    obligations: tuple[str, ...] = ()
    error: str = ""


class LayerVoice(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer said, whether or not the decision got as far: `yes`, `yes, if`, `no` or `error`."""

    layer: Layer
    question: Question
    answer: str
    policies: tuple[PolicyVoice, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and everything behind it. `context` is the JSON text that policies are shown, when there was one."""

    operation: str
    decision: Decision
    layers: tuple[LayerVoice, ...]
    context: str = ""

    def json(self) -> str:
        """The explanation as JSON text."""
        return msgspec.json.encode(self).decode()

    def text(self) -> str:
        """The explanation for a person, one line for each policy, the outcome first."""
        lines = [f"{self.operation}: {_headline(self.decision)}", *_notes(self.decision)]
        for voice in self.layers:
            lines.append(f"  {voice.question.value} {voice.layer.value}: {voice.answer}")
            if not voice.policies:
                lines.append("      no policy speaks about this operation")
            lines += [_line(policy) for policy in voice.policies]
        lines.append(f"  release {self.decision.release_digest}, {self.decision.engine}")
        return "\n".join(lines)


def explain(prepared: Prepared, facts: Facts, decision: Decision) -> Explanation:
    """Ask every policy of every layer by itself, also of layers that the decision never reached."""
    case = Case(prepared, facts)
    try:
        case.prepare()
    except (StoppedError, PolicyError):
        return Explanation(operation=facts.operation, decision=decision, layers=())
    return Explanation(
        operation=facts.operation,
        decision=decision,
        layers=tuple(_layer(case, case.slices.layers[layer]) for layer in Layer),
        context=case.everything(),
    )


def _layer(case: Case, piece: LayerSlice) -> LayerVoice:
    voices = tuple(_voice(case, rule) for rule in piece.rules)
    said = {voice.said for voice in voices}
    permitted = piece.layer is Layer.GUARD or "permit" in said
    if "error" in said:
        answer = "error"
    elif "forbid" in said or not permitted:
        answer = "no"
    else:
        answer = "yes, if" if said & {"ask", "oblige"} else "yes"
    return LayerVoice(layer=piece.layer, question=LAYER_QUESTION[piece.layer], answer=answer, policies=voices)


def _voice(case: Case, rule: Rule) -> PolicyVoice:
    outcome = _alone(case, rule)
    fired = outcome.allowed is not rule.is_forbid
    if outcome.errors:
        said = "error"
    elif not fired:
        said = "silent"
    elif not rule.is_forbid:
        said = "permit"
    elif rule.policy.approval:
        said = "ask"
    else:
        said = "oblige" if rule.policy.obligations else "forbid"
    policy = rule.policy
    return PolicyVoice(
        id=policy.id,
        effect=policy.effect,
        said=said,
        owner=policy.owner,
        place=f"{policy.file}:{policy.line}" if policy.file else "",
        say=policy.say,
        approval=policy.approval,
        obligations=policy.obligations,
        error="; ".join(outcome.errors),
    )


def _alone(case: Case, rule: Rule) -> Outcome:
    """What the policy says with nobody beside it; a forbid gets a permit to stand against."""
    try:
        return case.evaluate(Handle.of(0, (rule,), guard_permit=rule.is_forbid))
    except (PolicyError, ValueError) as error:
        return failed(error)


def _headline(decision: Decision) -> str:
    match decision:
        case Allow():
            return "allowed"
        case RequireApproval(requirements=requirements):
            return "waits for " + ", ".join(need.rule for need in requirements)
        case Deny(question=question, reasons=reasons):
            return f"denied at question {question.value}: " + ", ".join(reason.code for reason in reasons)


def _notes(decision: Decision) -> list[str]:
    if isinstance(decision, Deny):
        return [f"  {note}" for reason in decision.reasons for note in (reason.say, reason.detail) if note]
    demanded = decision.obligations
    if demanded == Obligations():
        return []
    return [f"  obligations: {msgspec.json.encode(demanded, order='sorted').decode()}"]


def _line(voice: PolicyVoice) -> str:
    extra = [voice.place, f"owner {voice.owner}" if voice.owner else "", voice.error]
    if voice.said in {"ask", "oblige"}:
        extra += [f"approval {voice.approval}" if voice.approval else "", *voice.obligations]
    note = ", ".join(part for part in extra if part)
    return f"      {voice.said:<7} {voice.id}" + (f"  ({note})" if note else "")


__all__ = ["Explanation", "LayerVoice", "PolicyVoice", "explain"]
