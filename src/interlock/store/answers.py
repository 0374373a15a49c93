"""Answers that are given once: what a request with an Idempotency-Key was first answered with."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from interlock.store.database import Database


class KeyState(StrEnum):
    """What is known of a key. `unknown`: begun, nobody works on it any more, and no answer was kept."""

    BEGUN = "begun"
    ANSWERED = "answered"
    REUSED = "reused"
    RUNNING = "running"
    UNKNOWN = "unknown"


class KeyOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key it is: keys of different people never meet."""

    tenant: str
    user: str
    key: str


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a key stands; `answer` is JSON text once there is one, `process_id` who began it."""

    state: KeyState
    answer: str | None
    process_id: str


class KeptAnswers:
    """Reads and writes kept answers. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, owner: KeyOwner, asked: bytes, *, process_id: str, window_s: int, longest_s: int) -> KeptAnswer:
        """Take a key for a request, whose digest is `asked` (32 bytes), or learn what became of it."""
        row = await self._database.row(
            "begin_answer", owner.tenant, owner.user, owner.key, asked, process_id, window_s, longest_s
        )
        if row is None:
            return KeptAnswer(state=KeyState.UNKNOWN, answer=None, process_id="")
        return KeptAnswer(state=KeyState(row["state"]), answer=row["answer"], process_id=row["process_id"])

    async def keep(self, owner: KeyOwner, answer: str) -> None:
        """Keep the first answer; one that is there stays."""
        await self._database.rows("keep_answer", owner.tenant, owner.user, owner.key, answer)

    async def give_back(self, owner: KeyOwner) -> None:
        """Free a key whose request changed nothing."""
        await self._database.rows("give_back_answer", owner.tenant, owner.user, owner.key)
