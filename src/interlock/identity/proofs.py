"""Proofs of who somebody is, whoever vouches for it: the built-in issuer, or one that the release trusts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from interlock.core.who import Person
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.outside import Outside, claimed_issuer
from interlock.identity.persons import PersonTokens
from interlock.identity.reading import (
    MAX_ROLES,
    AgentProof,
    Delegation,
    UserProof,
    agent_of,
    delegated_of,
    speaks_for_themselves,
    user_of,
)
from interlock.identity.tokens import OURS, Checked, Verifier
from interlock.release.model import Release


class Proofs:
    """Checks tokens of the built-in issuer by themselves, and all others by the issuers of a release."""

    def __init__(self, built_in: Verifier, outside: Outside | None = None, own: PersonTokens | None = None) -> None:
        self._built_in = built_in
        self._outside = outside
        self._own = own

    def is_built_in(self, token: str) -> bool:
        """Whether a token says that the built-in issuer vouches for it."""
        return self._built_in.knows(claimed_issuer(token))

    async def user(self, token: str, release: Release) -> UserProof:
        """The person that a token is about. Raises `TokenRefusedError`."""
        if self._outside is None or self.is_built_in(token):
            return _user_of(self._built_in.check(token, use="user"))
        return user_of(await self._outside.check(token, release.issuers))

    async def agent(self, token: str, release: Release) -> AgentProof:
        """The agent that a token proves. Raises `TokenRefusedError`."""
        if self._outside is None or self.is_built_in(token):
            checked = self._built_in.check(token, use="agent")
            return AgentProof(
                issuer=checked.issuer,
                subject=checked.subject,
                told_at_us=int(checked.claims["iat"] * 1_000_000),
                expires_at_s=checked.expires_at_s,
            )
        return agent_of(await self._outside.check(token, release.issuers))

    async def delegated(self, token: str, release: Release) -> Delegation:
        """A token that stands for a user and for the agent that acts for them. Raises `TokenRefusedError`."""
        if self._outside is None or self.is_built_in(token):
            raise TokenRefusedError(TokenCode.WRONG_USE, "the built-in issuer's tokens stand for a user or for an agent")
        return delegated_of(await self._outside.check(token, release.issuers))

    def still_good(self, token: str, release: Release) -> bool:
        """Whether an outside token that was checked before would be accepted now, by what is known here."""
        return self._outside is not None and self._outside.remembered(token, release.issuers) is not None

    async def person(self, token: str, release: Callable[[], Awaitable[Release]]) -> Person:
        """The person who speaks for themselves by this token. Raises `TokenRefusedError`, and what `release` raises."""
        if self._own is not None and claimed_issuer(token) == OURS:
            return self._own.person(token, (await release()).issuers)
        if self._outside is None or self.is_built_in(token):
            return person_of(self._built_in.check(token, use="user"))
        in_force = await release()
        proof = speaks_for_themselves(await self._outside.check(token, in_force.issuers))
        refuse_agents_client(proof, in_force)
        return proof.person


def refuse_agents_client(proof: UserProof, release: Release) -> None:
    """Raises `TokenRefusedError` for a person's token that was issued to the client of an agent."""
    if any((agent.issuer, agent.subject) == (proof.issuer, proof.client) for agent in release.identities):
        # INVARIANT: no agent speaks in a user's own channel, whatever the issuer's configuration says.
        raise TokenRefusedError(TokenCode.CLIENT, "the client is an agent", proof.issuer)


def person_of(checked: Checked) -> Person:
    """The person of a checked token of the built-in issuer. Raises `TokenRefusedError` when tenant or roles are not there."""
    tenant, roles = checked.claims.get("tenant"), checked.claims.get("roles", [])
    if not isinstance(tenant, str) or not tenant or not _are_texts(roles) or len(roles) > MAX_ROLES:
        raise TokenRefusedError(TokenCode.CLAIMS, "tenant or roles are missing", checked.issuer)
    told_at_us = int(checked.claims["iat"] * 1_000_000)
    return Person(user=checked.subject, tenant=tenant, roles=tuple(sorted(set(roles))), told_at_us=told_at_us)


def _user_of(checked: Checked) -> UserProof:
    attributes = checked.claims.get("attributes")
    return UserProof(
        person=person_of(checked),
        attributes=attributes if isinstance(attributes, dict) else {},
        issuer=checked.issuer,
        expires_at_s=checked.expires_at_s,
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
