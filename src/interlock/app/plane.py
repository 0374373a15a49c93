"""The control plane's own operations: each has a principal, a role and a record."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.answers import Answers
from interlock.app.approvals import PeoplesApprovals
from interlock.app.known_people import KnownPeople
from interlock.app.postures import PeoplesPostures
from interlock.app.releases import Releases
from interlock.app.shelf import StoredReleases
from interlock.core.claim import Epochs
from interlock.core.ports import Clock, Ids
from interlock.core.terms import Scope
from interlock.core.who import Person, Session
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.identity.exchange import (
    SESSION_KEY,
    ExchangeRequest,
    ExchangeResponse,
    People,
    SessionTokens,
    TokenExchange,
)
from interlock.identity.keys import KeyRing
from interlock.identity.refusals import RefusalCounter
from interlock.ledger.drafts import draft
from interlock.ledger.events import ControlChanged, SessionOpened, SessionRefreshed
from interlock.store.approvals import Approvals
from interlock.store.controls import ControlAnswer, Controls, ControlState
from interlock.store.postures import Postures
from interlock.store.processes import LiveProcess, Processes
from interlock.store.releases import Proposals
from interlock.store.sessions import Sessions

_SCOPE: Final = re.compile(r"^[^\s:]+$")


class UnknownScopeError(Exception):
    """A control scope that is not written as scopes are."""


class ReleaseName(msgspec.Struct, frozen=True, kw_only=True):
    """Which release decides."""

    name: str
    digest: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A process that can serve, and the digest and name of the release it serves by."""

    status: str
    release: str
    name: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is stopped, which release decides, who is alive, how many calls of each operation are in flight."""

    release: ReleaseName
    epochs: Epochs
    controls: tuple[ControlState, ...]
    processes: tuple[LiveProcess, ...]
    in_flight: dict[str, int]


class RecordedSessions:
    """Implements identity's `SessionStore`: sessions with their first event."""

    def __init__(self, sessions: Sessions, ids: Ids) -> None:
        self._sessions = sessions
        self._ids = ids

    async def open(self, session: Session, release_digest: str) -> None:
        """Store a new session with its first event."""
        lineage = session.lineage
        body = SessionOpened(
            session_id=session.session_id,
            tenant=lineage.tenant,
            environment=lineage.environment,
            agent=lineage.agent,
            user=lineage.user,
            task=session.task,
            roles=session.roles,
            attributes=session.attributes,
            expires_at_us=session.expires_at_us,
            release_digest=release_digest,
        )
        await self._sessions.open(session, draft(body, ids=self._ids))

    async def get(self, session_id: str) -> Session | None:
        """A live session, or None."""
        return await self._sessions.get(session_id)

    async def refresh(self, session: Session) -> bool:
        """Note that a live session goes on; its end stays where it was."""
        body = SessionRefreshed(session_id=session.session_id, expires_at_us=session.expires_at_us)
        return await self._sessions.refresh(session.session_id, session.expires_at_us, draft(body, ids=self._ids))


class Plane:
    """Implements the API's `ControlPlane` for one process."""

    def __init__(
        self,
        *,
        controls: Controls,
        answers: Answers,
        approvals: Approvals,
        proposals: Proposals,
        postures: Postures,
        processes: Processes,
        shelf: StoredReleases,
        keys: KeyRing,
        tokens: SessionTokens,
        exchange: TokenExchange,
        people: People,
        refusals: RefusalCounter,
        variables: Mapping[str, str],
        clock: Clock,
        ids: Ids,
        load_now: Callable[[], Awaitable[None]],
    ) -> None:
        self.clock = clock
        self.answers = answers
        self.admin = AdminGate(controls, shelf, ids)
        self.approvals = PeoplesApprovals(approvals, self.admin, clock=clock, ids=ids)
        self.known = KnownPeople(approvals, clock)
        self.releases = Releases(
            admin=self.admin,
            controls=controls,
            proposals=proposals,
            processes=processes,
            variables=variables,
            clock=clock,
            ids=ids,
            load_now=load_now,
        )
        self.postures = PeoplesPostures(postures, self.admin, ids)
        self._controls = controls
        self._processes = processes
        self._shelf = shelf
        self._keys = keys
        self._tokens = tokens
        self._exchange = exchange
        self._people = people
        self._refusals = refusals
        self._ids = ids

    def session(self, token: str) -> Session:
        """The session a token speaks for. Raises `TokenRefusedError`, counted."""
        try:
            return self._tokens.verify(token)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise

    async def person(self, token: str) -> Person:
        """The person a token speaks for. Raises `TokenRefusedError`, counted."""
        try:
            person = self._people.verify(token)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise
        await self.known.note(person)
        return person

    async def agent(self, token: str) -> str:
        """The agent a token speaks for, with no user. Raises `TokenRefusedError`, counted."""
        try:
            return self._exchange.agent_of(token, await self.admin.release())
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise

    async def exchange(self, request: ExchangeRequest) -> ExchangeResponse:
        """Exchange tokens by the release in force. Raises as `TokenExchange.exchange`; refusals are counted."""
        try:
            return await self._exchange.exchange(request, await self.admin.release())
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise ExchangeRefusedError("invalid_grant", "the user's or the agent's token is refused") from error
        except ExchangeRefusedError as error:
            self._refusals.add(error.counted_as or error.error)
            raise

    def jwks(self) -> dict[str, Any]:
        """Public keys of session tokens and signed heads."""
        return self._keys.jwks(SESSION_KEY, "heads")

    async def ready(self) -> Ready:
        """That the database answers and a release is in force and loads. Raises otherwise."""
        release = await self.admin.release()
        return Ready(status="ready", release=release.digest, name=release.name)

    async def status(self, person: Person) -> Status:
        """What is stopped, which release decides, who is alive, what is in flight."""
        release = await self.admin.permit(person, "status")
        epochs, digest = await self._controls.epochs()
        return Status(
            release=ReleaseName(name=release.name, digest=digest),
            epochs=epochs,
            controls=await self._controls.all(),
            processes=await self._processes.live(),
            in_flight=await self._controls.in_flight(),
        )

    async def kill(self, person: Person, scope: str, reason: str) -> ControlAnswer:
        """Stop execution in a scope: after the answer no claim in it commits."""
        return await self._change(person, "kill", scope, reason, halted=True)

    async def resume(self, person: Person, scope: str, reason: str) -> ControlAnswer:
        """Let execution go on in a scope."""
        return await self._change(person, "resume", scope, reason, halted=False)

    async def _change(self, person: Person, operation: str, scope: str, reason: str, *, halted: bool) -> ControlAnswer:
        checked = check_scope(scope)
        tenant = checked.partition(":")[2] if checked.startswith("tenant:") else ""
        await self.admin.permit(person, operation, target=checked, tenant=tenant)
        body = ControlChanged(scope=checked, halted=halted, reason=reason, by=person.user, roles=person.roles)
        event = draft(body, ids=self._ids)
        return await self._controls.change(scope=checked, halted=halted, reason=reason, by=person.user, event=event)


def check_scope(text: str) -> str:
    """A control scope as it is stored. Raises `UnknownScopeError`."""
    kind, _, name = text.partition(":")
    if text == Scope.FLEET:
        return text
    if kind in {scope.value for scope in Scope if scope is not Scope.FLEET} and _SCOPE.match(name):
        return text
    kinds = ", ".join(f"{scope.value}:NAME" for scope in Scope if scope is not Scope.FLEET)
    raise UnknownScopeError(f"{text!r} is no scope; write `fleet`, or one of {kinds}")
