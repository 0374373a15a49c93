"""Calls in doubt as people see them, and their answer when nothing else can tell."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.core.claim import NotSettled
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.gateway.ports import ClaimDesk
from interlock.gateway.reconciling import settlement
from interlock.ledger.events import DoubtResolved
from interlock.store.doubts import Doubt, Doubts

MAX_LISTED: Final = 200


class UnknownDoubtError(Exception):
    """No call of this name is in doubt, as far as this person may know."""


class DoubtConflictError(Exception):
    """It is not in doubt any more; look again."""


class DoubtView(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose end is not known, or was told in two ways (`conflict`). Times are microseconds since the epoch.

    `asks_people` says why a person is needed; empty while machinery looks, or while it `awaits` the answers to what its tool
    asked. `if_done` and `if_not_done` are what follows.
    """

    call_id: str
    claim_id: str
    operation: str
    arguments: Any
    tenant: str
    agent: str
    user: str
    session_id: str
    state: str
    attempt: int
    claimed_at_us: int
    since_us: int
    asks_people: str
    conflict: str
    if_done: str
    if_not_done: str
    awaits: bool = False


class DoubtSettled(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said became of a call."""

    call_id: str
    claim_id: str
    state: str


class PeoplesDoubts:
    """The doubts of the plane. Looking is for the roles of `status`, answering for those of `settle`."""

    def __init__(self, doubts: Doubts, desk: ClaimDesk, admin: AdminGate, ids: Ids) -> None:
        self._doubts = doubts
        self._desk = desk
        self._admin = admin
        self._ids = ids

    async def list(self, person: Person, *, limit: int = 50) -> tuple[DoubtView, ...]:
        """The newest first, of the person's tenant or, for an operating one, of all. Raises `NotPermittedError`."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        return tuple(_view(item) for item in await self._doubts.listed(tenant=tenant, limit=min(limit, MAX_LISTED)))

    async def show(self, person: Person, name: str) -> DoubtView:
        """One, by its call or claim. Raises `NotPermittedError`, `UnknownDoubtError`."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        return _view(await self._find(person, name, operates=person.tenant in release.administration.operated_by))

    async def settle(self, person: Person, name: str, *, done: bool, reason: str) -> DoubtSettled:
        """Say what became of a call in doubt: never in a person's own name.

        Not done frees the call to be made again and gives back what it reserved; done answers every repeated call so.

        Raises:
            NotPermittedError, UnknownDoubtError, DoubtConflictError: nothing was changed.
        """
        release = await self._admin.permit(person, "settle", target=name, tenant=person.tenant)
        doubt = await self._find(person, name, operates=person.tenant in release.administration.operated_by)
        if (doubt.user_id, doubt.tenant) == (person.user, person.tenant):
            await self._admin.refuse(person, "settle", doubt.call_id, "is the user it was done for")
            raise NotPermittedError("what became of a call is said by somebody else than the user it was made for")
        state = "succeeded" if done else "failed"
        body = DoubtResolved(
            claim_id=doubt.claim_id,
            operation=doubt.operation,
            state=state,
            how="person",
            why=reason,
            by=person.user,
            roles=person.roles,
        )
        if doubt.state != "in_doubt" or isinstance(
            await self._desk.settle(settlement(doubt, body, nothing_happened=not done, ids=self._ids)), NotSettled
        ):
            raise DoubtConflictError("it is not in doubt any more; look again")
        return DoubtSettled(call_id=doubt.call_id, claim_id=doubt.claim_id, state=state)

    async def _find(self, person: Person, name: str, *, operates: bool) -> Doubt:
        found = await self._doubts.listed(tenant="" if operates else person.tenant, name=name, limit=1) if name else ()
        if not found:
            raise UnknownDoubtError("no call of this name is in doubt")
        return found[0]


def _view(doubt: Doubt) -> DoubtView:
    try:
        arguments = msgspec.json.decode(doubt.proposed or "{}", type=dict[str, Any]).get("arguments")
    except msgspec.MsgspecError:
        arguments = None
    repeated = "a repeated call is answered with that, and not run" if doubt.keyed else "a repeated call is a call of its own"
    again = "the same call may be made again" if doubt.keyed else "nothing is waiting for it"
    return DoubtView(
        call_id=doubt.call_id,
        claim_id=doubt.claim_id,
        operation=doubt.operation,
        arguments=arguments,
        tenant=doubt.tenant,
        agent=doubt.agent,
        user=doubt.user_id,
        session_id=doubt.session_id,
        state=doubt.state,
        attempt=doubt.attempt,
        claimed_at_us=doubt.claimed_at_us,
        since_us=doubt.since_us,
        asks_people=doubt.asks_people,
        conflict=doubt.conflict,
        if_done=f"what it reserved of budgets is spent; {repeated}",
        if_not_done=f"what it reserved of budgets is given back; {again}",
        awaits=doubt.awaits,
    )
