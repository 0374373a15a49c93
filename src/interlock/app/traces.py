"""The record as people read it: calls found, one told as a story, many taken away by the audit team."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.sight import Sights, UnknownRecordError
from interlock.core.event import CONTROL_CHAIN
from interlock.core.ports import Clock
from interlock.core.who import Person, Session
from interlock.ledger.story import StoredEvent, tell
from interlock.store.records import chain_of
from interlock.store.sessions import Sessions
from interlock.store.traces import CallQuery, CallRow, EventRow, Traces

MAX_CALLS_LISTED: Final = 200
EXPORT_PAGE_CALLS: Final = 500
MAX_EVENTS_SHOWN: Final = 20_000


class TraceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One event, `told` as a line of the story. `body` is None for people who see only their own, and when forgotten."""

    seq: int
    at_us: int
    call_id: str
    kind: str
    tone: str
    told: str
    body: Any = None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a call, of a session, or of a chain of the control plane, in their order."""

    id: str
    chain_id: str
    lines: tuple[TraceLine, ...]


class CallStands(msgspec.Struct, frozen=True, kw_only=True):
    """Where one call stands; `outcome` as in lists of calls."""

    call_id: str
    session_id: str
    operation: str
    decision: str
    outcome: str
    code: str
    at_us: int


class PeoplesTraces:
    """The record of calls. Reading what is not one's own is itself on record, before anything is shown."""

    def __init__(self, traces: Traces, sessions: Sessions, sights: Sights, admin: AdminGate, clock: Clock) -> None:
        self._traces = traces
        self._sessions = sessions
        self._sights = sights
        self._admin = admin
        self._clock = clock

    async def search(
        self, person: Person, query: CallQuery, *, after: tuple[int, str] | None, limit: int
    ) -> tuple[CallRow, ...]:
        """Calls, newest first: the person's own, or with the role `traces` those of their tenant."""
        sight = await self._sights.of(person, "traces")
        if sight.own and query.user not in {"", person.user}:
            return ()
        limited = msgspec.structs.replace(query, tenant=sight.tenant, user=sight.user or query.user)
        if not sight.own:
            await self._sights.note(person, "list", _told(limited))
        return await self._traces.search(limited, after=after or (2**62, ""), limit=min(limit, MAX_CALLS_LISTED))

    async def show(self, person: Person, identifier: str) -> Trace:
        """The story of a call or session; of `control` and the like for people with the role `audit`.

        Raises:
            UnknownRecordError: there is none, or it is not for this person.
            NotPermittedError: a chain of the control plane is for others; that it was asked for is on record.
        """
        rows = await self._traces.events(identifier) if identifier else ()
        chains = {row.chain_id for row in rows}
        if identifier == CONTROL_CHAIN or any(":" in chain for chain in (identifier, *chains)):
            return await self._of_control_plane(person, identifier, rows)
        sight = await self._sights.of(person, "traces")
        found = await self._sessions.listed(session_id=rows[0].chain_id) if len(chains) == 1 else ()
        if not found or not sight.covers(found[0].tenant, found[0].user):
            raise UnknownRecordError("nothing is recorded under this id")
        if (person.tenant, person.user) != (found[0].tenant, found[0].user):
            await self._sights.note(person, "show", identifier)
        return _trace(identifier, rows, bodies=not sight.own)

    async def export(self, person: Person, query: CallQuery) -> AsyncIterator[CallRow]:
        """Every call of the person's tenant that matches, newest first, up to now. For the role `audit`.

        Raises `NotPermittedError` before the first one.
        """
        release = await self._admin.permit(person, "audit", target="export", tenant=person.tenant)
        tenant = "" if person.tenant in release.administration.operated_by else person.tenant
        until_us = min(query.until_us, self._clock.wall_us())
        limited = msgspec.structs.replace(query, tenant=tenant, until_us=until_us)
        await self._sights.note(person, "export", _told(limited))
        return self._pages(limited)

    async def stands(self, caller: Person | Session, call_id: str) -> CallStands:
        """Where a call stands, for its agent and for people who may see it. Raises `UnknownRecordError`."""
        found = await self._traces.search(CallQuery(call_id=call_id)) if call_id else ()
        if not found:
            raise UnknownRecordError("there is no such call")
        call = found[0]
        if isinstance(caller, Session):
            lineage = caller.lineage
            mine = (lineage.tenant, lineage.agent, lineage.user) == (call.tenant, call.agent, call.user)
            if not mine or lineage.environment != call.environment:
                raise UnknownRecordError("there is no such call")
        else:
            sight = await self._sights.of(caller, "traces")
            if not sight.covers(call.tenant, call.user):
                raise UnknownRecordError("there is no such call")
            if (caller.tenant, caller.user) != (call.tenant, call.user):
                await self._sights.note(caller, "show", call_id)
        return CallStands(**{name: getattr(call, name) for name in CallStands.__struct_fields__})

    async def _of_control_plane(self, person: Person, identifier: str, rows: tuple[EventRow, ...]) -> Trace:
        own = {chain_of("reads", person.tenant), chain_of("decisions", person.tenant)}
        chains = {row.chain_id for row in rows}
        tenant = person.tenant if chains and chains <= own else ""
        await self._admin.permit(person, "audit", target=identifier, tenant=tenant)
        if not rows:
            raise UnknownRecordError("nothing is recorded under this id")
        await self._sights.note(person, "show", identifier)
        return _trace(identifier, rows, bodies=True)

    async def _pages(self, query: CallQuery) -> AsyncIterator[CallRow]:
        after = (2**62, "")
        while True:
            page = await self._traces.search(query, after=after, limit=EXPORT_PAGE_CALLS)
            for call in page:
                yield call
            if len(page) < EXPORT_PAGE_CALLS:
                return
            after = (page[-1].at_us, page[-1].call_id)


def _trace(identifier: str, rows: tuple[EventRow, ...], *, bodies: bool) -> Trace:
    shown = rows[-MAX_EVENTS_SHOWN:]
    lines = tell(StoredEvent(**{name: getattr(row, name) for name in StoredEvent.__struct_fields__}) for row in shown)
    told = tuple(
        TraceLine(
            seq=line.seq,
            at_us=line.at_us,
            call_id=line.call_id,
            kind=line.kind,
            tone=line.tone,
            told=line.text,
            body=msgspec.Raw(row.body.encode()) if bodies and row.body is not None else None,
        )
        for row, line in zip(shown, lines, strict=True)
    )
    return Trace(id=identifier, chain_id=shown[0].chain_id, lines=told)


def _told(query: CallQuery) -> str:
    """The filters that were set, as they go on record."""
    unset = CallQuery()
    set_ = {name: getattr(query, name) for name in query.__struct_fields__ if getattr(query, name) != getattr(unset, name)}
    return msgspec.json.encode(set_).decode()
