"""Postures of whole scopes, as people set them: every lineage in the scope is at least as worried."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.app.postures import PostureConflictError
from interlock.app.scopes import check_scope, tenant_of
from interlock.core.ports import Ids
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import PostureChanged
from interlock.store.postures import ScopePosture, ScopePostures
from interlock.store.sessions import Sessions

_ORDER: Final = tuple(Posture)


class ScopePostureSet(msgspec.Struct, frozen=True, kw_only=True):
    """A scope's posture as it is now; decisions made before the control epoch `epoch` are made again."""

    scope: str
    previous: Posture
    posture: Posture
    epoch: int


class PeoplesScopePostures:
    """Raising needs `kill`, lowering `lower`; nobody lowers what they raised, nor their own user's."""

    def __init__(self, postures: ScopePostures, admin: AdminGate, sessions: Sessions, ids: Ids) -> None:
        self._postures = postures
        self._admin = admin
        self._sessions = sessions
        self._ids = ids

    async def set(self, person: Person, scope: str, to: Posture, reason: str) -> ScopePostureSet:
        """Raise or lower the posture of a scope.

        Raises:
            UnknownScopeError, NotPermittedError, PostureConflictError: nothing was changed.
        """
        checked = check_scope(scope)
        found = await self._postures.get(checked)
        lowers = _ORDER.index(to) < _ORDER.index(found.posture)
        tenant = await tenant_of(checked, self._sessions)
        await self._admin.permit(person, "lower" if lowers else "kill", target=checked, tenant=tenant)
        if to is found.posture:
            raise PostureConflictError(f"its posture is {to.value} already")
        if lowers and (person.user == found.posture_by or checked == f"user:{person.tenant}/{person.user}"):
            why = "raised it" if person.user == found.posture_by else "is its user"
            await self._admin.refuse(person, "lower", checked, why)
            raise NotPermittedError(f"lowering is for somebody else: this person {why}")
        return await self._set(found, to, reason, by=person.user, roles=person.roles)

    async def ratchet(self, scope: str, to: Posture, reason: str, *, by: str) -> ScopePostureSet | None:
        """Raise the posture of a scope without a person, for the machinery that watches; None when it is as high already.

        INVARIANT: nothing here lowers a posture.
        """
        checked = check_scope(scope)
        while True:
            found = await self._postures.get(checked)
            if _ORDER.index(to) <= _ORDER.index(found.posture):
                return None
            try:
                return await self._set(found, to, reason, by=by, roles=())
            except PostureConflictError:
                continue  # somebody was quicker; it only ever gets higher without a person, so this ends

    async def must_not_resume(self, scope: str) -> None:
        """Raise `PostureConflictError` when a scope is stopped by its posture, which is lowered and not resumed."""
        if (await self._postures.get(scope)).posture is Posture.HALTED:
            raise PostureConflictError("its posture is halted; lower the posture first, then resume")

    async def _set(self, found: ScopePosture, to: Posture, reason: str, *, by: str, roles: tuple[str, ...]) -> ScopePostureSet:
        body = PostureChanged(
            lineage_id="",
            scope=found.scope,
            previous=found.posture.value,
            posture=to.value,
            reason=reason,
            by=by,
            roles=roles,
        )
        epoch = await self._postures.set(found, to, by=by, reason=reason, event=draft(body, ids=self._ids))
        if epoch is None:
            raise PostureConflictError("its posture has changed meanwhile; look again")
        return ScopePostureSet(scope=found.scope, previous=found.posture, posture=to, epoch=epoch)
