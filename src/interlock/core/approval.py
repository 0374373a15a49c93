"""A question put to people before a call may run: what exactly would run, who may answer, and what became of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ApprovalState(StrEnum):
    """What became of a request.

    `outdated`: the release it was asked under is no longer in force, or the object is not what was shown; it lifts nothing.
    """

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    OUTDATED = "outdated"
    USED = "used"


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate asks people: bound to lineage, exact call, the forbids it would lift, and the release.

    `arguments` are the canonical bytes that would be sent; `show` names those that matter most; `evidence` is JSON text of
    what else the decision knew, `evidence_digest` that of the object among it, which an approval is bound to.
    """

    approval_id: str
    session_id: str
    lineage_id: str
    call_id: str
    operation: str
    call_hash: str
    release_digest: str
    rule: str
    role: str
    policy_ids: tuple[str, ...]
    arguments: str
    show: tuple[str, ...]
    evidence: str
    say: str
    holds_s: int
    evidence_digest: str = ""


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """A request that people can answer: a new one, or the one that was open already."""

    approval_id: str
    rule: str
    role: str
    show: tuple[str, ...]
    expires_at_us: int


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it stands. Times are microseconds since the epoch; `expires_at_us` ends the asking, then the approval."""

    approval_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    lineage_id: str
    session_id: str
    call_id: str
    task: str
    operation: str
    call_hash: str
    release_digest: str
    rule: str
    role: str
    policy_ids: tuple[str, ...]
    arguments: str
    show: tuple[str, ...]
    evidence: str
    say: str
    state: ApprovalState
    created_at_us: int
    expires_at_us: int
    answered_by: str = ""
    answered_at_us: int | None = None
    note: str = ""
    used_by: str = ""
    evidence_digest: str = ""
