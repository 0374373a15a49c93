"""Tools as people see them: contracts, pins, health, use; and accepting one that changed upstream."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.app.upstream_watch import UpstreamWatch, kinds_of
from interlock.core.ports import Ids
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import ToolAccepted
from interlock.release.model import Release
from interlock.release.ownership import owners_of, teams_of
from interlock.release.review.changes import SEVERAL, UNREADABLE, Change, differences
from interlock.release.review.scan import Severity
from interlock.store.tools import Health, Quarantined, ToolRecords, Use
from interlock.tools.port import ToolUnavailableError

NEVER_USED: Final = Use(operation="", calls=0, failed=0, in_doubt=0, last_at_us=0)


class UnknownOperationError(Exception):
    """There is no such operation in the release in force, or it is not quarantined."""


class ToolConflictError(Exception):
    """What is listed now is not what was looked at; nothing was changed."""


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: its contract in short, its use in a week; `pin` is `pinned`, `unpinned`, `quarantined` or `vanished`."""

    operation: str
    tool: str
    effects: tuple[str, ...]
    targets: tuple[str, ...]
    internal: bool
    reviewed_by: str
    reviewed_digest: str
    pin: str
    quarantine: Quarantined | None
    calls: int
    failed: int
    in_doubt: int
    last_at_us: int


class ToolsView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about the tools of this environment."""

    environment: str
    release: str
    operations: tuple[OperationView, ...]
    servers: tuple[Health, ...]


class Tools:
    """The tools of the plane."""

    def __init__(self, *, records: ToolRecords, watch: UpstreamWatch, admin: AdminGate, ids: Ids) -> None:
        self._records = records
        self._watch = watch
        self._admin = admin
        self._ids = ids

    async def view(self, person: Person) -> ToolsView:
        """The tools of the release in force; use is that of the person's tenant, or of all for an operating tenant."""
        release = await self._admin.permit(person, "status", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        use = await self._records.use(tenant=tenant)
        held = {item.operation: item for item in await self._records.quarantined()}
        servers = await self._records.health()
        vanished = {name for server in servers for name in server.vanished}
        operations = []
        for name, contract in sorted(release.contracts.items()):
            used = use.get(name, NEVER_USED)
            pin = "pinned" if contract.reviewed_digest else "unpinned"
            pin = "quarantined" if name in held else "vanished" if name in vanished else pin
            operations.append(
                OperationView(
                    operation=name,
                    tool=contract.tool,
                    effects=tuple(sorted(contract.effects)),
                    targets=contract.targets,
                    internal=contract.internal,
                    reviewed_by=contract.reviewed_by,
                    reviewed_digest=contract.reviewed_digest,
                    pin=pin,
                    quarantine=held.get(name),
                    calls=used.calls,
                    failed=used.failed,
                    in_doubt=used.in_doubt,
                    last_at_us=used.last_at_us,
                )
            )
        return ToolsView(
            environment=self._records.environment, release=release.digest, operations=tuple(operations), servers=servers
        )

    async def accept(
        self, person: Person, operation: str, pin: str, reason: str, *, despite_findings: bool = False
    ) -> Quarantined:
        """Let a quarantined operation run again as it was looked at: by somebody of the team that owns its contract.

        `pin` is the digest of the listing that the person looked at; when upstream lists another by now, nothing is changed.
        What looks severely suspicious in it must be acknowledged (`despite_findings`), and that is on record.

        Raises:
            NotPermittedError: on record. UnknownOperationError, ToolConflictError: nothing was changed.
        """
        release = await self._admin.permit(person, "review", target=operation)
        await self._owns(person, release, operation)
        held = next((item for item in await self._records.quarantined() if item.operation == operation), None)
        if held is None:
            raise UnknownOperationError(f"{operation} is not quarantined")
        if held.pin.startswith(SEVERAL) or held.pin == UNREADABLE:
            raise ToolConflictError(f"{held.detail}, so it cannot be told what would run; its server has to change that first")
        if held.pin != pin or not await self._is_listed(release, operation, pin):
            raise ToolConflictError("it has changed again since it was looked at; look at it anew")
        suspicious = tuple(item for item in held.findings if item.startswith(Severity.HIGH.value))
        if suspicious and not despite_findings:
            raise ToolConflictError(f"it looks suspicious ({'; '.join(suspicious)}); say that you accept it despite that")
        body = ToolAccepted(
            operation=operation,
            environment=self._records.environment,
            pin=pin,
            by=person.user,
            roles=person.roles,
            reason=reason,
            despite=suspicious,
        )
        if not await self._records.accept(operation, pin=pin, by=person.user, reason=reason, event=draft(body, ids=self._ids)):
            raise ToolConflictError("somebody else was quicker, or it has changed again; look at it anew")
        await self._watch.refresh()
        return held

    async def _owns(self, person: Person, release: Release, operation: str) -> None:
        contract = release.contracts.get(operation)
        if contract is None:
            raise UnknownOperationError(f"there is no operation {operation} in the release in force")
        owners = owners_of(f"tools/{contract.tool}.yaml", release.owners)
        if not owners & teams_of(person.roles, release.administration.teams):
            whose = ", ".join(sorted(owners)) or "nobody: release.yaml names no owner"
            await self._admin.refuse(person, "review", operation, f"owned by {whose}")
            raise NotPermittedError(f"accepting {operation} is for people of the team that owns it ({whose})")

    async def _is_listed(self, release: Release, operation: str, pin: str) -> bool:
        contract = release.contracts[operation]
        try:
            listing = await self._watch.listed(contract.tool, kinds_of([contract]))
        except ToolUnavailableError as error:
            raise ToolConflictError(f"the server cannot be asked what it lists now: {error}") from error
        found = differences([contract], listing or ())
        now = next((item for item in found if item.operation == operation and item.state is not Change.NEW), None)
        return (contract.reviewed_digest if now is None else now.pin) == pin
