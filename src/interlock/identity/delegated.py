"""Sessions of agents that present a trusted issuer's delegated token as it is: user and agent are both in it.

The session is found again by the token, or by the issuer's own session when the token names one, in whichever process the
next call arrives. It ends with the token.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import msgspec

from interlock.core.ports import Clock, Ids
from interlock.core.who import Session
from interlock.identity.binding import bind, session_for
from interlock.identity.errors import TaskNeededError, TokenCode, TokenRefusedError
from interlock.identity.outside import Outside
from interlock.identity.proofs import Proofs
from interlock.identity.remembered import Remembered
from interlock.identity.tokens import Verifier
from interlock.release.model import Release

MAX_REMEMBERED: Final = 4_000
# A session that was ended is refused in the claim, at once. This is how long its token goes on being taken for a live one.
LOOK_AGAIN_S: Final = 30.0


class GrantStore(Protocol):
    """Where sessions are found by their grant. Raises `StoreUnavailableError`."""

    async def of_grant(self, grant: bytes, session: Session, release_digest: str) -> Session | None:
        """The grant's live session, or `session` opened as such; None when it was revoked, or rests on revoked proofs."""
        ...


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    session: Session
    release_digest: str
    expires_at_us: int
    look_again_s: float


class DelegatedSessions:
    """Gives the session of a delegated token. One for each process."""

    def __init__(
        self, *, proofs: Verifier, outside: Outside, sessions: GrantStore, environment: str, clock: Clock, ids: Ids
    ) -> None:
        self._proofs = Proofs(proofs, outside)
        self._sessions = sessions
        self._environment = environment
        self._clock = clock
        self._ids = ids
        self._known: Remembered[_Found] = Remembered(MAX_REMEMBERED)

    async def session(self, token: str, task: str, release: Release) -> Session:
        """The session of a token for a task; empty when there is only one that the user may open to this agent.

        Raises:
            TokenRefusedError: the token is not what it must be.
            ExchangeRefusedError: the agent is unknown, or may not open the task.
            TaskNeededError: several tasks, or none, may be opened.
            StoreUnavailableError: nothing was opened.
        """
        key = f"{token} {task}"  # a token has no space in it
        known = self._known.get(key)
        if known is not None and self._still_good(known, token, release):
            return known.session
        self._known.drop(key)
        both = await self._proofs.delegated(token, release)
        bound = bind(both.user, both.agent, release, self._environment, delegated=True)
        chosen = task or _only(bound.tasks)
        expires_at_us = int(both.user.expires_at_s * 1_000_000)
        wanted = session_for(bound, chosen, release, self._environment, self._ids.new("ses"), expires_at_us)
        grant = _grant(both.agent.issuer, both.grant or token, both.agent.subject, wanted)
        session = await self._sessions.of_grant(grant, wanted, release.digest)
        if session is None:
            raise TokenRefusedError(TokenCode.REVOKED, issuer=both.iss)
        now_s = self._clock.monotonic_s()
        found = _Found(
            session=session,
            release_digest=release.digest,
            expires_at_us=expires_at_us,
            look_again_s=now_s + LOOK_AGAIN_S,
        )
        self._known.keep(key, found, until_s=found.look_again_s, now_s=now_s)
        return session

    def _still_good(self, known: _Found, token: str, release: Release) -> bool:
        return (
            known.release_digest == release.digest
            and known.expires_at_us > self._clock.wall_us()
            and known.look_again_s > self._clock.monotonic_s()
            and self._proofs.still_good(token, release)
        )


def _only(tasks: tuple[str, ...]) -> str:
    match tasks:
        case (task,):
            return task
        case ():
            raise TaskNeededError("the user may open no task to this agent")
        case _:
            listed = ", ".join(tasks)
            raise TaskNeededError(f"several tasks may be opened; name one in the header interlock-task: {listed}")


def _grant(issuer: str, grant: str, agent: str, session: Session) -> bytes:
    """32 bytes, the same for the same issuer, grant, agent, lineage and task."""
    names = (issuer, grant, agent, session.lineage.id, session.task)
    return hashlib.sha256("".join(f"{len(name)}:{name}" for name in names).encode()).digest()
