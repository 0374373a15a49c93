"""The bodies of events about a database that was restored to an earlier point. The rules of `ledger.events` hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec


class DatabaseRestored(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="database.restored"):
    """This database was restored to an earlier point: what it held after `reached_us` (or shortly after) is lost to it."""

    why: str
    reached_us: int = 0


class DatabaseReconciled(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="database.reconciled"):
    """What marks outside of a restored database told was put back: counts by what became of it, and what is wrong with marks.

    `complete`: whoever did it says that the marks of all gateways were there. `controls` are the stops, postures and
    revocations that stand as they stood, `look_at` is what a person has to see to. `unread` are the parts whose end nobody
    could read, with the number of their lines; `release` was in force last, as the marks tell, empty when they do not.
    """

    complete: bool
    counts: Mapping[str, int]
    faults: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    look_at: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    release: str = ""


class DatabaseResumed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="database.resumed"):
    """A person let writes go on in a restored database. `release` is the one in force, when they named it."""

    reason: str
    by: str
    roles: tuple[str, ...] = ()
    release: str = ""


class ClaimRecovered(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="claim.recovered"):
    """A write that a restored database had lost, as a mark tells of it: when it was claimed, in which session, and its end.

    `state` is `succeeded`, `failed` or `in_doubt`.
    """

    claim_id: str
    operation: str
    state: str
    claimed_at_us: int
    session_id: str
    process_id: str


class ControlRecovered(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="control.recovered"):
    """A stop, a posture or a revocation that a restored database had lost stands again, as a mark tells of it.

    `what` is `stop`, `posture` or `revocation`; `target` a scope, a lineage, or whom it was issued to. `by` and `reason` are
    those of then.
    """

    what: str
    target: str
    posture: str
    reason: str
    by: str
    marked_at_us: int


RestoreBody: TypeAlias = DatabaseRestored | DatabaseReconciled | DatabaseResumed | ClaimRecovered | ControlRecovered
