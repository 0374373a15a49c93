"""What of the record a person may see: their own, their tenant's with the role, everything for people who operate it all."""

from __future__ import annotations

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import RecordRead
from interlock.store.records import Records, chain_of

MAX_TARGET_CHARS = 500


class UnknownRecordError(Exception):
    """There is no such thing, as far as this person may know."""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on what is read: of one tenant (all when empty), of one user (all when empty)."""

    tenant: str
    user: str

    @property
    def own(self) -> bool:
        """Whether a person sees no more than what was done in their own name."""
        return bool(self.user)

    def covers(self, tenant: str, user: str) -> bool:
        """Whether something of this tenant and user may be seen."""
        return self.tenant in {"", tenant} and self.user in {"", user}


class Sights:
    """Who sees what, and the record of who has looked at what is not their own."""

    def __init__(self, admin: AdminGate, records: Records, ids: Ids) -> None:
        self._admin = admin
        self._records = records
        self._ids = ids

    async def of(self, person: Person, operation: str) -> Sight:
        """What a person sees by `operation`, a name in `release.yaml`'s `administration`; without its role, only their own."""
        administration = (await self._admin.release()).administration
        roles: tuple[str, ...] = getattr(administration, operation)
        if not set(roles) & set(person.roles):
            return Sight(tenant=person.tenant, user=person.user)
        return Sight(tenant="" if person.tenant in administration.operated_by else person.tenant, user="")

    async def note(self, person: Person, what: str, target: str) -> None:
        """Put on record, before anything is shown, that somebody reads what is not theirs. Raises `StoreUnavailableError`."""
        body = RecordRead(what=what, target=target[:MAX_TARGET_CHARS], by=person.user, roles=person.roles, tenant=person.tenant)
        await self._records.append(chain_of("reads", person.tenant), [draft(body, ids=self._ids)])
