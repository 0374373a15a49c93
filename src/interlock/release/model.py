"""A release as loaded: frozen values, no files, no handles."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from interlock.core.budget import CEILINGS, Budget
from interlock.core.contract import Contract
from interlock.core.history import HistoryFact
from interlock.core.risk import RiskRules
from interlock.core.terms import Layer, Origin
from interlock.release.issuers import Issuer


class ToolSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tool runs in one environment. Exactly one of `url`, `command`, `python` is set.

    `credential` names a secret (`env:NAME` or `file:PATH`) sent upstream as a bearer token; it is resolved by the connector
    and never leaves it. `python` is `module:function-prefix` of functions registered in process.
    """

    url: str = ""
    command: tuple[str, ...] = ()
    python: str = ""
    credential: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool and where it runs, by environment. `stateless` tools may share connections between users."""

    name: str
    sources: Mapping[str, ToolSource]
    stateless: bool = True
    protocol: str = ""


class AgentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent proves who it is in one environment."""

    agent: str
    environment: str
    issuer: str
    subject: str


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A category of work. A user with one of `open_to` may let one of `agents` open it."""

    name: str
    purpose: str
    open_to: tuple[str, ...]
    agents: tuple[str, ...]


class ApprovalRule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may approve, on which evidence, and how long an approval holds."""

    name: str
    role: str
    exclude: str = "requester"
    holds_s: int = 900
    show: tuple[str, ...] = ()


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of a grant on an argument, to be told to whoever it stops: `verb` as in agents.yaml, `value` as JSON text."""

    argument: str
    verb: str
    value: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One Cedar policy, compiled from a grant or written by hand.

    `actions` holds the operations or action groups its scope names (None: every action); `cedar` is the text and `est`
    the same as Cedar JSON text of one policy. `layer` is where it speaks; `file` and `line` where it was written.
    `limits` are what a grant's capability demands of arguments, for people to read; what decides is the text alone.
    """

    id: str
    layer: Layer
    owner: str
    effect: str
    actions: tuple[str, ...] | None
    cedar: str
    est: str
    say: str = ""
    approval: str = ""
    obligations: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    file: str = ""
    line: int = 0


class PolicyTest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `tests/*.yaml`: a request and what must be decided.

    `expect` is `allow`, `deny`, `deny <question-number>`, or `ask <rule>`; `obligations` when given must be exactly these.
    `plan` says how the call stands to a sealed plan (`operation`, `agrees`, `fixed`); None: none was sealed. `history` is what
    facts about the past say; nothing has happened where nothing is said.
    """

    name: str
    call: str
    args: str
    roles: tuple[str, ...]
    expect: str
    agent: str = ""
    user: str = "someone"
    tenant: str = ""
    environment: str = ""
    task: str = ""
    attributes: Mapping[str, object] = {}
    resource: Mapping[str, object] | None = None
    session: Mapping[str, object] = {}
    obligations: tuple[str, ...] | None = None
    provenance: Mapping[str, Origin] = {}
    plan: Mapping[str, bool] | None = None
    history: Mapping[str, bool | int | str] = {}
    file: str = ""
    line: int = 0


class Administration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which roles may do what to the control plane itself; a name that is missing may be done by nobody.

    `operated_by` are the tenants whose people may act on the whole installation and on other tenants; `teams` the roles
    that make somebody a member of an owner team.
    """

    operated_by: tuple[str, ...] = ()
    teams: Mapping[str, tuple[str, ...]] = {}
    # Containment
    kill: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()
    # Change
    propose: tuple[str, ...] = ()
    activate: tuple[str, ...] = ()
    review: tuple[str, ...] = ()
    # Looking
    status: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    # Asking for a decision without a call: people by role, and other systems' enforcement points, which are agents, for
    # the tenants named.
    decide: tuple[str, ...] = ()
    enforcement_points: Mapping[str, tuple[str, ...]] = {}


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shapes decisions. `files` are the texts it was loaded from; `digest` is computed over them alone.

    `guarded` is the approval rule by which writes are asked about under a guarded posture; empty: they are refused.
    """

    name: str
    digest: str
    files: Mapping[str, str]
    owners: Mapping[str, tuple[str, ...]]
    user_attributes: Mapping[str, str]
    administration: Administration
    identities: tuple[AgentIdentity, ...]
    tasks: Mapping[str, Task]
    tools: Mapping[str, Tool]
    contracts: Mapping[str, Contract]
    approvals: Mapping[str, ApprovalRule]
    policies: tuple[Policy, ...]
    cedar_schema: str
    issuers: Mapping[str, Issuer] = {}
    tests: tuple[PolicyTest, ...] = ()
    guarded: str = ""
    budgets: tuple[Budget, ...] = CEILINGS
    risk: RiskRules = RiskRules()
    history: tuple[HistoryFact, ...] = ()
