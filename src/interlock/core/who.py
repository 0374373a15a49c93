"""Who calls, for whom, and what a session inherits from the ones before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import msgspec

AttributeValue: TypeAlias = str | int | bool | tuple[str, ...]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Whose past a session carries on: posture, taint, window counters and budgets belong here, not to the session."""

    tenant: str
    environment: str
    agent: str
    user: str

    @property
    def id(self) -> str:
        """`lin_` and 32 hexadecimal digits, the same for the same four names."""
        return _lineage_id(self.tenant, self.environment, self.agent, self.user)


@lru_cache(4_096)
def _lineage_id(*names: str) -> str:
    # Each name is preceded by its length, so that no two lineages can join to the same text.
    joined = "".join(f"{len(name)}:{name}" for name in names)
    return "lin_" + hashlib.sha256(joined.encode()).hexdigest()[:32]


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The session of an agent that handed work on to another agent. `max_calls`: as of `Session`."""

    session_id: str
    agent: str
    max_calls: int = 0


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One agent acting for one user on one task, for a limited time. `session_id` survives refresh of its token.

    `parents` are the sessions it was handed down from, the nearest first; all of them draw on the budgets of the `root`.
    `run` binds the session to one run of the root; `operations` are the only ones it may use, all when None; `max_calls` is
    how many calls it may make and hand on, 0 when nothing says.
    `user_told_at_us` and `agent_told_at_us` are when the proofs were issued that it rests on: what was issued before a
    revocation opens nothing. Zero counts as long ago.
    """

    session_id: str
    lineage: Lineage
    task: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = {}
    expires_at_us: int
    opened_at_us: int = 0
    user_told_at_us: int = 0
    agent_told_at_us: int = 0
    parents: tuple[Parent, ...] = ()
    run: str = ""
    operations: tuple[str, ...] | None = None
    max_calls: int = 0

    def may_use(self, operation: str) -> bool:
        """Whether what was handed down covers an operation; what policy says comes on top."""
        return self.operations is None or operation in self.operations

    @property
    def root(self) -> str:
        """The session that all of this began with."""
        return self.parents[-1].session_id if self.parents else self.session_id

    @property
    def work(self) -> Lineage:
        """The lineage that all of this began with: work is handed down for the same user, by one agent to another."""
        return msgspec.structs.replace(self.lineage, agent=self.parents[-1].agent) if self.parents else self.lineage


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A user speaking for themselves, with no agent in between: the principal of control-plane operations.

    `told_at_us` is when the token was issued that says so.
    """

    user: str
    tenant: str
    roles: tuple[str, ...]
    told_at_us: int = 0
