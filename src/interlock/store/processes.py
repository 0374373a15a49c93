"""Processes that hold claims: who is alive, whose claims are orphaned, and what became of a claim somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from interlock.core.event import EventDraft
from interlock.core.ports import Clock
from interlock.store.database import Database
from interlock.store.errors import StoreUnavailableError

MAX_ORPHANS_AT_ONCE: Final = 200
MAX_FORGOTTEN_AT_ONCE: Final = 10_000
POLL_FIRST_MS: Final = 5
POLL_MOST_MS: Final = 100


class LiveProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process seen within the last ten seconds, and the release epoch it decides by."""

    process_id: str
    environment: str
    release_epoch: int


class Processes:
    """The registry of processes. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, process_id: str, environment: str) -> None:
        """Announce a process before it claims anything."""
        await self._database.rows("register_process", process_id, environment)

    async def heartbeat(self, process_id: str, release_epoch: int) -> None:
        """Say that the process is alive and which release epoch it decides by."""
        await self._database.rows("heartbeat", process_id, release_epoch)

    async def leave(self, process_id: str) -> None:
        """Say goodbye; claims that are still open become orphans at once."""
        await self._database.rows("leave", process_id)

    async def live(self) -> tuple[LiveProcess, ...]:
        """Who is alive."""
        return tuple(
            LiveProcess(process_id=row["process_id"], environment=row["environment"], release_epoch=row["release_epoch"])
            for row in await self._database.rows("live_processes")
        )

    async def orphan(self, event: EventDraft) -> tuple[str, ...]:
        """Put claims in doubt whose process is gone or whose time is over; gives their call ids."""
        rows = await self._database.rows(
            "orphan_claims", MAX_ORPHANS_AT_ONCE, event.kind, event.body, event.salt, event.commitment
        )
        return tuple(row["call_id"] for row in rows)

    async def forget_outcomes(self) -> int:
        """Forget raw outcomes that no repeated call can ask for any more; gives how many."""
        row = await self._database.row("forget_outcomes", MAX_FORGOTTEN_AT_ONCE)
        return 0 if row is None else int(row[0])


class ClaimWatch:
    """Waits for claims of any process to be settled: one statement asks for all that are waited for."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[str, list[asyncio.Future[bool]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, claim_id: str, timeout_ms: int) -> bool:
        """True once the claim is no longer `claimed`; False when its owner is gone or the time is up."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(claim_id, []).append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="claim-watch")
        try:
            return await asyncio.wait_for(future, timeout_ms / 1000)
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting.get(claim_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(claim_id, None)

    async def committed(self, claim_ids: Sequence[str]) -> tuple[str, ...]:
        """Which of these claims are there, in whatever state. Raises `StoreUnavailableError`."""
        return tuple(row["claim_id"] for row in await self._database.rows("claim_states", list(claim_ids)))

    async def is_known(self, key: bytes, window_s: int) -> bool:
        """Whether a claim with this key is unsettled, or younger than the window. Raises `StoreUnavailableError`."""
        return await self._database.row("known_key", key, window_s) is not None

    async def close(self) -> None:
        """Stop watching; whoever still waits is told that nothing is known."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in self._waiting.values():
            _tell(waiting, answer=False)

    async def _watch(self) -> None:
        pause_ms = POLL_FIRST_MS
        while self._waiting:
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(POLL_MOST_MS, pause_ms * 2)
            # Whoever begins to wait while the question is under way is not answered by it.
            asked = list(self._waiting)
            try:
                rows = await self._database.rows("claim_states", asked)
            except StoreUnavailableError:
                continue  # whoever waits runs into its own timeout, which is the cautious answer
            known = {row["claim_id"] for row in rows}
            for row in rows:
                if row["state"] != "claimed":
                    _tell(self._waiting.get(row["claim_id"], ()), answer=True)
                    pause_ms = POLL_FIRST_MS
                elif not row["owner_alive"]:
                    _tell(self._waiting.get(row["claim_id"], ()), answer=False)
            for claim_id in set(asked) - known:
                _tell(self._waiting.get(claim_id, ()), answer=False)


def _tell(waiting: Sequence[asyncio.Future[bool]], *, answer: bool) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(answer)
