"""What policy is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from interlock.core.history import Recalled
from interlock.core.plan import Planned
from interlock.core.terms import Classification, Effect, Layer, Origin, Posture, Question
from interlock.core.who import AttributeValue


class ResourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The object a call is about. `attributes` is None when they could not be learnt: policies that need them fail closed."""

    type: str
    id: str
    attributes: Mapping[str, AttributeValue] | None = None


class Traced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an argument came from, and the kinds of active parts found in a text.

    `pointed`: it is doubtful, and all that is doubtful in it stands in something that the user named. `found_in` is the
    operation whose result held it last (or `input`, `asserted`), for people to read.
    """

    origin: Origin
    active: tuple[str, ...] = ()
    pointed: bool = False
    found_in: str = ""


class Lift(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that a person gave for this very call: it lifts these forbids of its rule, and no others."""

    approval_id: str
    rule: str
    policy_ids: tuple[str, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The closed, serialisable record of all that one decision may depend on.

    `arguments` is the canonical JSON text of the validated arguments, exactly the bytes that are hashed and sent.
    `provenance` is None when nothing was traced: policies are then told that all of them are untrusted. `plan` is None when
    no policy that may speak about the operation reads it: they would be told that there is none. `history` holds the facts
    about the past that they read; one that is not there stops whoever reads it. `tainted_by` and `confidential_by` name the
    calls that brought what the labels say, for people.
    """

    operation: str
    arguments: str
    call_hash: str
    effects: frozenset[Effect]
    classification: Classification
    entities: int
    agent: str
    user: str
    tenant: str
    environment: str
    task: str
    purpose: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    session_id: str
    posture: Posture
    tainted: bool
    confidentiality: int
    resource: ResourceFacts | None
    now_us: int
    approvals: tuple[Lift, ...] = ()
    provenance: Mapping[str, Traced] | None = None
    canaries: tuple[str, ...] = ()
    plan: Planned | None = None
    history: Mapping[str, Recalled] = {}
    tainted_by: str = ""
    confidential_by: str = ""


class PolicyRef(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that had its say in a decision."""

    id: str
    layer: Layer
    effect: str
    owner: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was not simply allowed. `code` is stable; `say` may be shown to the caller; `detail` is for operators."""

    code: str
    say: str = ""
    detail: str = ""
    policy_id: str = ""
    field: str = ""


class Rate(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """At most `limit` calls of the operation in any `window_s` seconds, per lineage."""

    limit: int
    window_s: int


class RowFilter(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Keep only the items of the list at `path` whose `field` equals `value`. Several filters are ANDed."""

    path: str
    field: str
    value: str


class Columns(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Keep only `keep` in each object at `path` (`""` is the result itself). Several for one path intersect."""

    path: str
    keep: frozenset[str]


class Obligations(msgspec.Struct, frozen=True, kw_only=True):
    """What an Allow demands. Enforced by code in the gateway; anything not listed here is unknown and was denied."""

    redact: frozenset[str] = frozenset()
    columns: tuple[Columns, ...] = ()
    rows: tuple[RowFilter, ...] = ()
    rates: tuple[Rate, ...] = ()
    read_only: bool = False
    extra_log: bool = False


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One approval that is needed: the rule of approvals.yaml, and the forbid it would lift."""

    rule: str
    policy_id: str
    role: str = ""
    holds_s: int = 0
    show: tuple[str, ...] = ()


class _DecisionBase(msgspec.Struct, frozen=True, kw_only=True):
    release_digest: str
    facts_digest: str
    engine: str
    policies: tuple[PolicyRef, ...] = ()


class Allow(_DecisionBase, frozen=True, kw_only=True, tag="allow"):
    """Every layer said yes, on these conditions. `approvals` are the ids it rests on: the claim must use them up."""

    obligations: Obligations = Obligations()
    approvals: tuple[str, ...] = ()


class Deny(_DecisionBase, frozen=True, kw_only=True, tag="deny"):
    """The answer is no; `question` says which of the seven stopped the call."""

    question: Question
    reasons: tuple[Reason, ...]


class RequireApproval(_DecisionBase, frozen=True, kw_only=True, tag="require_approval"):
    """Yes, once people have approved. All `requirements` are needed, and the obligations hold as for Allow."""

    requirements: tuple[Requirement, ...]
    reasons: tuple[Reason, ...] = ()
    obligations: Obligations = Obligations()
    question: Question = Question.WHO_APPROVES


Decision: TypeAlias = Allow | Deny | RequireApproval
