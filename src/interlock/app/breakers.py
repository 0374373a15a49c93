"""Breakers beyond one process: told to the others, put on record, shown to people."""

from __future__ import annotations

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.gateway.breaking import Counts
from interlock.gateway.stability import Stability
from interlock.ledger.drafts import draft
from interlock.ledger.events import BreakerChanged
from interlock.store.breakers import BreakerRow, BreakerRows, Counted
from interlock.store.controls import Controls


class BreakersView(msgspec.Struct, frozen=True, kw_only=True):
    """What each process has counted lately, a second old; operations that nobody called are not there."""

    environment: str
    breakers: tuple[BreakerRow, ...]


class BreakerKeeper:
    """Tells the others once a second what this process has counted, learns theirs, and puts on record what opened or closed.

    Calls never wait for it. Without the database each process goes by its own counts.
    """

    def __init__(
        self, *, stability: Stability, rows: BreakerRows, controls: Controls, environment: str, process_id: str, ids: Ids
    ) -> None:
        self._stability = stability
        self._rows = rows
        self._controls = controls
        self._environment = environment
        self._process_id = process_id
        self._ids = ids

    async def tend(self) -> None:
        """Tell, learn, record. Raises `StoreUnavailableError`; what could not be recorded is recorded later."""
        told = [
            Counted(
                operation=item.operation,
                calls=item.counts.calls,
                failed=item.counts.failed,
                phase=item.phase.value,
                waits_ms=item.waits_ms,
            )
            for item in self._stability.told()
        ]
        others = await self._rows.tell(self._process_id, told)
        self._stability.learn({item.operation: Counts(item.calls, item.failed) for item in others})
        await self._record()

    async def forget(self) -> None:
        """Forget rows of processes that are gone."""
        await self._rows.forget()

    async def _record(self) -> None:
        changes = self._stability.take_changes()
        while changes:
            change = changes[0]
            body = BreakerChanged(
                operation=change.operation,
                environment=self._environment,
                process_id=self._process_id,
                open=change.open,
                calls=change.own.calls,
                failed=change.own.failed,
                others_calls=change.others.calls,
                others_failed=change.others.failed,
                opens_for_ms=change.opens_for_ms,
            )
            try:
                await self._controls.append(draft(body, ids=self._ids))
            except BaseException:
                self._stability.give_back(changes)
                raise
            changes = changes[1:]


class PeoplesBreakers:
    """The breakers of the plane."""

    def __init__(self, rows: BreakerRows, admin: AdminGate, *, environment: str) -> None:
        self._rows = rows
        self._admin = admin
        self._environment = environment

    async def view(self, person: Person) -> BreakersView:
        """How tools do, in every process; for the roles of `status`. Raises `NotPermittedError`."""
        await self._admin.permit(person, "status")
        return BreakersView(environment=self._environment, breakers=await self._rows.all())
