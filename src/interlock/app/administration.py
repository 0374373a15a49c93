"""The gate of the control plane's own operations: each has a principal, a role, a tenant it is about, and a record."""

from __future__ import annotations

from typing import NoReturn

from interlock.app.shelf import StoredReleases
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import ControlRefused
from interlock.release.model import Release
from interlock.store.controls import Controls


class NotPermittedError(Exception):
    """The person may not do this to the control plane."""


class AdminGate:
    """Every administrative operation passes `permit` first; there is no other way to one."""

    def __init__(self, controls: Controls, shelf: StoredReleases, ids: Ids) -> None:
        self._controls = controls
        self._shelf = shelf
        self._ids = ids

    async def permit(self, person: Person, operation: str, *, target: str = "", tenant: str = "") -> Release:
        """The release in force, if this person may do `operation`; a name of `release.yaml`'s `administration`.

        `tenant` is the tenant it is about, empty for the whole installation. People act on their own tenant; those of an
        operating tenant on everything.

        Raises:
            NotPermittedError: they may not; that they tried is on record.
        """
        release = await self.release()
        administration = release.administration
        roles: tuple[str, ...] = getattr(administration, operation)
        if not set(roles) & set(person.roles):
            needed = ", ".join(roles) or "nobody: release.yaml names no role"
            await self.refuse(person, operation, target, f"needs {needed}")
            raise NotPermittedError(f"{operation} is for {needed}")
        if person.tenant != tenant and person.tenant not in administration.operated_by:
            await self.refuse(person, operation, target, f"is of tenant {person.tenant}")
            whole = "another tenant" if tenant else "the whole installation"
            raise NotPermittedError(f"{operation} of {whole} is for people of the tenants in release.yaml's operated_by")
        return release

    async def may(self, person: Person, operation: str, *, tenant: str = "") -> bool:
        """Whether `permit` would let this person, for showing them what they can do. Nothing is recorded, nothing permitted."""
        administration = (await self.release()).administration
        roles: tuple[str, ...] = getattr(administration, operation)
        return bool(set(roles) & set(person.roles)) and (person.tenant == tenant or person.tenant in administration.operated_by)

    async def refuse(self, person: Person, operation: str, target: str, reason: str) -> None:
        """Put on record that somebody asked for what they may not do."""
        body = ControlRefused(operation=operation, target=target[:200], by=person.user, reason=reason, tenant=person.tenant)
        await self._controls.append(draft(body, ids=self._ids))

    async def refuse_agent(self, agent: str, operation: str, target: str, tenant: str) -> NoReturn:
        """Put on record that an agent asked for what it may not, and say so. Raises `NotPermittedError`."""
        body = ControlRefused(
            operation=operation, target=target[:200], by=agent, reason="is no enforcement point of this tenant", tenant=tenant
        )
        await self._controls.append(draft(body, ids=self._ids))
        raise NotPermittedError("this agent is not named for this tenant in release.yaml's enforcement_points")

    async def release(self) -> Release:
        """The release in force. Raises `UnknownReleaseError` when there is none."""
        _, digest = await self._controls.epochs()
        return await self._shelf.load(digest)
