"""A request as a person sees it: what would run, and whether they may answer."""

from __future__ import annotations

from typing import Any

import msgspec

from interlock.core.approval import Approval, ApprovalState
from interlock.core.who import Person


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """A request as shown to one person. `shown` are the arguments that the rule puts first, `arguments` all as JSON text.

    `may_answer`: this person could approve or deny it now, as far as their token says.
    """

    approval_id: str
    state: ApprovalState
    rule: str
    role: str
    operation: str
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    shown: dict[str, Any]
    arguments: str
    evidence: dict[str, Any]
    say: str
    policy_ids: tuple[str, ...]
    release_digest: str
    session_id: str
    call_id: str
    created_at_us: int
    expires_at_us: int
    answered_by: str
    answered_at_us: int | None
    note: str
    may_answer: bool


def view(approval: Approval, person: Person) -> ApprovalView:
    """How `person` sees a request."""
    arguments = msgspec.json.decode(approval.arguments)
    names = approval.show or tuple(arguments)
    same = {name: getattr(approval, name) for name in _SAME}
    return ApprovalView(
        **same,
        shown={name: arguments[name] for name in names if name in arguments},
        evidence=msgspec.json.decode(approval.evidence),
        may_answer=may_answer(approval, person),
    )


def may_answer(approval: Approval, person: Person) -> bool:
    """Whether this person may say yes or no: the rule's role, the same tenant, an open request, and never the requester."""
    return (
        approval.state is ApprovalState.OPEN
        and approval.tenant == person.tenant
        and approval.user != person.user
        and approval.role in person.roles
    )


_SAME = tuple(field for field in ApprovalView.__struct_fields__ if field not in {"shown", "evidence", "may_answer"})
