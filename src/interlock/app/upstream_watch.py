"""Is upstream still what was reviewed? Each process asks the servers of the release in force, and stops what has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from interlock.app.upstream_listening import UpstreamListening
from interlock.core.changes import Changed, Listing
from interlock.core.contract import Contract, Kind
from interlock.core.listing import ListedTool
from interlock.core.ports import Ids
from interlock.gateway.gate import Gate
from interlock.gateway.governed import Governing
from interlock.ledger.drafts import draft
from interlock.ledger.events import ToolAccepted, ToolQuarantined
from interlock.release.model import Release
from interlock.release.review.changes import Change, Difference, differences
from interlock.release.review.scan import Severity, plain, scan, tools_in
from interlock.store.controls import Controls
from interlock.store.errors import StoreError
from interlock.store.tools import ToolRecords
from interlock.tools.directory import Connectors
from interlock.tools.port import ToolUnavailableError

_log = logging.getLogger(__name__)

WATCH_S: Final = 60.0
FIRST_LOOK_S: Final = 5.0
MAX_ASKED_AT_ONCE: Final = 4
MAX_DETAIL_CHARS: Final = 4_000
MAX_NAMES: Final = 200
MAX_CHANGES_TOLD: Final = 20
MAX_FINDINGS: Final = 20


class UpstreamWatch:
    """Compares listings with reviews. What cannot be listed stays as it is: a contract pins it, and the call shows the rest.

    INVARIANT: nothing here ever lets an operation run that a person has not accepted, by its digest, here or in a release.
    """

    def __init__(
        self,
        *,
        records: ToolRecords,
        controls: Controls,
        governing: Governing,
        connectors: Connectors,
        gate: Gate,
        ids: Ids,
        process_id: str,
    ) -> None:
        self._records = records
        self._controls = controls
        self._governing = governing
        self._connectors = connectors
        self._ids = ids
        self._process_id = process_id
        self._places = asyncio.Semaphore(MAX_ASKED_AT_ONCE)
        self._gate = gate
        self._looked_at = 0
        self._followed = 0
        self.listening = UpstreamListening(connectors, gate.changes, self.look_at)

    async def tend(self) -> None:
        """Learn what is quarantined; and look at once when another release is in force than when we looked last."""
        await self.refresh()
        epochs, digest = await self._controls.epochs()
        if epochs.release != self._looked_at:
            await self.look()
        if digest and epochs.release != self._followed:
            self._followed = epochs.release
            self.listening.follow((await self._governing.in_force(digest, epochs.release)).release)

    async def refresh(self) -> None:
        """Learn what is quarantined, so that listings do not show it. Calls are refused by the claim, whatever this knows."""
        before = self._gate.quarantined
        self._gate.quarantined = frozenset(item.operation for item in await self._records.quarantined())
        if before != self._gate.quarantined:
            for listing in Listing:
                self._gate.changes.tell(Changed(listing=listing))

    async def first_look(self) -> None:
        """Look once before serving, for as long as that is bearable; a slow server is looked at again later."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()
        except TimeoutError:
            _log.warning(
                "not every server has said yet what it lists; they are asked again", extra={"event": "tools.not_listed"}
            )

    async def look(self) -> None:
        """Ask every server of the release in force. Raises `StoreError` when what was seen could not be recorded."""
        epochs, digest = await self._controls.epochs()
        if not digest:
            return
        release = (await self._governing.in_force(digest, epochs.release)).release
        accepted = await self._records.accepted()
        async with asyncio.TaskGroup() as group:
            for tool in release.tools:
                if any(contract.tool == tool for contract in release.contracts.values()):
                    group.create_task(self._look_at(release, tool, accepted))
        self._looked_at = epochs.release  # not before: what was not looked at, or not to the end, is looked at again at once
        await self.refresh()

    async def look_at(self, tool: str) -> None:
        """Ask one server of the release in force. Raises `StoreError` when what was seen could not be recorded."""
        epochs, digest = await self._controls.epochs()
        release = (await self._governing.in_force(digest, epochs.release)).release if digest else None
        if release is not None and tool in release.tools:
            await self._look_at(release, tool, await self._records.accepted())
            await self.refresh()

    async def listed(self, tool: str, kinds: frozenset[Kind]) -> tuple[ListedTool, ...] | None:
        """What a server lists now of these kinds; None for a tool that lists nothing (functions in process, no source here).

        Raises:
            ToolUnavailableError: it cannot be asked.
        """
        connector = self._connectors.get(tool)
        if connector is None or not self._connectors.is_remote(tool):
            return None
        async with self._places:
            return await connector.list_tools(kinds)

    async def _look_at(self, release: Release, tool: str, accepted: frozenset[tuple[str, str, str]]) -> None:
        contracts = [contract for contract in release.contracts.values() if contract.tool == tool]
        try:
            listing = await self.listed(tool, kinds_of(contracts))
        except ToolUnavailableError as error:
            await self._records.note(tool, error=plain(str(error), 500))
            return
        except StoreError:
            raise
        except Exception:  # noqa: BLE001  # one odd server must not keep the others from being looked at
            _log.exception("a server could not be asked what it lists", extra={"event": "tools.not_listed", "tool": tool})
            await self._records.note(tool, error="an unexpected error; look into the log")
            return
        if listing is None:
            return
        found = await asyncio.to_thread(differences, contracts, listing)
        by_state = {state: [item.operation for item in found if item.state is state][:MAX_NAMES] for state in Change}
        await self._records.note(
            tool,
            vanished=by_state[Change.VANISHED],
            unpinned=by_state[Change.UNPINNED],
            new=by_state[Change.NEW],
        )
        for item in found:
            reviewed = "" if item.state is not Change.CHANGED else release.contracts[item.operation].reviewed_digest
            if item.state is Change.CHANGED and (item.operation, reviewed, item.pin) not in accepted:
                await self._quarantine(release, item, reviewed, listing)
        await self._note_what_else_is_listed(contracts, found)
        unchanged = {contract.operation: contract.reviewed_digest for contract in contracts} | dict.fromkeys(
            (item.operation for item in found), ""
        )
        await self._lift_what_a_release_has_reviewed(release, {name: pin for name, pin in unchanged.items() if pin})

    async def _note_what_else_is_listed(self, contracts: list[Contract], found: tuple[Difference, ...]) -> None:
        """Quarantined operations that are listed as reviewed, or as accepted, again: still quarantined, and for that now.

        Otherwise a server that changes and changes back could be accepted by nobody.
        """
        differs = {item.operation: item for item in found}
        for held in await self._records.quarantined():
            contract = next((contract for contract in contracts if contract.operation == held.operation), None)
            item = differs.get(held.operation)
            if contract is None or (item is not None and item.state is not Change.CHANGED):
                continue
            now = contract.reviewed_digest if item is None else item.pin
            if now in {"", held.pin}:
                continue
            again = "as it was reviewed" if item is None else "as it was accepted before"
            await self._record(held.operation, reviewed=held.reviewed, pin=now, detail=f"it is listed {again}", findings=())

    async def _quarantine(self, release: Release, item: Difference, reviewed: str, listing: tuple[ListedTool, ...]) -> None:
        findings = await asyncio.to_thread(suspicions, release.contracts[item.operation], release, listing)
        detail = item.detail[:MAX_DETAIL_CHARS]
        if await self._record(item.operation, reviewed=reviewed, pin=item.pin, detail=detail, findings=findings):
            about = {"event": "tool.quarantined", "operation": item.operation}
            _log.warning("quarantined, for it changed upstream: %s", item.operation, extra=about)

    async def _record(self, operation: str, *, reviewed: str, pin: str, detail: str, findings: tuple[str, ...]) -> bool:
        body = ToolQuarantined(
            operation=operation,
            environment=self._records.environment,
            reviewed=reviewed,
            pin=pin,
            detail=detail,
            noticed_by=self._process_id,
            findings=findings,
        )
        event = draft(body, ids=self._ids)
        return await self._records.quarantine(
            operation, reviewed=reviewed, pin=pin, detail=detail, findings=findings, most_told=MAX_CHANGES_TOLD, event=event
        )

    async def _lift_what_a_release_has_reviewed(self, release: Release, reviewed: dict[str, str]) -> None:
        """People have put a release in force that was reviewed with this very listing: that is an acceptance."""
        for held in await self._records.quarantined():
            if reviewed.get(held.operation) == held.pin != held.reviewed:
                reason = f"reviewed in the release in force, {release.name} {release.digest}"
                body = ToolAccepted(
                    operation=held.operation,
                    environment=self._records.environment,
                    pin=held.pin,
                    by=f"release {release.name}",
                    roles=(),
                    reason=reason,
                )
                await self._records.accept(
                    held.operation, pin=held.pin, by=body.by, reason=reason, event=draft(body, ids=self._ids)
                )


def kinds_of(contracts: Iterable[Contract]) -> frozenset[Kind]:
    """What a server is asked to list: its tools, and what else somebody has reviewed of it."""
    return frozenset({Kind.TOOL}) | {contract.kind for contract in contracts}


def suspicions(contract: Contract, release: Release, listing: tuple[ListedTool, ...]) -> tuple[str, ...]:
    """What the scanner finds in an operation as it is listed now, one line each; the severe ones begin with `high`."""
    others = tools_in(listing)
    others |= {
        other.upstream_name for other in release.contracts.values() if other.tool != contract.tool and other.kind is Kind.TOOL
    }
    try:
        found = [
            f"{finding.severity.value} {finding.code} in {finding.place}: {finding.excerpt}"
            for tool in listing
            if (tool.kind, tool.name) == (contract.kind, contract.upstream_name)
            for finding in scan(contract.operation, tool, others)
        ]
    except Exception as error:  # noqa: BLE001  # a server may list what breaks every reader
        found = [f"{Severity.HIGH.value} unreadable: {type(error).__name__}"]
    return tuple(found[:MAX_FINDINGS])
