"""Approvals as people handle them: listed, looked at, answered, withdrawn. What they were given for is the claim's to check."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.approvals.errors import UnknownApprovalError, refused
from interlock.approvals.view import ApprovalView, view
from interlock.core.approval import Approval, ApprovalState
from interlock.core.ports import Clock, Ids
from interlock.core.who import Person, Session
from interlock.ledger.drafts import draft
from interlock.ledger.events import ApprovalAnswered
from interlock.store.approvals import Approvals

MAX_NOTE_CHARS: Final = 500
MAX_LISTED: Final = 200
MAX_WAIT_MS: Final = 60_000
POLL_MS: Final = 250
MAX_WAITING: Final = 512
MAX_WAITING_EACH: Final = 8
_FOREVER_US: Final = 2**62


class PeoplesApprovals:
    """The approvals of the plane. A person's right to answer is checked in the transaction that records the answer."""

    def __init__(self, approvals: Approvals, admin: AdminGate, *, clock: Clock, ids: Ids) -> None:
        self._approvals = approvals
        self._admin = admin
        self._clock = clock
        self._ids = ids
        self._waiting: Counter[str] = Counter()

    async def list(
        self, person: Person, *, state: str = "open", before_us: int = _FOREVER_US, limit: int = 50
    ) -> tuple[ApprovalView, ...]:
        """Requests, newest first: all of the tenant for those who may see them, else those the person may answer or asked.

        `state` is one of `ApprovalState`, empty for every state; `before_us` goes on after the last one seen.
        """
        administration = (await self._admin.release()).administration
        everything = bool(set(administration.approvals) & set(person.roles))
        tenant = "" if everything and person.tenant in administration.operated_by else person.tenant
        found = await self._approvals.listed(
            tenant=tenant,
            state=state,
            roles=person.roles,
            user=person.user,
            everything=everything,
            before_us=before_us,
            limit=min(limit, MAX_LISTED),
        )
        return tuple(view(item, person) for item in found)

    async def show(self, person: Person, approval_id: str) -> ApprovalView:
        """One request. Raises `UnknownApprovalError` for what the person may not see."""
        return view(await self._seen(person, approval_id), person)

    async def of_session(self, session: Session, approval_id: str, *, wait_ms: int = 0) -> ApprovalState:
        """Where a request stands, for the agent that asked; waits for an answer when told to. Raises `UnknownApprovalError`."""
        found = await self._approvals.get(approval_id)
        if found is None or found.lineage_id != session.lineage.id:
            raise UnknownApprovalError("there is no such request")
        return await self._answered(found, wait_ms, session.lineage.id)

    async def wait(self, person: Person, approval_id: str, wait_ms: int) -> ApprovalView:
        """One request, as soon as it is no longer open or the time is up."""
        await self._answered(await self._seen(person, approval_id), wait_ms, f"{person.tenant}/{person.user}")
        return await self.show(person, approval_id)

    async def answer(self, person: Person, approval_id: str, *, approve: bool, note: str = "") -> ApprovalView:
        """Approve or deny. Raises `ApprovalError`: nothing was changed, and that it was tried is on record."""
        return await self._change(person, approval_id, ApprovalState.APPROVED if approve else ApprovalState.DENIED, note)

    async def withdraw(self, person: Person, approval_id: str, *, note: str = "") -> ApprovalView:
        """Take back a request, or an approval that is not used yet: by the requester or somebody of the role."""
        return await self._change(person, approval_id, ApprovalState.WITHDRAWN, note)

    async def _change(self, person: Person, approval_id: str, to: ApprovalState, note: str) -> ApprovalView:
        seen = await self._seen(person, approval_id)
        noted = note.strip()[:MAX_NOTE_CHARS]
        await self._approvals.tell_person(person.tenant, person.user, person.roles, person.told_at_us)
        body = ApprovalAnswered(approval_id=approval_id, to=to.value, by=person.user, roles=person.roles, note=noted)
        result = await self._approvals.answer(
            approval_id,
            to,
            tenant=person.tenant,
            user=person.user,
            roles=person.roles,
            note=noted,
            event=draft(body, ids=self._ids, call_id=seen.call_id),
        )
        if result != "done":
            await self._admin.refuse(person, f"approval.{to.value}", approval_id, result)
            raise refused(result, seen.role)
        return await self.show(person, approval_id)

    async def _seen(self, person: Person, approval_id: str) -> Approval:
        found = await self._approvals.get(approval_id)
        if found is None:
            raise UnknownApprovalError("there is no such request")
        own = found.tenant == person.tenant and (found.user == person.user or found.role in person.roles)
        if not own:
            try:
                await self._admin.permit(person, "approvals", target=approval_id, tenant=found.tenant)
            except NotPermittedError as error:
                raise UnknownApprovalError("there is no such request") from error
        return found

    async def _answered(self, approval: Approval, wait_ms: int, who: str) -> ApprovalState:
        """Where a request stands; waited for only while not too many wait, so that waiting starves nobody of the database."""
        if self._waiting[who] >= MAX_WAITING_EACH or self._waiting.total() >= MAX_WAITING:
            return approval.state
        self._waiting[who] += 1
        try:
            return await self._no_longer_open(approval, wait_ms)
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]

    async def _no_longer_open(self, approval: Approval, wait_ms: int) -> ApprovalState:
        until_s = self._clock.monotonic_s() + min(wait_ms, MAX_WAIT_MS) / 1000
        state = approval.state
        while state is ApprovalState.OPEN and self._clock.monotonic_s() < until_s:
            await asyncio.sleep(POLL_MS / 1000)
            found = await self._approvals.get(approval.approval_id)
            state = ApprovalState.WITHDRAWN if found is None else found.state
        return state
