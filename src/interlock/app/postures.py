"""Postures as people handle them: anybody who may kill may raise one, and lowering it takes a second pair of eyes."""

from __future__ import annotations

from typing import Final, assert_never

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.core.ports import Ids
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import PostureChanged
from interlock.store.postures import LineageRow, Postures, SetPosture

MAX_LISTED: Final = 200
MAX_ROUNDS: Final = 5
_ORDER: Final = tuple(Posture)


class UnknownLineageError(Exception):
    """There is no such lineage, as far as this person may know."""


class PostureConflictError(Exception):
    """The posture has changed meanwhile, or is what was asked for."""


class PeoplesPostures:
    """The postures of the plane."""

    def __init__(self, postures: Postures, admin: AdminGate, ids: Ids) -> None:
        self._postures = postures
        self._admin = admin
        self._ids = ids

    async def worried(self, person: Person) -> tuple[LineageRow, ...]:
        """Lineages that are not `normal`: of the person's tenant, or of all for people of an operating tenant."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        return await self._postures.worried(tenant=tenant, limit=MAX_LISTED)

    async def set(self, person: Person, lineage_id: str, to: Posture, reason: str) -> LineageRow:
        """Raise or lower a posture.

        Raising needs `kill`. Lowering needs `lower`, and is never done by the lineage's own user nor by whoever raised it.

        Raises:
            NotPermittedError, UnknownLineageError, PostureConflictError: nothing was changed.
        """
        found = await self._postures.get(lineage_id)
        if found is None:
            await self._admin.permit(person, "lower", target=lineage_id, tenant=person.tenant)
            raise UnknownLineageError("there is no such lineage")
        lowers = _ORDER.index(to) < _ORDER.index(found.posture)
        await self._admin.permit(person, "lower" if lowers else "kill", target=lineage_id, tenant=found.tenant)
        if to is found.posture:
            raise PostureConflictError(f"its posture is {to.value} already")
        if lowers and person.tenant == found.tenant and person.user in {found.user, found.posture_by}:
            why = "is its user" if person.user == found.user else "raised it"
            await self._admin.refuse(person, "lower", lineage_id, why)
            raise NotPermittedError(f"lowering is for somebody else: this person {why}")
        match await self._set(person, found, to, reason):
            case SetPosture.ABOVE:
                raise PostureConflictError("an agent that it acts for is more worried than that; lower that one first")
            case SetPosture.CHANGED:
                raise PostureConflictError("its posture has changed meanwhile; look again")
            case SetPosture.SET:
                changed = await self._postures.get(lineage_id)
                return found if changed is None else changed
            case unreachable:
                assert_never(unreachable)

    async def _set(self, person: Person, found: LineageRow, to: Posture, reason: str) -> SetPosture:
        """INVARIANT: what acts for a lineage is at least as worried as it is, from the moment that it was raised."""
        became = SetPosture.CHANGED
        for _ in range(MAX_ROUNDS):
            raises = _ORDER.index(to) > _ORDER.index(found.posture)
            below = await self._postures.less_worried_below(found.lineage_id, to) if raises else ()
            body = PostureChanged(
                lineage_id=found.lineage_id,
                previous=found.posture.value,
                posture=to.value,
                reason=reason,
                by=person.user,
                roles=person.roles,
                below=below,
            )
            event = draft(body, ids=self._ids)
            became = await self._postures.set(found, to, by=person.user, reason=reason, raised=below, event=event)
            if became is not SetPosture.CHANGED or await self._postures.get(found.lineage_id) != found:
                break
        return became
