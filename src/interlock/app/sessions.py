"""Sessions as people see them, and what is said in them: by the user, and by the agent in the user's name."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.app.sight import Sights, UnknownRecordError
from interlock.core.canonical import digest
from interlock.core.ports import Ids
from interlock.core.who import Person, Session
from interlock.gateway.contexts import Contexts
from interlock.ledger.drafts import draft
from interlock.ledger.events import InputAsserted, InputReceived
from interlock.store.records import Records
from interlock.store.sessions import SessionRow, Sessions

MAX_SESSIONS_LISTED: Final = 200
MAX_INPUT_BYTES: Final = 32 * 1024


class SessionOverError(Exception):
    """The session has ended."""


class InputRefusedError(Exception):
    """A text that is no input; the message says why."""


class InputKept(msgspec.Struct, frozen=True, kw_only=True):
    """An input as recorded. `integrity` is `user`, or `asserted` for what only the agent says."""

    input_id: str
    session_id: str
    text_digest: str
    integrity: str


class PeoplesSessions:
    """The sessions of the plane."""

    def __init__(self, sessions: Sessions, records: Records, sights: Sights, contexts: Contexts, ids: Ids) -> None:
        self._sessions = sessions
        self._contexts = contexts
        self._records = records
        self._sights = sights
        self._ids = ids

    async def listed(
        self, person: Person, *, user: str, agent: str, task: str, state: str, after: tuple[int, str] | None, limit: int
    ) -> tuple[SessionRow, ...]:
        """Sessions, newest first: the person's own, or with the role `traces` those of their tenant."""
        sight = await self._sights.of(person, "traces")
        if sight.own and user not in {"", person.user}:
            return ()
        return await self._sessions.listed(
            tenant=sight.tenant,
            user=sight.user or user,
            agent=agent,
            task=task,
            state=state,
            after=after or (2**62, ""),
            limit=min(limit, MAX_SESSIONS_LISTED),
        )

    async def show(self, person: Person, session_id: str) -> SessionRow:
        """One session, live or ended. Raises `UnknownRecordError`."""
        sight = await self._sights.of(person, "traces")
        found = await self._sessions.listed(session_id=session_id) if session_id else ()
        if not found or not sight.covers(found[0].tenant, found[0].user):
            raise UnknownRecordError("there is no such session")
        return found[0]

    async def receive(self, person: Person, session_id: str, text: str) -> InputKept:
        """Record what the session's user says by their own channel.

        Raises:
            UnknownRecordError: it is no session of theirs. Nobody speaks for another user, whatever their role.
            InputRefusedError, SessionOverError: nothing was recorded.
        """
        found = await self._sessions.listed(session_id=session_id) if session_id else ()
        if not found or (found[0].tenant, found[0].user) != (person.tenant, person.user):
            raise UnknownRecordError("there is no such session of yours")
        text_digest = _checked(text)
        body = InputReceived(input_id=self._ids.new("inp"), by=person.user, text=text, text_digest=text_digest)
        if not await self._records.append_to_session(session_id, draft(body, ids=self._ids)):
            raise SessionOverError("the session has ended")
        session = await self._sessions.get(session_id)
        if session is None:
            raise SessionOverError("the session has ended")
        # On record first: what vouches for an argument can always be shown.
        await self._contexts.said(session, body.input_id, text)
        return InputKept(input_id=body.input_id, session_id=session_id, text_digest=text_digest, integrity="user")

    async def hear(self, session: Session, session_id: str, text: str) -> InputKept:
        """Record what an agent says that its user said: asserted, and untrusted. Raises as `receive`."""
        if session_id != session.session_id:
            raise UnknownRecordError("a session token speaks of its own session only")
        text_digest = _checked(text)
        body = InputAsserted(input_id=self._ids.new("inp"), agent=session.lineage.agent, text=text, text_digest=text_digest)
        if not await self._records.append_to_session(session_id, draft(body, ids=self._ids)):
            raise SessionOverError("the session has ended")
        await self._contexts.asserted(session, body.input_id, text)
        return InputKept(input_id=body.input_id, session_id=session_id, text_digest=text_digest, integrity="asserted")


def _checked(text: str) -> str:
    data = text.encode()
    if not text.strip():
        raise InputRefusedError("say something")
    if len(data) > MAX_INPUT_BYTES:
        raise InputRefusedError(f"an input is at most {MAX_INPUT_BYTES} bytes long")
    return digest(data)
