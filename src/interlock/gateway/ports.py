"""What the gate needs from the store and from the release shelf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from interlock.core.approval import Approval, ApprovalRequest, ApprovalState, Requested
from interlock.core.canonical import JsonValue
from interlock.core.claim import (
    ClaimAnswer,
    ClaimRequest,
    Epochs,
    LineageState,
    RecordAnswer,
    RecordRequest,
    SettleAnswer,
    SettleRequest,
)
from interlock.core.context import Item, StoredItem
from interlock.core.event import EventDraft
from interlock.core.history import PastCall
from interlock.core.plan import SealedPlan
from interlock.core.who import Session
from interlock.release.model import Release
from interlock.store.doubts import Doubt


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where things stand for one lineage: what a decision must be made on, and what its claim is compared with."""

    epochs: Epochs
    release_digest: str
    state: LineageState


class ClaimDesk(Protocol):
    """Commits claims, records and settlements. Raises `store.StoreUnavailableError`: nothing may then be executed."""

    async def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Take the right to execute one call."""
        ...

    async def record(self, request: RecordRequest) -> RecordAnswer:
        """Append events that claim nothing."""
        ...

    async def settle(self, request: SettleRequest) -> SettleAnswer:
        """Record what became of a claim."""
        ...


class Standings(Protocol):
    """Reads where a session's lineage stands; None for a session that is unknown, expired or revoked."""

    async def load(self, session: Session) -> Standing | None:
        """Where the lineage stands now."""
        ...

    async def over(self, sessions: tuple[Session, ...]) -> frozenset[str]:
        """Which of these may do nothing any more, by their ids: ended, or stopped in all they do."""
        ...


class Settlements(Protocol):
    """Waits for somebody else's claim to be settled."""

    async def wait(self, claim_id: str, timeout_ms: int) -> bool:
        """True as soon as the claim is no longer `claimed`; False when its owner is gone or the time is up."""
        ...

    async def committed(self, claim_ids: Sequence[str]) -> tuple[str, ...]:
        """Which of these claims are there."""
        ...

    async def is_known(self, key: bytes, window_s: int) -> bool:
        """Whether a claim with this idempotency key counts as the same call: unsettled, or younger than the window."""
        ...


class ApprovalDesk(Protocol):
    """Where requests to people are kept. Raises `store.StoreUnavailableError`."""

    async def request(self, request: ApprovalRequest, event: EventDraft, *, most_open: int) -> Requested | None:
        """Ask, or find the same question open; None when the session has ended or too many are open."""
        ...

    async def for_call(self, lineage_id: str, call_hash: str, release_digest: str) -> tuple[Approval, ...]:
        """What people have said about this very call under this release."""
        ...

    async def states(self, approval_ids: list[str]) -> dict[str, ApprovalState]:
        """Where these requests stand."""
        ...


class ContextShelf(Protocol):
    """Where it is kept what has entered contexts. Raises `store.StoreUnavailableError`."""

    async def add(self, lineage_id: str, session_id: str, item: Item) -> int:
        """Add an item; every process that asks after this finds it."""
        ...

    async def after(self, lineage_id: str, n: int) -> tuple[StoredItem, ...]:
        """The next items after number `n` in order; none when there are no more."""
        ...


class LabelShelf(Protocol):
    """Where labels are kept. Raises `store.StoreUnavailableError`."""

    async def labelled_less(self, session: Session, to: LineageState) -> tuple[str, ...]:
        """The lineages that work together with the session's, itself among them, and are labelled less than `to`."""
        ...

    async def spread(self, session: Session, to: LineageState, raised: tuple[str, ...], event: EventDraft) -> bool:
        """Label those `raised` as `to` says, with the event; False when they are others by now."""
        ...


class PlanShelf(Protocol):
    """Where sealed plans are kept. Raises `store.StoreUnavailableError`."""

    async def seal(self, session: Session, digest: str, body: str, event: EventDraft) -> str:
        """Seal a plan: `sealed`, `same`, or why not."""
        ...

    async def plan(self, session: Session) -> tuple[int, SealedPlan | None]:
        """The plan that holds in a session, with the version of the facts that it was read with."""
        ...

    async def refused(self, session: Session, event: EventDraft) -> None:
        """Put on record that a plan was refused."""
        ...


class Watch(Protocol):
    """Looks for evidence of risk, and raises postures. Raises `store.StoreUnavailableError`: the call is then refused."""

    async def entered(self, session: Session, source: str, reference: str, texts: Callable[[], tuple[str, ...]]) -> None:
        """Look at what is about to enter a context, for a bounded time; what takes longer is looked at afterwards.

        `texts` gives it, and is only asked where something is looked for.
        """
        ...

    async def sent_off(self, session: Session, call_id: str, operation: str, canaries: tuple[str, ...]) -> None:
        """A call carried planted secrets. Answers when the lineage's posture is raised."""
        ...

    def called(self, session: Session, call: CalledAs) -> None:
        """A call has ended, in whatever way. Never waits."""
        ...


class CalledAs(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it ended: `made`, `denied`, `asked`, `malformed`, `contradiction` or `other`; its arguments, if read.

    Of a call that would change something, `object` is the argument that names what it would be done to, and `targets` are all
    that say what would be done; empty of one that only reads, or whose contract names no object. `contrary`: the session's
    sealed plan says otherwise, or nothing of it.
    """

    call_id: str
    operation: str
    outcome: str
    arguments: Mapping[str, JsonValue]
    object: str = ""
    targets: tuple[str, ...] = ()
    contrary: bool = False


class PastShelf(Protocol):
    """Where past calls are found. Raises `store.StoreUnavailableError`."""

    async def whole(
        self, lineage_id: str, operations: frozenset[str], window_s: int, most: int
    ) -> tuple[int, tuple[PastCall, ...]]:
        """The newest calls of these operations with the version of the history that they add up to."""
        ...

    async def after(self, lineage_id: str, version: int, most: int) -> tuple[int, tuple[PastCall, ...]]:
        """Calls that came or ended after a version, with the version that they add up to."""
        ...


class DoubtDesk(Protocol):
    """Where doubts are kept. Raises `store.StoreUnavailableError`."""

    async def to_look_into(self, most: int) -> tuple[Doubt, ...]:
        """Those that no person was asked about."""
        ...

    async def look(self, doubt: Doubt, hold_s: float) -> int | None:
        """Take one to look into; None when it is not ours."""
        ...

    async def look_again_after(self, doubt: Doubt, pause_s: float, *, counts: bool) -> None:
        """Leave it alone for a while."""
        ...

    async def attempt_again(
        self, doubt: Doubt, *, settle_by_ms: int, control_epoch: int, release_digest: str, event: EventDraft
    ) -> int | None:
        """Take it up again; gives the attempt number, None when it may not start."""
        ...

    async def ask_people(self, doubt: Doubt, why: str, event: EventDraft) -> bool:
        """Leave it to people."""
        ...

    async def conflict(self, claim_id: str, what: str, event: EventDraft) -> None:
        """Note what contradicts how a claim was settled."""
        ...


class Shelf(Protocol):
    """Where releases are kept. `load` raises when the release is missing or does not load: calls are then refused."""

    async def load(self, digest: str, *, is_old: bool = False) -> Release:
        """The release with this digest; `is_old` when another is known to be in force."""
        ...
