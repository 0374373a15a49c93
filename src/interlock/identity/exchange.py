"""OAuth 2.0 token exchange (RFC 8693): an agent's token and a user's token become one session token.

The user is the subject, the agent the actor. Which tasks an agent may open is the user's to grant, by role.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeGuard

import msgspec

from interlock.core.ports import Clock, Ids
from interlock.core.who import Lineage, Person, Session
from interlock.identity.binding import agent_named, bind, session_for
from interlock.identity.chain import chain_of, claims_of
from interlock.identity.errors import ExchangeRefusedError, TokenCode, TokenRefusedError
from interlock.identity.keys import KeyRing
from interlock.identity.outside import Outside, claimed_issuer
from interlock.identity.persons import PersonTokens
from interlock.identity.proofs import Proofs, person_of
from interlock.identity.remembered import Remembered
from interlock.identity.tokens import OURS, Checked, Verifier, sign
from interlock.release.model import Release

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a type name, no secret
SESSION_ISSUER: Final = OURS
SESSION_KEY: Final = "session"
SESSION_TOKEN_LIFETIME_S: Final = 900
SESSION_LIFETIME_S: Final = 8 * 3600
MAX_PROOF_LIFETIME_S: Final = 3600
MAX_SESSIONS_REMEMBERED: Final = 4_000


class SessionStore(Protocol):
    """Where sessions are kept. Raises `StoreUnavailableError`."""

    async def open(self, session: Session, release_digest: str) -> None:
        """Store a new session with its first event."""
        ...

    async def get(self, session_id: str) -> Session | None:
        """A live session, or None."""
        ...

    async def refresh(self, session: Session) -> bool:
        """Note that a live session goes on under a new token; False when it has ended."""
        ...


class ExchangeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The form of a token request. `session_id` asks for a new token of a session that goes on.

    The last five are for handing work on to another agent: `scope` names operations, `roles` roles, with spaces between.
    """

    grant_type: str = ""
    subject_token: str = ""
    subject_token_type: str = ""
    actor_token: str = ""
    actor_token_type: str = ""
    task: str = ""
    session_id: str = ""
    scope: str = ""
    roles: str = ""
    run: str = ""
    max_calls: str = ""
    lifetime_s: str = ""

    @property
    def hands_down(self) -> bool:
        """Whether the subject says that it is a session token. It is checked as what it says it is, and as nothing else."""
        return claimed_issuer(self.subject_token) == SESSION_ISSUER


class ExchangeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What RFC 8693 answers, and the session's id."""

    access_token: str
    issued_token_type: str = ACCESS_TOKEN_TYPE
    token_type: str = "Bearer"  # noqa: S105  # a scheme, no secret
    expires_in: int = SESSION_TOKEN_LIFETIME_S
    session_id: str = ""


class SessionTokens:
    """Issues and checks session tokens for one environment."""

    def __init__(self, *, keys: KeyRing, environment: str, clock: Clock, ids: Ids) -> None:
        self._keys = keys
        self._environment = environment
        self._clock = clock
        self._ids = ids
        self._verifier = Verifier(
            keys={SESSION_ISSUER: keys.verifying(SESSION_KEY)},
            audience=f"interlock:{environment}",
            clock=clock,
            max_lifetime_s=SESSION_TOKEN_LIFETIME_S,
        )
        self._known: Remembered[Session] = Remembered(MAX_SESSIONS_REMEMBERED)

    def issue(self, session: Session) -> str:
        """A token for a session, valid for a quarter of an hour and never longer than the session."""
        now_s = self._clock.wall_us() // 1_000_000
        lineage = session.lineage
        claims = {
            "iss": SESSION_ISSUER,
            "sub": lineage.user,
            "aud": f"interlock:{self._environment}",
            "iat": now_s,
            "exp": min(now_s + SESSION_TOKEN_LIFETIME_S, session.expires_at_us // 1_000_000),
            "jti": self._ids.new("jti"),
            "interlock_use": "session",
            "sid": session.session_id,
            "tenant": lineage.tenant,
            "env": lineage.environment,
            "task": session.task,
            "roles": list(session.roles),
            "attributes": dict(session.attributes),
            "session_exp_us": session.expires_at_us,
            **claims_of(session),
        }
        return sign(claims, self._keys.signing(SESSION_KEY), kind="at+jwt")

    def verify(self, token: str) -> Session:
        """The session a token speaks for. Raises `TokenRefusedError`."""
        checked = self._verifier.check(token, use="session")
        claims = checked.claims
        if claims.get("env") != self._environment:
            raise TokenRefusedError(TokenCode.AUDIENCE, "a token for another environment", checked.issuer)
        known = self._known.get(token)
        if known is None:
            known = _session_of(claims, checked)
            self._known.keep(token, known, until_s=checked.expires_at_s, now_s=self._clock.wall_us() / 1e6)
        return known


class TokenExchange:
    """Binds an agent to a user, for a task. One for each process, for its one environment."""

    def __init__(
        self,
        *,
        proofs: Verifier,
        tokens: SessionTokens,
        sessions: SessionStore,
        environment: str,
        clock: Clock,
        ids: Ids,
        outside: Outside | None = None,
    ) -> None:
        self._proofs = Proofs(proofs, outside)
        self._tokens = tokens
        self._sessions = sessions
        self._environment = environment
        self._clock = clock
        self._ids = ids

    async def exchange(self, request: ExchangeRequest, release: Release) -> ExchangeResponse:
        """Check both proofs and the user's right to open the task; open or refresh a session.

        A delegated token of a trusted issuer stands for both: then there is no actor token.

        Raises:
            ExchangeRefusedError: with an OAuth error code.
            TokenRefusedError: a proof is not what it must be.
            StoreUnavailableError: nothing was opened.
        """
        if request.grant_type != GRANT_TYPE:
            raise ExchangeRefusedError("unsupported_grant_type", f"grant_type must be {GRANT_TYPE}")
        alone = not request.actor_token and not self._proofs.is_built_in(request.subject_token)
        if not request.subject_token or not (request.actor_token or alone) or not request.task:
            raise ExchangeRefusedError(
                "invalid_request", "subject_token (the user's), actor_token (the agent's) and task are needed"
            )
        if alone:
            both = await self._proofs.delegated(request.subject_token, release)
            user, agent = both.user, both.agent
        else:
            user = await self._proofs.user(request.subject_token, release)
            agent = await self._proofs.agent(request.actor_token, release)
        bound = bind(user, agent, release, self._environment, delegated=alone)
        now_us = self._clock.wall_us()
        expires_at_us = now_us + SESSION_LIFETIME_S * 1_000_000
        wanted = session_for(bound, request.task, release, self._environment, self._ids.new("ses"), expires_at_us)
        if request.session_id:
            session = await self._going_on(request.session_id, wanted)
        else:
            session = msgspec.structs.replace(wanted, opened_at_us=now_us)
            await self._sessions.open(session, release.digest)
        return ExchangeResponse(access_token=self._tokens.issue(session), session_id=session.session_id)

    async def agent_of(self, token: str, release: Release) -> tuple[str, int]:
        """The agent that an agent's own token speaks for, and when it was issued (us). Raises `TokenRefusedError`."""
        proof = await self._proofs.agent(token, release)
        name = agent_named(release, self._environment, proof.issuer, proof.subject)
        if not name:
            raise TokenRefusedError(TokenCode.CLAIMS, "an agent that is not known here", proof.issuer)
        return name, proof.told_at_us

    async def _going_on(self, session_id: str, wanted: Session) -> Session:
        earlier = await self._sessions.get(session_id)
        if earlier is None or earlier.lineage != wanted.lineage or earlier.task != wanted.task:
            raise ExchangeRefusedError(
                "invalid_grant", "no such session to go on with; ask for a new one", counted_as="session_not_found"
            )
        # The user's roles and attributes are as they are now, not as they were when the session was opened.
        session = msgspec.structs.replace(
            earlier,
            roles=wanted.roles,
            attributes=wanted.attributes,
            user_told_at_us=wanted.user_told_at_us,
            agent_told_at_us=wanted.agent_told_at_us,
        )
        if not await self._sessions.refresh(session):
            raise ExchangeRefusedError("invalid_grant", "the session has ended; ask for a new one", counted_as="session_ended")
        return session


class People:
    """People who speak for themselves, to the control plane: only a token of their own channel will do."""

    def __init__(self, proofs: Verifier, outside: Outside | None = None, own: PersonTokens | None = None) -> None:
        self._built_in = proofs
        self._proofs = Proofs(proofs, outside, own)

    def verify(self, token: str) -> Person:
        """The person a token of the built-in issuer speaks for. Raises `TokenRefusedError`; all others are refused."""
        return person_of(self._built_in.check(token, use="user"))

    async def person(self, token: str, release: Callable[[], Awaitable[Release]]) -> Person:
        """The person a token speaks for, whoever issued it; `release` gives the one in force. Raises `TokenRefusedError`."""
        return await self._proofs.person(token, release)


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _session_of(claims: Mapping[str, Any], checked: Checked) -> Session:
    actor = claims.get("act")
    agent = actor.get("sub") if isinstance(actor, dict) else None
    names = (claims.get("sid"), claims.get("tenant"), claims.get("env"), agent, claims.get("task"))
    roles, attributes, expires = claims.get("roles"), claims.get("attributes"), claims.get("session_exp_us")
    if (
        not all(isinstance(name, str) and name for name in names)
        or not _are_texts(roles)
        or not isinstance(attributes, dict)
        or not isinstance(expires, int)
    ):
        raise TokenRefusedError(TokenCode.CLAIMS, "a session token without its claims", checked.issuer)
    try:
        chain = chain_of(claims)
    except ValueError as error:
        raise TokenRefusedError(TokenCode.CLAIMS, str(error), checked.issuer) from error
    session_id, tenant, environment, agent_name, task = (str(name) for name in names)
    return Session(
        session_id=session_id,
        lineage=Lineage(tenant=tenant, environment=environment, agent=agent_name, user=checked.subject),
        task=task,
        roles=tuple(roles),
        attributes={name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()},
        expires_at_us=expires,
        parents=chain.parents,
        run=chain.run,
        operations=chain.operations,
        max_calls=chain.max_calls,
    )
