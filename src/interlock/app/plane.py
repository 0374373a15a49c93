"""The control plane's own operations: each has a principal, a role and a record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.answers import Answers
from interlock.app.approvals import PeoplesApprovals
from interlock.app.breakers import PeoplesBreakers
from interlock.app.budgets import PeoplesBudgets
from interlock.app.containment import Containment, KillAnswer
from interlock.app.desk import Desk
from interlock.app.doors import Doors
from interlock.app.doubts import PeoplesDoubts
from interlock.app.known_people import KnownPeople
from interlock.app.leaving import Leaving
from interlock.app.live import LiveCalls
from interlock.app.logins import Issued, LoginDesk
from interlock.app.outside_logins import OutsideLogins
from interlock.app.postures import PeoplesPostures
from interlock.app.readiness import Readiness
from interlock.app.releases import Releases
from interlock.app.restoring import PeoplesRestores
from interlock.app.revocations import PeoplesRevocations
from interlock.app.scope_postures import PeoplesScopePostures
from interlock.app.scopes import check_scope, note_on, tenant_of
from interlock.app.shelf import StoredReleases
from interlock.app.tools import Tools
from interlock.core.claim import Epochs
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.terms import RESTORED
from interlock.core.who import Person, Session
from interlock.identity.delegated import DelegatedSessions
from interlock.identity.errors import ExchangeRefusedError, TokenCode, TokenRefusedError
from interlock.identity.exchange import (
    GRANT_TYPE,
    SESSION_KEY,
    ExchangeRequest,
    ExchangeResponse,
    People,
    SessionTokens,
    TokenExchange,
)
from interlock.identity.handing_down import HandingDown
from interlock.identity.keys import KeyRing
from interlock.identity.refusals import RefusalCounter
from interlock.ledger.drafts import draft
from interlock.ledger.events import ControlChanged, SessionHandedDown, SessionOpened, SessionRefreshed
from interlock.store.approvals import Approvals
from interlock.store.breakers import BreakerRow, BreakerRows
from interlock.store.budgets import Budgets
from interlock.store.controls import ControlAnswer, Controls, ControlState
from interlock.store.errors import StoreUnavailableError
from interlock.store.leases import Holder, Leases
from interlock.store.live import LiveRows
from interlock.store.postures import Postures, ScopePostures
from interlock.store.processes import LiveProcess, Processes
from interlock.store.releases import Proposals
from interlock.store.revocations import Revocations
from interlock.store.sessions import Sessions


class ReleaseName(msgspec.Struct, frozen=True, kw_only=True):
    """Which release decides."""

    name: str
    digest: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A process that can serve. Strangers may ask, so it says nothing else."""

    status: str = "ready"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is stopped, which release decides, who is alive; operations with calls in flight, and those that are unstable."""

    release: ReleaseName
    epochs: Epochs
    controls: tuple[ControlState, ...]
    processes: tuple[LiveProcess, ...]
    leases: tuple[Holder, ...] = ()
    in_flight: dict[str, int]
    unstable: tuple[BreakerRow, ...] = ()


class RecordedSessions:
    """Implements identity's `SessionStore`: sessions with their first event."""

    def __init__(self, sessions: Sessions, ids: Ids) -> None:
        self._sessions = sessions
        self._ids = ids

    async def open(self, session: Session, release_digest: str) -> None:
        """Store a new session with its first event. Raises `ExchangeRefusedError` when its proofs were revoked."""
        if not await self._sessions.open(session, draft(_opened(session, release_digest), ids=self._ids)):
            raise ExchangeRefusedError("invalid_grant", "the user's or the agent's token is refused", counted_as="revoked")

    async def of_grant(self, grant: bytes, session: Session, release_digest: str) -> Session | None:
        """The grant's live session, or this one opened as such; None when it was revoked, or its proofs were."""
        opened = draft(_opened(session, release_digest), ids=self._ids)
        refreshed = SessionRefreshed(session_id=session.session_id, expires_at_us=session.expires_at_us)
        return await self._sessions.of_grant(grant, session, opened, draft(refreshed, ids=self._ids))

    async def hand_down(self, session: Session, release_digest: str, most: int) -> str:
        """Store a session below another, with an event in the chain of each: `opened`, `ended` or `too_many`."""
        opened = _opened(session, release_digest)
        told = SessionHandedDown(
            session_id=session.session_id,
            agent=session.lineage.agent,
            operations=session.operations,
            max_calls=session.max_calls,
        )
        return await self._sessions.hand_down(
            session, most=most, opened=draft(opened, ids=self._ids), told=draft(told, ids=self._ids)
        )

    async def get(self, session_id: str) -> Session | None:
        """A live session, or None."""
        return await self._sessions.get(session_id)

    async def refresh(self, session: Session) -> bool:
        """Note that a live session goes on; its end stays where it was."""
        body = SessionRefreshed(session_id=session.session_id, expires_at_us=session.expires_at_us)
        return await self._sessions.refresh(session, draft(body, ids=self._ids))


def _opened(session: Session, release_digest: str) -> SessionOpened:
    lineage = session.lineage
    return SessionOpened(
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
        parents=session.parents,
        run=session.run,
        operations=session.operations,
        max_calls=session.max_calls,
    )


class Plane:
    """Implements the API's `ControlPlane` for one process."""

    def __init__(
        self,
        *,
        controls: Controls,
        answers: Answers,
        containment: Containment,
        leases: Leases,
        desk: Callable[[AdminGate], Desk],
        tools: Callable[[AdminGate], Tools],
        outside_logins: Callable[[AdminGate], OutsideLogins],
        approvals: Approvals,
        proposals: Proposals,
        postures: Postures,
        live: LiveRows,
        scope_postures: ScopePostures,
        processes: Processes,
        sessions: Sessions,
        shelf: StoredReleases,
        keys: KeyRing,
        tokens: SessionTokens,
        exchange: TokenExchange,
        handing_down: HandingDown,
        budgets: Budgets,
        breakers: BreakerRows,
        doubts: Callable[[AdminGate], PeoplesDoubts],
        restores: Callable[[AdminGate], PeoplesRestores],
        environment: str,
        people: People,
        refusals: RefusalCounter,
        revocations: Revocations,
        delegated: DelegatedSessions,
        public_url: str,
        variables: Mapping[str, str],
        clock: Clock,
        ids: Ids,
        load_now: Callable[[], Awaitable[None]],
        holds_lease: Callable[[], bool],
        room: Callable[[], Awaitable[None]],
        leaving: Leaving,
        noted: Callable[[], Awaitable[object]],
    ) -> None:
        self.clock = clock
        self.leaving = leaving
        self.readiness = Readiness(self._look, room, clock)
        self._holds_lease = holds_lease
        self.answers = answers
        self.logins: LoginDesk | None = None
        self.admin = AdminGate(controls, shelf, ids)
        self.desk = desk(self.admin)
        self.tools = tools(self.admin)
        self.outside_logins = outside_logins(self.admin)
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
            noted=noted,
        )
        self.breakers = PeoplesBreakers(breakers, self.admin, environment=environment)
        self.budgets = PeoplesBudgets(budgets, self.admin, environment=environment, clock=clock)
        self.doubts = doubts(self.admin)
        self.restores = restores(self.admin)
        self.postures = PeoplesPostures(postures, self.admin, ids)
        self.live = LiveCalls(live, self.desk.sights)
        self.scope_postures = PeoplesScopePostures(scope_postures, self.admin, sessions, ids)
        self.revocations = PeoplesRevocations(revocations, self.admin, ids)
        self.doors = Doors(
            shelf=shelf,
            admin=self.admin,
            delegated=delegated,
            refusals=refusals,
            environment=environment,
            public_url=public_url,
        )
        self._controls = controls
        self._breakers = breakers
        self._containment = containment
        self._leases = leases
        self._processes = processes
        self._sessions = sessions
        self._shelf = shelf
        self._keys = keys
        self._tokens = tokens
        self._exchange = exchange
        self._handing_down = handing_down
        self._people = people
        self._refusals = refusals
        self._revoked = revocations
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
            person = await self._people.person(token, self.admin.release)
            await self.outside_logins.refuse_ended(token)
            if self.logins is not None:
                await self.logins.refuse_ended(token)
            await self._refuse_revoked(person)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise
        await self.known.note(person)
        return person

    async def agent(self, token: str) -> str:
        """The agent a token speaks for, with no user. Raises `TokenRefusedError`, counted."""
        try:
            agent, told_at_us = await self._exchange.agent_of(token, await self.admin.release())
            await self._refuse_revoked_agent(agent, told_at_us)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise
        return agent

    async def session_of(self, token: str, task: str = "") -> Session:
        """The session that our own token or a trusted issuer's delegated one stands for. Raises as `Doors.session`."""
        return await self.doors.session(token, task) if self.doors.concerns(token) else self.session(token)

    async def _refuse_revoked(self, person: Person) -> None:
        if await self._revoked.person_is_revoked(person.tenant, person.user, person.told_at_us):
            raise TokenRefusedError(TokenCode.REVOKED)

    async def _refuse_revoked_agent(self, agent: str, told_at_us: int) -> None:
        if await self._revoked.agent_is_revoked(agent, told_at_us):
            raise TokenRefusedError(TokenCode.REVOKED)

    async def exchange(self, request: ExchangeRequest) -> ExchangeResponse:
        """Exchange tokens by the release in force. Raises as `TokenExchange.exchange`; refusals are counted."""
        try:
            if self.logins is not None and request.subject_token:
                await self.logins.refuse_ended(request.subject_token)
            ways = self._handing_down if request.hands_down else self._exchange
            return await ways.exchange(request, await self.admin.release())
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise ExchangeRefusedError("invalid_grant", "the user's or the agent's token is refused") from error
        except ExchangeRefusedError as error:
            self._refusals.add(error.counted_as or error.error)
            raise

    async def issue(self, form: dict[str, str], resource: str) -> ExchangeResponse | Issued:
        """Answer a token request of any grant type. Raises as `LoginDesk.token`; refusals are counted."""
        if self.logins is None or form.get("grant_type", "") == GRANT_TYPE:
            known = {name: form.get(name, "") for name in ExchangeRequest.__struct_fields__}
            return await self.exchange(ExchangeRequest(**known))
        try:
            return await self.logins.token(form, resource)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise ExchangeRefusedError("invalid_grant", "the proof is refused") from error
        except ExchangeRefusedError as error:
            self._refusals.add(error.counted_as or error.error)
            raise

    def jwks(self) -> dict[str, Any]:
        """Public keys of session tokens and signed heads."""
        return self._keys.jwks(SESSION_KEY, "heads")

    async def ready(self) -> Ready:
        """The database answers and takes things up, a lease is held, the release in force loads, and we stay. Else raises."""
        self.leaving.watched()
        if self.leaving.has_begun():
            raise StoreUnavailableError("this process is leaving")
        if not self._holds_lease():
            raise StoreUnavailableError("this process holds no lease, so it starts nothing")
        await self.readiness.check()
        return Ready()

    async def _look(self) -> None:
        await self.admin.release()

    async def status(self, person: Person) -> Status:
        """What is stopped, which release decides, who is alive, what is in flight."""
        release = await self.admin.permit(person, "status")
        epochs, digest = await self._controls.epochs()
        return Status(
            release=ReleaseName(name=release.name, digest=digest),
            epochs=epochs,
            controls=await self._controls.all(),
            processes=await self._processes.live(),
            leases=await self._leases.holders(),
            in_flight=await self._controls.in_flight(),
            unstable=tuple(row for row in await self._breakers.all() if row.phase != "closed"),
        )

    async def kill(self, person: Person, scope: str, reason: str) -> KillAnswer:
        """Stop execution in a scope: after the answer no claim in it commits, and no process starts an earlier one."""
        checked, event, note = await self._change(person, "kill", scope, reason, halted=True)
        return await self._containment.stop(scope=checked, reason=reason, by=person.user, event=event, note=note)

    async def resume(self, person: Person, scope: str, reason: str, release: str = "") -> ControlAnswer:
        """Let execution go on in a scope, or writes after a restore: then `release` may name the one that is meant."""
        if scope == RESTORED:
            return await self.restores.resume(person, reason, release=release)
        checked, event, _ = await self._change(person, "resume", scope, reason, halted=False)
        await self.scope_postures.must_not_resume(checked)
        return await self._controls.change(scope=checked, halted=False, reason=reason, by=person.user, event=event)

    async def _change(
        self, person: Person, operation: str, scope: str, reason: str, *, halted: bool
    ) -> tuple[str, EventDraft, str]:
        checked = check_scope(scope)
        tenant = await tenant_of(checked, self._sessions)
        release = await self.admin.permit(person, operation, target=checked, tenant=tenant)
        body = ControlChanged(scope=checked, halted=halted, reason=reason, by=person.user, roles=person.roles)
        return checked, draft(body, ids=self._ids), note_on(checked, release)
