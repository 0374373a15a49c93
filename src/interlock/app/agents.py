"""Agents as people see them: who each is in which environment, what it may be let do, how it is used."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.sight import UnknownRecordError
from interlock.core.terms import Effect, Layer
from interlock.core.who import Person
from interlock.release.model import Policy, Release
from interlock.store.traces import Traces

_GRANT = "grant:"


class AgentAt(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent proves who it is in one environment."""

    environment: str
    issuer: str
    subject: str


class GrantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that an agent was granted, and what its contract says it does to the world."""

    grant: int
    operation: str
    effects: tuple[Effect, ...]
    asks: tuple[str, ...]


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of the release in force. Numbers are of the tenants that the person may see."""

    agent: str
    identities: tuple[AgentAt, ...]
    tasks: tuple[str, ...]
    grants: tuple[GrantSummary, ...]
    live_sessions: int
    last_opened_at_us: int | None


class PeoplesAgents:
    """The agents of the release in force, for people with the role `status`."""

    def __init__(self, traces: Traces, admin: AdminGate) -> None:
        self._traces = traces
        self._admin = admin

    async def listed(self, person: Person) -> tuple[AgentView, ...]:
        """All agents, by name. Raises `NotPermittedError`."""
        release = await self._admin.permit(person, "status", target="agents", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        used = {use.agent: use for use in await self._traces.agent_use(tenant)}
        found = []
        for name in sorted({identity.agent for identity in release.identities}):
            use = used.get(name)
            found.append(
                AgentView(
                    agent=name,
                    identities=tuple(
                        AgentAt(environment=item.environment, issuer=item.issuer, subject=item.subject)
                        for item in release.identities
                        if item.agent == name
                    ),
                    tasks=tuple(sorted(task.name for task in release.tasks.values() if name in task.agents)),
                    grants=_grants(release, name),
                    live_sessions=0 if use is None else use.live,
                    last_opened_at_us=None if use is None else use.last_opened_at_us,
                )
            )
        return tuple(found)

    async def show(self, person: Person, name: str) -> AgentView:
        """One agent. Raises `NotPermittedError` or `UnknownRecordError`."""
        for agent in await self.listed(person):
            if agent.agent == name:
                return agent
        raise UnknownRecordError("there is no such agent in the release in force")


def _grants(release: Release, agent: str) -> tuple[GrantSummary, ...]:
    of_agent = [policy for policy in release.policies if policy.id.startswith(f"{_GRANT}{agent}:")]
    found = []
    for policy in of_agent:
        if policy.layer is not Layer.IDENTITY:
            continue
        number, operation = policy.id.removeprefix(f"{_GRANT}{agent}:").split(":")[:2]
        contract = release.contracts[operation]
        asks = tuple(sorted(_asked(of_agent, f"{_GRANT}{agent}:{number}:{operation}:")))
        found.append(GrantSummary(grant=int(number), operation=operation, effects=tuple(sorted(contract.effects)), asks=asks))
    return tuple(found)


def _asked(policies: Iterable[Policy], prefix: str) -> set[str]:
    return {policy.approval for policy in policies if policy.approval and policy.id.startswith(prefix)}
