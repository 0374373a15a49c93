"""The stricter of two decisions on one call, so that taint and a graver posture never allow more than there is without."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.core.decision import Allow, Facts, RequireApproval
from interlock.core.terms import Posture
from interlock.policy.obligations import meet
from interlock.policy.reads import WHOLE

_ORDER: Final = tuple(Posture)
_READS_POSTURE: Final = frozenset({"posture", WHOLE})
_READS_TAINT: Final = frozenset({"tainted", WHOLE})


def calmer_than(facts: Facts, reads: frozenset[str]) -> tuple[Facts, ...]:
    """The same facts under every calmer posture, and untainted, as far as policies read these (`reads` of the session)."""
    postures = _ORDER[: _ORDER.index(facts.posture) + 1] if _READS_POSTURE & reads else (facts.posture,)
    taints = (False, True) if facts.tainted and _READS_TAINT & reads else (facts.tainted,)
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
