"""Approvals as rows: asked for, answered once, used once (by the claim, see `commit_requests`)."""

from __future__ import annotations

from typing import Final

import asyncpg

from interlock.core.approval import Approval, ApprovalRequest, ApprovalState, Requested
from interlock.core.event import EventDraft
from interlock.store.database import Database

MAX_EXPIRED_AT_ONCE: Final = 100


class Approvals:
    """Reads and writes approvals. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(self, request: ApprovalRequest, event: EventDraft, *, most_open: int) -> Requested | None:
        """Ask, or find the same question open. None when the session has ended or too many of its lineage are open."""
        row = await self._database.row(
            "request_approval",
            request.approval_id,
            request.session_id,
            request.lineage_id,
            request.call_id,
            request.operation,
            request.call_hash,
            request.release_digest,
            request.rule,
            request.role,
            list(request.policy_ids),
            request.arguments,
            list(request.show),
            request.evidence,
            request.say,
            request.holds_s,
            most_open,
            request.evidence_digest,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        if row is None or not row["approval_id"]:
            return None
        return Requested(
            approval_id=row["approval_id"],
            rule=request.rule,
            role=request.role,
            show=request.show,
            expires_at_us=row["expires_at_us"],
        )

    async def for_call(self, lineage_id: str, call_hash: str, release_digest: str) -> tuple[Approval, ...]:
        """What people have said about this very call under this release, newest first: approved, denied or used."""
        return tuple(
            _approval(row) for row in await self._database.rows("approvals_for_call", lineage_id, call_hash, release_digest)
        )

    async def states(self, approval_ids: list[str]) -> dict[str, ApprovalState]:
        """Where these requests stand now."""
        rows = await self._database.rows("approval_states", approval_ids)
        return {row["approval_id"]: ApprovalState(row["state"]) for row in rows}

    async def get(self, approval_id: str) -> Approval | None:
        """One request, or None."""
        row = await self._database.row("approval", approval_id)
        return None if row is None else _approval(row)

    async def listed(
        self, *, tenant: str, state: str, roles: tuple[str, ...], user: str, everything: bool, before_us: int, limit: int
    ) -> tuple[Approval, ...]:
        """Requests of a tenant (all when empty), newest first: those these roles may answer, the user's own, or everything."""
        rows = await self._database.rows("approvals", tenant, state, list(roles), user, everything, before_us, limit)
        return tuple(_approval(row) for row in rows)

    async def answer(
        self,
        approval_id: str,
        to: ApprovalState,
        *,
        tenant: str,
        user: str,
        roles: tuple[str, ...],
        note: str,
        event: EventDraft,
    ) -> str:
        """Approve, deny or withdraw; gives `done`, or the reason why not (see `answer_approval`)."""
        row = await self._database.row(
            "answer_approval",
            approval_id,
            to.value,
            tenant,
            user,
            list(roles),
            note,
            event.kind,
            event.body,
            event.salt,
            event.commitment,
        )
        return "unknown" if row is None else str(row[0])

    async def expire(self) -> int:
        """End what nobody answered or used in time, each on record in its session's chain; gives how many."""
        row = await self._database.row("expire_approvals", MAX_EXPIRED_AT_ONCE)
        return 0 if row is None else int(row[0])

    async def tell_person(self, tenant: str, user: str, roles: tuple[str, ...], told_at_us: int) -> None:
        """Keep what a person's token says of them, unless a newer one has spoken."""
        await self._database.rows("tell_person", tenant, user, list(roles), told_at_us)


def _approval(row: asyncpg.Record) -> Approval:
    known = {name: row[name] for name in Approval.__struct_fields__ if name not in {"state", "policy_ids", "show", "user"}}
    return Approval(
        **known,
        user=row["user_id"],
        state=ApprovalState(row["state"]),
        policy_ids=tuple(row["policy_ids"]),
        show=tuple(row["show"]),
    )
