"""Taking trust back: a session, or everything that a user or an agent was issued before now. Each with a role and a record."""

from __future__ import annotations

import re
from typing import Final

from interlock.app.administration import AdminGate
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import RevocationMade
from interlock.store.revocations import Revocations, Revoked

OPERATION: Final = "revoke"
_TARGET: Final = re.compile(r"^(user|agent|session):(\S(?:.{0,254}\S)?)$")


class UnknownTargetError(Exception):
    """What is to be revoked is not written as it should be."""


class UnknownSessionError(Exception):
    """There is no such live session that this person may end."""


class PeoplesRevocations:
    """Revocations by people. After the answer nothing that rests on what was revoked is claimed, in any process."""

    def __init__(self, revocations: Revocations, admin: AdminGate, ids: Ids) -> None:
        self._revocations = revocations
        self._admin = admin
        self._ids = ids

    async def revoke(self, person: Person, target: str, reason: str, *, tenant: str = "") -> Revoked:
        """Revoke `user:NAME` of a tenant (the person's own when empty), `agent:NAME` everywhere, or `session:ID`.

        Raises:
            UnknownTargetError: it is none of these.
            NotPermittedError: the person may not; that they tried is on record.
            UnknownSessionError: there is no such live session for them.
        """
        written = _TARGET.match(target)
        if written is None:
            raise UnknownTargetError(f"{target[:200]!r} is no target; write user:NAME, agent:NAME or session:ID")
        kind, name = written.groups()
        match kind:
            case "user":
                tenant = tenant or person.tenant
                await self._admin.permit(person, OPERATION, target=target, tenant=tenant)
            case "agent":
                # An agent acts in every tenant, so it concerns the whole installation.
                tenant = ""
                await self._admin.permit(person, OPERATION, target=target)
            case _:
                tenant = await self._tenant_of_session(person, name, target)
        body = RevocationMade(target=target, tenant=tenant, reason=reason, by=person.user, roles=person.roles)
        event = draft(body, ids=self._ids)
        done = await self._revocations.revoke(kind=kind, name=name, tenant=tenant, by=person.user, reason=reason, event=event)
        if done is None:
            raise UnknownSessionError("there is no such live session")
        return done

    async def _tenant_of_session(self, person: Person, session_id: str, target: str) -> str:
        release = await self._admin.permit(person, OPERATION, target=target, tenant=person.tenant)
        tenant = await self._revocations.tenant_of(session_id)
        if tenant is None:
            raise UnknownSessionError("there is no such live session")
        if tenant != person.tenant and person.tenant not in release.administration.operated_by:
            # Nobody learns which sessions other tenants have; that somebody asked is on record.
            await self._admin.refuse(person, OPERATION, target, f"is of tenant {person.tenant}")
            raise UnknownSessionError("there is no such live session")
        return tenant
