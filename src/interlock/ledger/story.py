"""A trace as a person reads it: asked, looked at, decided by which policy, done, returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

import msgspec

from interlock.core.decision import Allow, Decision, Deny, RequireApproval
from interlock.core.terms import Origin, Question
from interlock.ledger import asks as a
from interlock.ledger import contexts as c
from interlock.ledger import events as e
from interlock.ledger import restores as r
from interlock.ledger.drafts import read_body

_ENDED: Mapping[str, str] = {
    "expired": "nobody answered it, or used it, in time",
    "more_asked": "more had to be asked for, in a new request",
    "object_changed": "the object is no longer what was shown; people are asked anew",
    "restored": "the database was restored to an earlier point; people are asked anew",
    "approver_revoked": "whoever approved it was revoked",
}
QUESTIONS: Mapping[int, str] = {
    Question.WHICH_TOOL: "which tool?",
    Question.MAY_THE_AGENT: "may this agent?",
    Question.FOR_THIS_USER: "may it for this user?",
    Question.WHICH_OPERATION: "with these arguments?",
    Question.WHICH_DATA: "with this data?",
    Question.WHO_APPROVES: "who must approve?",
    Question.WHAT_IS_FORBIDDEN: "what is forbidden now?",
}
_SHOWN_CHARS = 240


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as read back. `body` is None when it has been forgotten."""

    chain_id: str
    seq: int
    kind: str
    at_us: int
    call_id: str
    body: str | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a story. `tone` is `plain`, `good`, `bad`, `wait` or `doubt`, for colouring."""

    seq: int
    at_us: int
    call_id: str
    kind: str
    tone: str
    text: str


def tell(stored: Iterable[StoredEvent]) -> tuple[Line, ...]:
    """The story of these events, in their order, a line each. Calls are numbered as steps, so that one may point to another."""
    events = tuple(stored)
    steps: dict[str, int] = {}
    for event in events:
        if event.call_id:
            steps.setdefault(event.call_id, len(steps) + 1)
    return tuple(_line(event, steps) for event in events)


def _line(event: StoredEvent, steps: Mapping[str, int]) -> Line:
    if event.body is None:
        tone, text = "doubt", "its content was forgotten; that it happened stays on record"
    else:
        try:
            body = read_body(event.body)
            tone, text = _words(body)
            if isinstance(body, e.CallDecided) and not isinstance(body.decision, Allow):
                text += _because(body.facts, steps)
        except msgspec.MsgspecError:
            tone, text = "doubt", f"a {event.kind} event that this version cannot read"
    return Line(seq=event.seq, at_us=event.at_us, call_id=event.call_id, kind=event.kind, tone=tone, text=text)


def _words(body: e.Body) -> tuple[str, str]:
    match body:
        case e.SessionOpened():
            who = f"{body.agent} acts for {body.user} ({', '.join(body.roles) or 'no roles'})"
            handed = f", handed down by {' by '.join(parent.agent for parent in body.parents)}" if body.parents else ""
            return "plain", f"session opened: {who}, tenant {body.tenant}, {body.environment}, task {body.task}{handed}"
        case e.SessionHandedDown():
            only = "" if body.operations is None else f", for {', '.join(body.operations) or 'nothing'} alone"
            calls = f", {body.max_calls} calls at most" if body.max_calls else ""
            return "plain", f"handed down to {body.agent}: {body.session_id}{only}{calls}"
        case e.SessionRefreshed():
            return "plain", "session refreshed under a new token"
        case e.CallProposed():
            asked = _short(body.arguments) if body.arguments is not None else "arguments that could not be read"
            again = f", again on purpose after {body.repeat_of}" if body.repeat_of else ""
            word = f"asked again, for the tool had failed (retry {body.retry})" if body.retry else "asked"
            return "plain", f"{word}: {body.operation} {asked}{again}"
        case e.ResourceRead():
            known = "could not be learnt" if body.attributes is None else _short(dict(body.attributes))
            return "plain", f"looked at: {body.type} {body.id} by {body.operation}: {known}"
        case e.CallDecided():
            tone, told = _decision(body.decision)
            return tone, told if isinstance(body.decision, Allow) else told + _origins(body.facts)
        case e.CallClaimed():
            given = f", using up {', '.join(body.approvals)}" if body.approvals else ""
            counted = ", ".join(f"{item.amount} of {item.budget}" for item in body.reserved)
            taking = f", taking {counted}" if counted else ""
            return "plain", f"claimed: the right to run {body.operation} once ({body.claim_id}){given}{taking}"
        case e.CallRefused():
            tone = {"needs_approval": "wait", "in_doubt": "doubt"}.get(body.outcome, "bad")
            where = f", field {body.field}" if body.field else ""
            why = f" ({body.detail})" if body.detail else ""
            return tone, f"told the caller: {body.outcome}, {body.code}{where}, effect {body.effect}{why}"
        case a.ClaimContinued():
            return "plain", f"goes on with the answers as {body.by_call}, attempt {body.attempt} ({body.claim_id})"
        case e.CallSettled() | a.CallAsked() | a.CallAnswered() | e.CallReplayed():
            return _of_outcome(body)
        case e.ClaimOrphaned() | e.ClaimRetried() | e.DoubtAsked() | e.DoubtResolved() | e.ClaimConflict():
            return _of_doubt(body)
        case e.ApprovalRequested():
            return "wait", f"asked people: {body.approval_id}, {body.rule}; answered by {body.role}, never by the requester"
        case e.ApprovalAnswered():
            tone = {"approved": "good", "denied": "bad"}.get(body.to, "plain")
            return tone, f"{body.to} by {body.by}{f': {body.note}' if body.note else ''} ({body.approval_id})"
        case e.ApprovalEnded():
            why = _ENDED.get(body.why, body.why)
            return "plain", f"{body.to}: {why}{f', by {body.by}' if body.by else ''} ({body.approval_id})"
        case (
            e.InputReceived()
            | e.InputAsserted()
            | c.PlanSealed()
            | c.PlanRefused()
            | c.LabelsSpread()
            | c.StartedFresh()
            | e.DecisionAsked()
            | e.RecordRead()
        ):
            return _of_people(body)
        case _:
            return _of_control(body)


def _of_restore(body: r.RestoreBody) -> tuple[str, str]:
    match body:
        case r.DatabaseRestored():
            return "bad", f"the database was restored to an earlier point and is read-only until people resume it: {body.why}"
        case r.DatabaseReconciled():
            counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(body.counts.items())) or "nothing"
            whole = "the marks of all gateways" if body.complete else "marks that may not be all"
            faults = f"; faults: {'; '.join(body.faults)}" if body.faults else ""
            return "plain", f"put back from {whole}: {counts}{faults}"
        case r.DatabaseResumed():
            under = f" under release {body.release}" if body.release else ""
            return "good", f"writes go on after the restore{under}, by {body.by}: {body.reason}"
        case r.ClaimRecovered():
            return "doubt", f"put back from a mark after a restore: {body.operation} had {body.state} ({body.claim_id})"
        case r.ControlRecovered():
            stands = {"stop": "stopped", "revocation": "revoked"}.get(body.what, body.posture)
            return "bad", f"{stands} again after a restore: {body.target}, as {body.by} said: {body.reason}"
        case _:
            assert_never(body)


def _of_outcome(body: e.CallSettled | a.CallAsked | a.CallAnswered | e.CallReplayed) -> tuple[str, str]:
    match body:
        case e.CallSettled():
            return _settled(body)
        case a.CallAsked():
            asked = f"{body.operation} asked its caller for {body.method}"
            return (
                ("bad", f"{asked}; not passed on: {body.refused}")
                if body.refused
                else ("wait", f"{asked}: {_short(body.asked)}")
            )
        case a.CallAnswered():
            if body.refused:
                return "bad", f"the answer to {body.method} of {body.operation} was not passed on: {body.refused}"
            return "plain", f"the client answered {body.operation}: {_short(body.answer)}"
        case e.CallReplayed():
            return "good", f"answered from the record of {body.of_call}: not run again"
        case _:
            assert_never(body)


def _of_doubt(body: e.ClaimOrphaned | e.ClaimRetried | e.DoubtAsked | e.DoubtResolved | e.ClaimConflict) -> tuple[str, str]:
    match body:
        case e.ClaimOrphaned():
            return "doubt", f"in doubt: {body.reason}"
        case e.ClaimRetried():
            return "doubt", f"sent again with the key that the tool knows it by, attempt {body.attempt} ({body.claim_id})"
        case e.DoubtAsked():
            return "wait", f"a person has to say what became of it: {body.why} ({body.claim_id})"
        case e.DoubtResolved():
            found = "it was done" if body.state == "succeeded" else "it was not done"
            by = f" by {body.by}" if body.by else ""
            return ("good" if body.state == "succeeded" else "plain"), f"found out{by}: {found}: {body.why}"
        case e.ClaimConflict():
            late = f"attempt {body.attempt} of {body.operation} says {body.said}, and it stands as {body.stands}"
            return "bad", f"two answers about one call: {late} {body.detail} ({body.claim_id})".replace("  ", " ")
        case _:
            assert_never(body)


def _plan(body: c.PlanSealed) -> str:
    return "; ".join(entry.words for entry in body.operations)


def _of_people(
    body: e.InputReceived
    | e.InputAsserted
    | c.PlanSealed
    | c.PlanRefused
    | c.LabelsSpread
    | c.StartedFresh
    | e.DecisionAsked
    | e.RecordRead,
) -> tuple[str, str]:
    match body:
        case c.PlanSealed():
            return (
                "good",
                f"plan sealed by {body.agent}, before anything untrusted was read: {_plan(body)} {_digest(body.digest)}",
            )
        case c.LabelsSpread():
            what = "untrusted content" if body.tainted else "nothing untrusted"
            brought = f" ({body.tainted_by})" if body.tainted_by else ""
            many = f"{len(body.lineages)} lineage{'s' if len(body.lineages) > 1 else ''}"
            return "plain", f"labels reached {many}: {what}{brought}, confidentiality {body.confidentiality}"
        case c.StartedFresh():
            return "plain", f"{body.by} began afresh with {body.agent}: {len(body.sessions)} sessions ended, and their taint"
        case c.PlanRefused():
            return "bad", f"no plan sealed for {body.agent}: {body.why}{f': {body.detail}' if body.detail else ''}"
        case e.InputReceived():
            return "plain", f"{body.by} said: {_short(body.text)} ({body.input_id})"
        case e.InputAsserted():
            return "doubt", f"{body.agent} says that the user said: {_short(body.text)} ({body.input_id}, not verified)"
        case e.DecisionAsked():
            tone, words = _decision(body.decision)
            return tone, f"{body.asked_by} asked ({body.via}) and nothing was run: {words}"
        case e.RecordRead():
            return "plain", f"{body.by} read the record: {body.what} {body.target}"
        case _:
            assert_never(body)


def _of_control(body: e.ControlBody) -> tuple[str, str]:
    match body:
        case e.ControlChanged():
            return (
                "bad" if body.halted else "good",
                f"{'stopped' if body.halted else 'resumed'}: {body.scope} by {body.by}: {body.reason}",
            )
        case e.DatabaseChanged():
            return "doubt", f"another life of the database began: {body.incarnation}; what was decided before is decided again"
        case r.DatabaseRestored() | r.DatabaseReconciled() | r.DatabaseResumed() | r.ClaimRecovered() | r.ControlRecovered():
            return _of_restore(body)
        case e.ControlRefused():
            return "bad", f"refused to {body.by}: {body.operation} {body.target}: {body.reason}"
        case e.ReleaseActivated():
            with_ = f", proposed by {body.proposed_by}" if body.proposed_by else ""
            why = f": {body.reason}" if body.reason else ""
            tests = f"; {body.tests_run - body.tests_failed} of {body.tests_run} tests pass" if body.tests_run else ""
            differs = _changes(body.changes, body.widens)
            return "plain", f"release {body.name} {_digest(body.digest)} activated by {body.by}{with_}{why}{tests}{differs}"
        case e.ReleaseProposed():
            tests = f"{body.tests_run - body.tests_failed} of {body.tests_run} tests pass"
            changes = ", ".join(body.changed) or "nothing"
            differs = _changes(body.changes, body.widens)
            return (
                "wait",
                f"release {body.name} {_digest(body.digest)} proposed by {body.by}: changes {changes}; {tests}{differs}",
            )
        case e.ToolQuarantined():
            return (
                "bad",
                f"quarantined: {body.operation} in {body.environment} is listed otherwise than reviewed: {_short(body.detail)}",
            )
        case e.ToolAccepted():
            despite = f", despite {'; '.join(body.despite)}" if body.despite else ""
            told = f"accepted as it is listed now: {body.operation} in {body.environment}, by {body.by}: {body.reason}"
            return "good", f"{told}{despite}"
        case e.RiskNoted():
            told = "; ".join(f"{item.kind.value} {item.subject} ({item.score}): {item.evidence}" for item in body.signals)
            return "bad", f"evidence in {body.source}: {told}"
        case e.PostureChanged():
            of = f"{body.scope or body.lineage_id}{_with(body.below)}"
            return "plain", f"posture {body.previous} → {body.posture} for {of} by {body.by}: {body.reason}"
        case e.BreakerChanged():
            if not body.open:
                return "good", f"{body.operation} answers again: calls go through ({body.process_id})"
            others = f", {body.others_failed} of {body.others_calls} elsewhere" if body.others_calls else ""
            counted = f"{body.failed} of {body.calls} calls failed{others}"
            return (
                "bad",
                f"{body.operation} is unstable: {counted}; no call goes through for {body.opens_for_ms} ms ({body.process_id})",
            )
        case e.LoginStarted():
            acts = f" lets {body.client} act as {body.agent} on {body.task}" if body.agent else f" logged in with {body.client}"
            return "plain", f"{body.user} ({body.tenant}){acts}, by {body.how} ({body.login_id})"
        case e.LoginEnded():
            return "plain", f"login ended: {body.because} ({body.login_id})"
        case e.RevocationMade():
            where = f" of {body.tenant}" if body.tenant else ""
            return "bad", f"revoked: {body.target}{where} by {body.by}: {body.reason}"
        case _:
            assert_never(body)


def _with(below: tuple[str, ...]) -> str:
    return f" and {len(below)} that act for it" if below else ""


def _changes(counts: Mapping[str, int], widens: tuple[str, ...]) -> str:
    told = ", ".join(f"{count} {direction}" for direction, count in counts.items() if count)
    return (f"; {told}" if told else "") + "".join(f"; {line}" for line in widens)


def _decision(decision: Decision) -> tuple[str, str]:
    by = _policies(decision)
    match decision:
        case Allow():
            duties = _duties(decision)
            return "good", f"allowed by {by}{duties} [release {_digest(decision.release_digest)}]"
        case Deny():
            why = "; ".join(reason.say or reason.detail or reason.code for reason in decision.reasons)
            asked = f"question {int(decision.question)} ({QUESTIONS[decision.question]})"
            release = _digest(decision.release_digest)
            return (
                "bad",
                f"denied at {asked} by {by}: {why} [release {release}]",
            )
        case RequireApproval():
            rules = ", ".join(f"{item.rule} ({item.role})" for item in decision.requirements)
            return "wait", f"needs approval: {rules}, asked for by {by} [release {_digest(decision.release_digest)}]"
        case _:
            assert_never(decision)


def _origins(facts: object) -> str:
    """Of a call that was not let through: which of its arguments nobody stands behind, and where those were read."""
    traced = facts.get("provenance") if isinstance(facts, Mapping) else None
    if not isinstance(traced, Mapping):
        return ""
    told = []
    for name, item in traced.items():
        origin = Origin(item["origin"])
        if origin.is_doubtful or origin in {Origin.QUOTED, Origin.SELECTED}:
            told.append(f"{name} is {origin}{f', it stands in {found}' if (found := item.get('found_in')) else ''}")
    return f"; {'; '.join(told)}" if told else ""


def _because(facts: object, steps: Mapping[str, int]) -> str:
    """Of a call that was not let through: which earlier ones are behind it, what they brought, and which step each was."""
    if not isinstance(facts, Mapping):
        return ""

    def step(call_id: str) -> str:
        return f"step {steps[call_id]}, {call_id}" if call_id in steps else call_id

    told = []
    for name, recalled in facts.get("history", {}).items():
        if earlier := recalled.get("because"):
            calls = [f"{step(item['call_id'])} ({item['operation']}: {', '.join(item['brought'])})" for item in earlier]
            told.append(f"{name} is {_short(recalled['value'])}, by {' and '.join(calls)}")
    labels = {"tainted_by": "untrusted content came in", "confidential_by": "the most sensitive data came in"}
    for label, what in labels.items():
        call_id, _, operation = str(facts.get(label, "")).partition(" ")
        if call_id:
            told.append(f"{what} with {step(call_id)} ({operation})")
    return f"; before it: {'; '.join(told)}" if told else ""


def _policies(decision: Decision) -> str:
    """The policies that spoke; those that one grant was compiled to are told as that grant."""
    layers: dict[str, list[str]] = {}
    for policy in decision.policies:
        name, found, _ = policy.id.partition(f":{policy.layer.value}")
        layers.setdefault(name if found and policy.id.startswith("grant:") else policy.id, []).append(policy.layer.value)
    return ", ".join(f"{name} ({', '.join(dict.fromkeys(spoke))})" for name, spoke in layers.items()) or "no policy"


def _duties(decision: Allow) -> str:
    duties = decision.obligations
    said = [f"redact {tag}" for tag in sorted(duties.redact)]
    said += [f"keep columns {', '.join(sorted(rule.keep))}" for rule in duties.columns]
    said += [f"only rows with {rule.field} = {rule.value}" for rule in duties.rows]
    said += [f"at most {rate.limit} in {rate.window_s} s" for rate in duties.rates]
    said += ["read only"] if duties.read_only else []
    said += ["extra log"] if duties.extra_log else []
    return f", on condition: {'; '.join(said)}" if said else ""


def _settled(body: e.CallSettled) -> tuple[str, str]:
    took = f"{body.took_us / 1000:.1f} ms"
    if body.state == "in_doubt" and body.code == "input_required":
        return "wait", f"no answer yet, after {took}, and what it did before is not known: {body.detail}"
    if body.state == "in_doubt":
        return "doubt", f"in doubt after {took}: {body.operation} may have taken effect ({body.detail})"
    if body.state == "failed" and body.code == "not_done":
        return "plain", f"settled as not done: {body.detail}"
    if body.state == "failed" and body.code == "input_required":
        return "wait", f"no answer yet, after {took}: {body.detail}"
    if body.state == "failed":
        return "bad", f"failed after {took}: {body.detail or 'the tool reported an error'}"
    if not body.took_us and body.detail:
        return "good", f"settled as done: {body.detail}"
    held = f", withheld {', '.join(body.redacted)}" if body.redacted else ""
    if body.of_call:
        old = f"{body.age_ms / 1000:.1f} s old"
        return "doubt", f"the tool is unstable: answered with what {body.of_call} returned, {old}, and said so"
    if body.released is None and not body.released_digest:
        return "good", f"done in {took}; for the gate only"
    return (
        "good",
        f"done in {took}{held}; returned {_short(body.released) if body.released is not None else body.released_digest}",
    )


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _digest(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
