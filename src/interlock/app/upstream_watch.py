"""Is upstream still what was reviewed? Each process asks the servers of the release in force, and stops what has changed."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from interlock.core.listing import ListedTool
from interlock.core.ports import Ids
from interlock.gateway.gate import Gate
from interlock.gateway.governed import Governing
from interlock.ledger.drafts import draft
from interlock.ledger.events import ToolAccepted, ToolQuarantined
from interlock.release.model import Release
from interlock.release.review.changes import Change, Difference, differences
from interlock.release.review.scan import plain
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

    async def refresh(self) -> None:
        """Learn what is quarantined, so that listings do not show it. Calls are refused by the claim, whatever this knows."""
        self._gate.quarantined = frozenset(item.operation for item in await self._records.quarantined())

    async def first_look(self) -> None:
        """Look once before serving, for as long as that is bearable; a slow server is looked at again later."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()
        except TimeoutError:
            _log.warning("not every server has said yet what it lists; they are asked again")

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
        await self.refresh()

    async def listed(self, tool: str) -> tuple[ListedTool, ...] | None:
        """What a server lists now; None for a tool that lists nothing (functions in process, no source here).

        Raises:
            ToolUnavailableError: it cannot be asked.
        """
        connector = self._connectors.get(tool)
        if connector is None or not self._connectors.is_remote(tool):
            return None
        async with self._places:
            return await connector.list_tools()

    async def _look_at(self, release: Release, tool: str, accepted: frozenset[tuple[str, str, str]]) -> None:
        try:
            listing = await self.listed(tool)
        except ToolUnavailableError as error:
            await self._records.note(tool, error=plain(str(error), 500))
            return
        except StoreError:
            raise
        except Exception:  # noqa: BLE001  # one odd server must not keep the others from being looked at
            _log.exception("a server could not be asked what it lists: %s", tool)
            await self._records.note(tool, error="an unexpected error; look into the log")
            return
        if listing is None:
            return
        contracts = [contract for contract in release.contracts.values() if contract.tool == tool]
        found = differences(contracts, listing)
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
                await self._quarantine(item, reviewed)
        unchanged = {contract.operation: contract.reviewed_digest for contract in contracts} | dict.fromkeys(
            (item.operation for item in found), ""
        )
        await self._lift_what_a_release_has_reviewed(release, {name: pin for name, pin in unchanged.items() if pin})

    async def _quarantine(self, item: Difference, reviewed: str) -> None:
        body = ToolQuarantined(
            operation=item.operation,
            environment=self._records.environment,
            reviewed=reviewed,
            pin=item.pin,
            detail=item.detail[:MAX_DETAIL_CHARS],
            noticed_by=self._process_id,
        )
        if await self._records.quarantine(
            item.operation,
            reviewed=reviewed,
            pin=item.pin,
            detail=item.detail[:MAX_DETAIL_CHARS],
            event=draft(body, ids=self._ids),
        ):
            _log.warning("quarantined, for it changed upstream: %s", item.operation)

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
