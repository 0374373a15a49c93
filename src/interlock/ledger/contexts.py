"""The bodies of events about contexts: plans, and what lineages are labelled with. The rules of `ledger.events` hold."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from interlock.core.plan import PlannedOperation


class PlanSealed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="plan.sealed"):
    """Before anything untrusted was read, the agent fixed which operations its session may use and, where known, on what."""

    digest: str
    agent: str
    operations: tuple[PlannedOperation, ...]
    release_digest: str = ""


class PlanRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="plan.refused"):
    """A plan was proposed and not sealed. `why` is `invalid`, `no_input`, `tainted`, `other`, `handed_down` or `handed_on`."""

    digest: str
    agent: str
    why: str
    detail: str = ""


class LabelsSpread(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="labels.spread"):
    """What an agent was about to be given labelled it and those that work with it: the `lineages` that were labelled less.

    `tainted_by` and `confidential_by` name the calls (id and operation) that brought it.
    """

    tainted: bool
    confidentiality: int
    tainted_by: str
    confidential_by: str
    lineages: tuple[str, ...]


class StartedFresh(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="lineage.started_fresh"):
    """A user began their work with an agent afresh: the `sessions` ended, and with them what it had read taints no longer.

    `tainted_by` is the call that had brought it. Posture, confidentiality, counters, budgets and history stayed as they were.
    """

    lineage_id: str
    tenant: str
    environment: str
    agent: str
    by: str
    tainted_by: str
    sessions: tuple[str, ...]
    reason: str = ""


ContextBody: TypeAlias = PlanSealed | PlanRefused | LabelsSpread | StartedFresh
