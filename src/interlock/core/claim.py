"""What a process asks of Postgres before and after it touches a tool, and what Postgres answers each caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from interlock.core.budget import Charge
from interlock.core.context import Item
from interlock.core.decision import Rate
from interlock.core.event import EventDraft
from interlock.core.terms import Posture


class Epochs(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of everything that can change under a decision's feet. They only grow."""

    control: int
    release: int
    revocation: int


class LineageState(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions read about a lineage. `facts_version` grows whenever posture or labels change.

    `history_version` grows with every call that a fact about the past counts, and is compared only for decisions that read
    such facts. `tainted_by` and `confidential_by` name the calls (id and operation) that brought what the labels say.
    """

    facts_version: int
    posture: Posture
    tainted: bool
    confidentiality: int
    history_version: int = 0
    tainted_by: str = ""
    confidential_by: str = ""


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What a result brings into the lineage: the highest classification rank seen, and whether untrusted text came in."""

    confidentiality: int = 0
    tainted: bool = False


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """A write that happens at most once. `key` is the 32-byte digest of scope and key.

    `source` is `caller`, `once_per` or `arguments`.

    A match counts when the earlier claim carries the same `call_hash` (else the key was reused for another call) and is
    younger than `window_s`.
    """

    key: bytes
    source: str
    window_s: int


UNSEEN = '{"unseen":true}'
NOT_KEPT = '{"not_kept":true}'


def awaiting(attempt: int) -> str:
    """The outcome of a claim in doubt whose tool asked something in that attempt: with the answers the claim goes on."""
    return f'{{"awaits":{attempt}}}'


class OfWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a call in a session that was handed down has to do with the past of the whole work.

    `lineage_id` is the lineage that the work came from. `counts`: the call is part of that past. `version` is that of the
    past that a decision has read, None when it read none.
    """

    lineage_id: str
    counts: bool = False
    version: int | None = None

    @property
    def is_looked_at(self) -> bool:
        """Whether the store has to look at it, under the lock of that lineage."""
        return self.counts or self.version is not None


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the right to execute one call, with its events. `scopes` are `fleet`, `tenant:acme`, `operation:pay.refund`...

    `approvals` are used up by the claim; each must have been given for exactly `approved_hash`. `charges` are reserved by it.
    `history` is what facts about the past are to know of its arguments, None when none counts it; `history_version` is what
    the decision read of them, None when it read none.
    Sending the same request again with the same `claim_id` is safe and gives the same answer.

    With `continues` no new claim is made: the claim `claim_id`, whose tool asked something in that attempt, goes on as its next
    attempt, if it still waits for the answers. What it reserved it has, so `rates`, `charges` and `history` are empty.
    """

    claim_id: str
    call_id: str
    session_id: str
    lineage_id: str
    operation: str
    call_hash: str
    release_digest: str
    epochs: Epochs
    facts_version: int
    scopes: tuple[str, ...]
    idempotency: Idempotency | None
    rates: tuple[Rate, ...] = ()
    worst_labels: Labels = Labels()
    settle_by_ms: int
    events: tuple[EventDraft, ...]
    approvals: tuple[str, ...] = ()
    approved_hash: str = ""
    charges: tuple[Charge, ...] = ()
    history: str | None = None
    history_version: int | None = None
    continues: int = 0
    work: OfWork | None = None


class RecordRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Append events that claim nothing: a refusal, a replay. With `epochs` set, refused as `Stale` when they have moved on."""

    call_id: str
    session_id: str
    lineage_id: str
    epochs: Epochs | None
    facts_version: int | None
    history_version: int | None = None
    work: OfWork | None = None
    events: tuple[EventDraft, ...]


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Record what became of a claim. `state` is `succeeded`, `failed` or `in_doubt`; only attempt `attempt` settles.

    `outcome` is the raw result as JSON text, kept for replays of writes, or that it is `awaiting` answers. `release_key`
    frees the idempotency key and gives back what was reserved: only for a call that is known never to have happened. `spent`
    says by account what a call has really used where that is known; a call in doubt keeps its reservation. `enters` is what
    the lineage's context takes up with it, unless somebody else has spoken about the claim before.
    """

    claim_id: str
    session_id: str
    lineage_id: str
    attempt: int
    state: str
    outcome: str | None
    release_key: bool = False
    spent: Mapping[str, int] = {}
    labels: Labels = Labels()
    events: tuple[EventDraft, ...]
    enters: Item | None = None
    work: OfWork | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Go: the claim is committed and so is its decision. `state` is the lineage as it now stands.

    `history_n` is the history version that it made; None when it made none, or nobody knows which.
    """

    claim_id: str
    attempt: int
    state: LineageState
    claimed_at_us: int = 0
    history_n: int | None = None


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The events are committed."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome is committed. `history_n` is as of `Claimed`."""

    state: LineageState
    history_n: int | None = None


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """The same call was claimed before; nothing was written.

    `claim_state` is `claimed`, `succeeded`, `failed` or `in_doubt`; `outcome` is `UNSEEN`
    when it is known that the call was done, and nobody has the tool's answer; `NOT_KEPT` when the answer was too long to keep.
    """

    claim_id: str
    call_id: str
    claim_state: str
    outcome: str | None
    claimed_at_us: int
    settled_at_us: int | None
    owner_alive: bool


class KeyReused(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's idempotency key belongs to a call with other arguments; nothing was written."""

    claim_id: str


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """Something the decision read has changed: decide again with these; nothing was written."""

    epochs: Epochs
    state: LineageState
    release_digest: str


class Halted(msgspec.Struct, frozen=True, kw_only=True):
    """A control forbids execution; nothing was written."""

    scope: str
    reason: str


class OverRate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate obligation is used up; nothing was written."""

    rate: Rate
    retry_after_ms: int


class OverBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget has no room for the call; nothing was written. `used` counts reservations, `in_flight` those of calls under way.

    `after_ms` is when enough of it will have left the window; None when it does not free by itself.
    """

    charge: Charge
    used: int
    in_flight: int = 0
    after_ms: int | None = None

    @property
    def may_free(self) -> bool:
        """Whether the call would fit if the calls in flight gave back what they hold."""
        return self.used - self.in_flight + self.charge.amount <= self.charge.limit < self.used + self.charge.amount


class ApprovalGone(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that the decision rests on is used, over or withdrawn, or its giver lost the role; nothing was written."""

    approval_id: str


class SessionEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The session is unknown, expired or revoked; nothing was written."""


class NotSettled(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt does not match or was settled otherwise; `claim_state` is what stands."""

    claim_state: str


NotClaimed: TypeAlias = Duplicate | KeyReused | Stale | Halted | OverRate | OverBudget | ApprovalGone | SessionEnded
ClaimAnswer: TypeAlias = Claimed | NotClaimed
RecordAnswer: TypeAlias = Recorded | Stale | SessionEnded
SettleAnswer: TypeAlias = Settled | NotSettled
