"""The stricter of two decisions on one call, so that taint and a graver posture never allow more than there is without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from interlock.core.decision import Allow, Facts, RequireApproval
from interlock.core.terms import Posture
from interlock.policy.obligations import meet
from interlock.policy.reads import WHOLE
from interlock.policy.slices import Rule

_ORDER: Final = tuple(Posture)
_SESSION: Final = {".": {"left": {"Var": "context"}, "attr": "session"}}
# What a forbid may demand, besides other things, and only ever fire more for it when things get graver.
_DEMANDS: Final[Mapping[str, Any]] = {
    "tainted": {".": {"left": _SESSION, "attr": "tainted"}},
    "posture": {"!=": {"left": {".": {"left": _SESSION, "attr": "posture"}}, "right": {"Value": "normal"}}},
}


def may_widen(rules: Iterable[Rule]) -> frozenset[str]:
    """Which of `posture` and `tainted` could make these policies allow more when it gets graver, read from their syntax.

    Errs on the side of more: only a forbid that just demands taint, or that the posture is not normal, is known to be harmless.
    """
    found: set[str] = set()
    for rule in rules:
        reads = rule.reads().context.get("session", frozenset())
        for name, demand in _DEMANDS.items():
            if WHOLE in reads or (name in reads and not (rule.is_forbid and _just_demands(rule.est, name, demand))):
                found.add(name)
    return frozenset(found)


def _just_demands(est: str, name: str, demand: Mapping[str, Any]) -> bool:
    conditions = msgspec.json.decode(est).get("conditions", ())
    told = sum(part == demand for item in conditions if item["kind"] == "when" for part in _parts(item["body"]))
    mentions = msgspec.json.encode(conditions).decode().count(f'"attr":"{name}"')
    return bool(told == mentions)


def _parts(body: Any) -> Iterator[Any]:
    """What must all hold."""
    pending = [body]
    while pending:
        item = pending.pop()
        if isinstance(item, dict) and item.keys() == {"&&"}:
            pending += [item["&&"]["left"], item["&&"]["right"]]
        else:
            yield item


def calmer_than(facts: Facts, widening: frozenset[str]) -> tuple[Facts, ...]:
    """The same facts under every calmer posture, and untainted, as far as either may widen."""
    postures = _ORDER[: _ORDER.index(facts.posture) + 1] if "posture" in widening else (facts.posture,)
    taints = (False, True) if facts.tainted and "tainted" in widening else (facts.tainted,)
    calmer = [
        msgspec.structs.replace(facts, posture=posture, tainted=tainted)
        for posture in postures
        for tainted in taints
        if (posture, tainted) != (facts.posture, facts.tainted)
    ]
    return tuple(calmer)


def stricter(one: Allow | RequireApproval, other: Allow | RequireApproval) -> Allow | RequireApproval:
    """Both at once: everything that either asks for or obliges to."""
    obligations = meet(one.obligations, other.obligations)
    policies = tuple(dict.fromkeys((*one.policies, *other.policies)))
    if isinstance(one, Allow) and isinstance(other, Allow):
        approvals = tuple(sorted({*one.approvals, *other.approvals}))
        return msgspec.structs.replace(one, obligations=obligations, policies=policies, approvals=approvals)
    asking = [item for item in (one, other) if isinstance(item, RequireApproval)]
    requirements = {(need.rule, need.policy_id): need for item in asking for need in item.requirements}
    reasons = {(reason.code, reason.policy_id): reason for item in asking for reason in item.reasons}
    return msgspec.structs.replace(
        asking[0],
        obligations=obligations,
        policies=policies,
        requirements=tuple(requirements.values()),
        reasons=tuple(reasons.values()),
    )
