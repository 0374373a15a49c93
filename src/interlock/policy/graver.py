"""The stricter of two decisions on one call, so that a graver posture never allows more than a calmer one would."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.core.decision import Allow, RequireApproval
from interlock.core.terms import Posture
from interlock.policy.obligations import meet

_ORDER: Final = tuple(Posture)


def calmer_than(posture: Posture) -> tuple[Posture, ...]:
    """The postures below one, the calmest first."""
    return _ORDER[: _ORDER.index(posture)]


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
