"""What stopped a call, read from what the caller was told and from the record of the decision."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from interlock.gateway.messages import CallResult, Effected, Refusal, Returned
from interlock.policy.slices import Slices
from interlock.redteam.model import Attempt, Outcome, StoppedBy
from interlock.store.traces import EventRow

MAX_SHOWN_CHARS: Final = 300
_BY_CODE: Final = {
    "unknown_operation": StoppedBy.CONTRACT,
    "invalid_arguments": StoppedBy.CONTRACT,
    "agent_not_permitted": StoppedBy.IDENTITY,
    "user_not_permitted": StoppedBy.GRANT,
    "arguments_not_permitted": StoppedBy.GRANT,
    "data_not_permitted": StoppedBy.GRANT,
    "resource_unknown": StoppedBy.GRANT,
    "session_ended": StoppedBy.IDENTITY,
    "read_only": StoppedBy.POSTURE,
    "halted": StoppedBy.KILL,
    "quarantined": StoppedBy.PIN,
    "rate_limited": StoppedBy.BUDGET,
    "over_budget": StoppedBy.BUDGET,
    "over_budget_asked": StoppedBy.BUDGET,
    "approval_denied": StoppedBy.APPROVAL,
    "approvals_waiting": StoppedBy.APPROVAL,
    "idempotency_key_reused": StoppedBy.IDEMPOTENCY,
    "canary": StoppedBy.POLICY,
}
_ASKED: Final = frozenset({"needs_approval", "over_budget_asked"})
# Whatever these say, nothing was decided: the kit learnt nothing.
_BROKEN: Final = frozenset(
    {"control_plane_unavailable", "overloaded", "tool_unavailable", "tool_busy", "tool_failed", "contended", "still_running"}
)


class Verdicts:
    """Judges attempts under one release."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def of(self, name: str, operation: str, arguments: bytes, result: CallResult, events: tuple[EventRow, ...]) -> Attempt:
        """The attempt that this call was."""
        shown = arguments.decode()[:MAX_SHOWN_CHARS]
        if isinstance(result, Returned):
            return Attempt(
                name=name, outcome=Outcome.OPEN, operation=operation, arguments=shown, call_id=result.call_id, code="executed"
            )
        outcome = self._outcome(result)
        rules = _rules(events)
        return Attempt(
            name=name,
            outcome=outcome,
            operation=operation,
            arguments=shown,
            by=self._by(result.code, rules) if outcome in {Outcome.STOPPED, Outcome.HUMAN} else None,
            code=result.code,
            rules=rules or _named(result),
            call_id=result.call_id,
            detail=_detail(events),
        )

    def _outcome(self, result: Refusal) -> Outcome:
        if result.effect is not Effected.NONE:
            return Outcome.OPEN
        if result.code in _ASKED:
            return Outcome.HUMAN
        return Outcome.BROKEN if result.code in _BROKEN else Outcome.STOPPED

    def _by(self, code: str, rules: tuple[str, ...]) -> StoppedBy:
        known = _BY_CODE.get(code)
        if known is not None:
            return known
        found = [self._kind(rule) for rule in rules]
        for kind in (StoppedBy.CHAIN, StoppedBy.PROVENANCE, StoppedBy.PLAN, StoppedBy.POSTURE):
            if kind in found:
                return kind
        return StoppedBy.APPROVAL if code in _ASKED else StoppedBy.POLICY

    def _kind(self, rule: str) -> StoppedBy:
        """What a policy goes by, read from what it reads."""
        found = self._slices.rules.get(rule)
        if found is None:
            return StoppedBy.POSTURE if rule.startswith("posture:") else StoppedBy.POLICY
        reads = found.reads().context
        session = reads.get("session", frozenset())
        if "history" in reads or "confidentiality" in session:
            return StoppedBy.CHAIN
        if "plan" in reads or "plan" in session:
            return StoppedBy.PLAN
        if {"origins", "provenance"} & reads.keys() or "tainted" in session:
            return StoppedBy.PROVENANCE
        return StoppedBy.POSTURE if "posture" in session else StoppedBy.POLICY


def _rules(events: tuple[EventRow, ...]) -> tuple[str, ...]:
    """The ids of the policies for which the last decision was not a plain yes."""
    for event in reversed(events):
        if event.kind == "call.decided" and event.body is not None:
            body: dict[str, Any] = msgspec.json.decode(event.body)
            return tuple(
                dict.fromkeys(reason["policy_id"] for reason in body["decision"].get("reasons", ()) if reason["policy_id"])
            )
    return ()


def _named(result: Refusal) -> tuple[str, ...]:
    """The budget or control that the caller was told of."""
    budget = result.details.get("budget")
    if isinstance(budget, dict):
        return (str(budget.get("name", "")),)
    scope = result.details.get("scope")
    return (str(scope),) if scope else ()


def _detail(events: tuple[EventRow, ...]) -> str:
    for event in reversed(events):
        if event.kind == "call.refused" and event.body is not None:
            return str(msgspec.json.decode(event.body).get("detail", ""))[:MAX_SHOWN_CHARS]
    return ""
