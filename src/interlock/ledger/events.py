"""The bodies of events. Each has a stable kind; fields are only ever appended, always with a default.

Fields typed `object` hold JSON that is written from exact bytes (`msgspec.Raw`).
An event body is committed to by HMAC and kept apart from the chain, so that it can be forgotten without breaking it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from interlock.core.budget import Reserved
from interlock.core.claim import Epochs, Labels
from interlock.core.decision import Decision
from interlock.core.risk import Signal
from interlock.core.who import AttributeValue, Parent
from interlock.ledger.asks import AskBody
from interlock.ledger.contexts import ContextBody
from interlock.ledger.restores import RestoreBody


class SessionOpened(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="session.opened"):
    """An agent and a user were bound into a session."""

    session_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    expires_at_us: int
    release_digest: str = ""
    parents: tuple[Parent, ...] = ()
    run: str = ""
    operations: tuple[str, ...] | None = None
    max_calls: int = 0


class SessionHandedDown(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="session.handed_down"):
    """The session's agent handed work on to another agent, in a session below this one."""

    session_id: str
    agent: str
    operations: tuple[str, ...] | None = None
    max_calls: int = 0


class SessionRefreshed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="session.refreshed"):
    """A session went on under a new token."""

    session_id: str
    expires_at_us: int


class CallProposed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.proposed"):
    """The model asked for a call. `arguments` is canonical JSON; when they could not be read, only their digest is kept.

    `retry` counts how often the gateway itself has asked again, after the tool failed. `answers` answer what the tool asked.
    """

    operation: str
    arguments: object
    arguments_digest: str
    call_hash: str
    key_source: str = ""
    repeat_of: str = ""
    retry: int = 0
    answers: object = None


class ResourceRead(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="resource.read"):
    """The gateway learnt the attributes of the object a call is about, by `operation`; None when it could not."""

    operation: str
    type: str
    id: str
    attributes: Mapping[str, AttributeValue] | None
    for_call: str = ""


class CallDecided(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.decided"):
    """Policy's answer, with the facts it was asked about, so that it can be asked again."""

    decision: Decision
    facts: object
    epochs: Epochs
    facts_version: int


class CallClaimed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.claimed"):
    """The right to execute was taken, once, with what it reserves of which budgets."""

    claim_id: str
    operation: str
    worst_labels: Labels
    approvals: tuple[str, ...] = ()
    reserved: tuple[Reserved, ...] = ()


class CallRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.refused"):
    """What the caller was told instead of a result. `detail` is for operators."""

    operation: str
    outcome: str
    code: str
    effect: str
    field: str = ""
    question: int = 0
    detail: str = ""


class CallSettled(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.settled"):
    """What became of a claim, and what was released to the caller. `released` is kept up to a limit, its digest always.

    With `of_call` the tool was not called: what that call had released `age_ms` ago was released again.
    """

    claim_id: str
    operation: str
    attempt: int
    state: str
    took_us: int
    code: str = ""
    detail: str = ""
    labels: Labels = Labels()
    output_digest: str = ""
    redacted: tuple[str, ...] = ()
    released_digest: str = ""
    released: object = None
    of_call: str = ""
    age_ms: int = 0


class CallReplayed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.replayed"):
    """A repeated call was answered with the first outcome; nothing was executed."""

    operation: str
    of_call: str
    claim_id: str
    claimed_at_us: int
    released_digest: str = ""


class ControlChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="control.changed"):
    """A person halted or resumed a scope."""

    scope: str
    halted: bool
    reason: str
    by: str
    roles: tuple[str, ...] = ()


class ReleaseActivated(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="release.activated"):
    """Decisions are made by this release from here on.

    `changes` counts its differences to `previous` by direction; `widens` says which open more, or may, a line each.
    """

    name: str
    digest: str
    previous: str
    by: str
    roles: tuple[str, ...] = ()
    reason: str = ""
    proposed_by: str = ""
    tests_run: int = 0
    tests_failed: int = 0
    changes: Mapping[str, int] = {}
    widens: tuple[str, ...] = ()


class ControlRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="control.refused"):
    """Someone asked for a control-plane operation that they may not do."""

    operation: str
    target: str
    by: str
    reason: str
    tenant: str = ""


class ClaimOrphaned(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="claim.orphaned"):
    """The process that held a claim is gone; the call is in doubt until someone finds out."""

    reason: str


class ClaimRetried(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="claim.retried"):
    """A call in doubt was taken up again: sent with the key that the tool honours, as another attempt."""

    claim_id: str
    operation: str
    attempt: int


class DoubtAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="doubt.asked"):
    """A call in doubt was left to people, for machinery cannot tell what became of it."""

    claim_id: str
    operation: str
    why: str


class DoubtResolved(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="doubt.resolved"):
    """What became of a call in doubt was found out; `how` is `reading`, `person` or `reads` (it only reads).

    `state` is `succeeded` or `failed`; `by` and `roles` are the person's.
    """

    claim_id: str
    operation: str
    state: str
    how: str
    why: str
    by: str = ""
    roles: tuple[str, ...] = ()


class ClaimConflict(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="claim.conflict"):
    """An incident: after a claim was settled, a process said otherwise. `stands` is what stands and goes on standing."""

    claim_id: str
    operation: str
    attempt: int
    stands: str
    said: str
    detail: str = ""


class ApprovalRequested(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="approval.requested"):
    """People were asked whether this very call may run."""

    approval_id: str
    operation: str
    call_hash: str
    rule: str
    role: str
    policy_ids: tuple[str, ...]
    release_digest: str
    holds_s: int
    evidence_digest: str = ""


class ApprovalAnswered(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="approval.answered"):
    """A person approved or denied; `to` is the state it went to, `withdrawn` when it was taken back."""

    approval_id: str
    to: str
    by: str
    roles: tuple[str, ...]
    note: str = ""


class ApprovalEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="approval.ended"):
    """A request, or an approval that nobody had used, ended without an answer. Written by the database itself.

    `why`: `expired`, `more_asked`, `object_changed`, `restored` or `approver_revoked` (then `by` is whoever revoked).
    """

    approval_id: str
    to: str
    why: str
    by: str = ""


class InputReceived(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="input.received"):
    """The session's user said something, by their own channel."""

    input_id: str
    by: str
    text: str
    text_digest: str


class InputAsserted(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="input.asserted"):
    """The agent says that the user said something. Nobody has checked that: the text is untrusted."""

    input_id: str
    agent: str
    text: str
    text_digest: str


class DecisionAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="decision.asked"):
    """Somebody asked what would be decided; nothing was claimed and nothing run.

    `asked_by` is a user, or an agent when `via` is `session` or an enforcement point asks; `facts` are what was decided on.
    """

    decision_id: str
    via: str
    asked_by: str
    decision: Decision
    facts: object
    roles: tuple[str, ...] = ()


class RecordRead(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="record.read"):
    """Somebody read the record of other people's calls: `what` is `list`, `show` or `export`, `target` what they asked for."""

    what: str
    target: str
    by: str
    roles: tuple[str, ...]
    tenant: str


class ReleaseProposed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="release.proposed"):
    """A person put a release forward; its own tests were run. `changes` and `widens` are as in `ReleaseActivated`."""

    name: str
    digest: str
    in_force: str
    changed: tuple[str, ...]
    by: str
    roles: tuple[str, ...]
    tests_run: int
    tests_failed: int
    changes: Mapping[str, int] = {}
    widens: tuple[str, ...] = ()


class RiskNoted(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="risk.noted"):
    """Evidence of risk was found: in what an operation answered, in an input, or in how calls go (`source` is `calls`)."""

    source: str
    reference: str
    signals: tuple[Signal, ...]


class PostureChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="posture.changed"):
    """The posture of a lineage, or of a scope, was raised, or lowered by a person. `below` were raised with it.

    When it was raised on evidence, `signals` are all that counted and `score` what they came to.
    """

    lineage_id: str
    previous: str
    posture: str
    reason: str
    by: str
    roles: tuple[str, ...]
    scope: str = ""
    below: tuple[str, ...] = ()
    score: int = 0
    signals: tuple[Signal, ...] = ()


class DatabaseChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="database.changed"):
    """Another life of the database began: a standby took over, or a backup was restored. Its end may be lost."""

    incarnation: str


class BreakerChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="breaker.changed"):
    """A process found a tool's operation unstable and lets no call through (`open`), or found it well again.

    `calls` and `failed` are what it had counted itself, `others_calls` and `others_failed` what it knew of other processes.
    """

    operation: str
    environment: str
    process_id: str
    open: bool
    calls: int = 0
    failed: int = 0
    others_calls: int = 0
    others_failed: int = 0
    opens_for_ms: int = 0


class LoginStarted(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="login.started"):
    """A person logged in with a client: as themselves, or (`agent`, `task`) to let it act for them in a session."""

    login_id: str
    client_id: str
    client: str
    how: str
    tenant: str
    user: str
    environment: str
    expires_at_us: int
    agent: str = ""
    task: str = ""
    session_id: str = ""


class LoginEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="login.ended"):
    """A login ended before its time; its session, if it had one, ended with it."""

    login_id: str
    because: str


class RevocationMade(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="revocation.made"):
    """A person ended a session, or had everything refused that a user or an agent was issued before now."""

    target: str
    tenant: str
    reason: str
    by: str
    roles: tuple[str, ...] = ()


class ToolQuarantined(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="tool.quarantined"):
    """An operation is listed upstream otherwise than it was reviewed, so it is stopped."""

    operation: str
    environment: str
    reviewed: str
    pin: str
    detail: str
    noticed_by: str
    findings: tuple[str, ...] = ()


class ToolAccepted(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="tool.accepted"):
    """A person, or a release that was reviewed with it, let a quarantined operation run as it is listed now.

    `despite` are the findings that the person acknowledged.
    """

    operation: str
    environment: str
    pin: str
    by: str
    roles: tuple[str, ...]
    reason: str
    despite: tuple[str, ...] = ()


ControlBody: TypeAlias = (
    ToolQuarantined
    | ToolAccepted
    | DatabaseChanged
    | RestoreBody
    | ControlChanged
    | ControlRefused
    | ReleaseActivated
    | ReleaseProposed
    | RiskNoted
    | PostureChanged
    | BreakerChanged
    | LoginStarted
    | LoginEnded
    | RevocationMade
)
"""What stands in the chain `control`."""

Body: TypeAlias = (
    SessionOpened
    | SessionHandedDown
    | SessionRefreshed
    | CallProposed
    | ResourceRead
    | CallDecided
    | CallClaimed
    | CallRefused
    | CallSettled
    | AskBody
    | CallReplayed
    | ClaimOrphaned
    | ClaimRetried
    | DoubtAsked
    | DoubtResolved
    | ClaimConflict
    | ApprovalRequested
    | ApprovalAnswered
    | ApprovalEnded
    | InputReceived
    | InputAsserted
    | ContextBody
    | DecisionAsked
    | RecordRead
    | ControlBody
)
