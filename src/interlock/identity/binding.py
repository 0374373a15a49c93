"""Binding an agent to a user for a task: which agent a proof names, which tasks the user may open to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec

from interlock.core.who import AttributeValue, Lineage, Session
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.reading import AgentProof, UserProof
from interlock.release.issuers import ANY_CLIENT
from interlock.release.model import Release

_MAX_ATTRIBUTE_ITEMS: Final = 1_000


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A user and an agent that are known here, and the tasks that the user may open to this agent, sorted."""

    user: UserProof
    agent: AgentProof
    name: str
    tasks: tuple[str, ...]


def bind(user: UserProof, agent: AgentProof, release: Release, environment: str, *, delegated: bool = False) -> Bound:
    """Who the agent is here, and what the user may open to it. `delegated`: one token told both.

    Raises:
        ExchangeRefusedError: the agent is unknown, or the user's token was issued to another.
    """
    name = agent_named(release, environment, agent.issuer, agent.subject)
    if not name and delegated and not _is_own_channel(release, agent):
        # A client that people log in with and that has no name of its own: what the release grants to any of them.
        name = agent_named(release, environment, agent.issuer, ANY_CLIENT)
    if not name:
        raise ExchangeRefusedError("invalid_grant", "the agent is not known here", counted_as="agent_unknown")
    holder = "" if delegated or not user.client else agent_named(release, environment, user.issuer, user.client)
    if holder not in ("", name):
        # The user has logged in to another agent, which has passed the token on.
        raise ExchangeRefusedError("invalid_grant", "the user's token was issued to another agent", counted_as="other_agent")
    roles = set(user.person.roles)
    tasks = (task.name for task in release.tasks.values() if name in task.agents and roles & set(task.open_to))
    return Bound(user=user, agent=agent, name=name, tasks=tuple(sorted(tasks)))


def session_for(bound: Bound, task: str, release: Release, environment: str, session_id: str, expires_at_us: int) -> Session:
    """The session of a bound user and agent. Raises `ExchangeRefusedError` for a task that the user may not open to it."""
    if task not in bound.tasks:
        # One answer for a task that does not exist and one that is not open: a stranger learns nothing about either.
        raise ExchangeRefusedError(
            "invalid_grant", "this agent may not open this task for this user", counted_as="task_not_granted"
        )
    person = bound.user.person
    return Session(
        session_id=session_id,
        lineage=Lineage(tenant=person.tenant, environment=environment, agent=bound.name, user=person.user),
        task=task,
        roles=person.roles,
        attributes=declared(bound.user.attributes, release.user_attributes),
        expires_at_us=expires_at_us,
        user_told_at_us=person.told_at_us,
        agent_told_at_us=bound.agent.told_at_us,
    )


def agent_named(release: Release, environment: str, issuer: str, subject: str) -> str:
    """The agent that an issuer's subject is in this environment; empty when it is none, or could be two."""
    found = {
        identity.agent
        for identity in release.identities
        if (identity.issuer, identity.subject, identity.environment) == (issuer, subject, environment)
    }
    return found.pop() if len(found) == 1 else ""


def _is_own_channel(release: Release, agent: AgentProof) -> bool:
    issuer = release.issuers.get(agent.issuer)
    return issuer is None or issuer.people is None or agent.subject in issuer.people.clients


def declared(claimed: Mapping[str, object], kinds: Mapping[str, str]) -> dict[str, AttributeValue]:
    """The attributes that the release declares, in the types it declares; everything else is left out."""
    found: dict[str, AttributeValue] = {}
    for name, kind in kinds.items():
        value = claimed.get(name)
        if kind == "set" and _are_texts(value) and len(value) <= _MAX_ATTRIBUTE_ITEMS:
            found[name] = tuple(value)
        elif (
            (kind == "bool" and isinstance(value, bool))
            or (kind == "string" and isinstance(value, str))
            or (kind == "long" and isinstance(value, int) and not isinstance(value, bool))
        ):
            found[name] = value
    return found


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
