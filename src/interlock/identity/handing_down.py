"""An agent hands work on: its session token and another agent's proof become a session below its own (RFC 8693).

Such a session can only narrow: the same user and task; roles, operations, calls and lifetime no more than those above it.
It draws on the budgets of the session it all began with, and ends with any of those above it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from interlock.core.ports import Clock, Ids
from interlock.core.who import Lineage, Parent, Session
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.exchange import (
    SESSION_LIFETIME_S,
    ExchangeRequest,
    ExchangeResponse,
    SessionTokens,
)
from interlock.release.model import Release

MAX_CHAIN_AGENTS: Final = 5
"""The agent that the user's session began with, and four below it."""
MAX_LIVE_BELOW_A_SESSION: Final = 20
MAX_OPERATIONS: Final = 500
MAX_CALLS: Final = 1_000_000
_RUN: Final = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)

Joined = Callable[[Session], Awaitable[None]]
AgentOf = Callable[[str, Release], Awaitable[tuple[str, int]]]


class SubSessionStore(Protocol):
    """Where sessions are kept. Raises `StoreUnavailableError`."""

    async def hand_down(self, session: Session, release_digest: str, most: int) -> str:
        """Open a session below its first parent: `opened`, `ended` or `too_many`."""
        ...

    async def get(self, session_id: str) -> Session | None:
        """A live session, or None."""
        ...

    async def refresh(self, session: Session) -> bool:
        """Note that a live session goes on under a new token; False when it has ended."""
        ...


class HandingDown:
    """Exchanges of session tokens. `agent_of` checks an agent's proof: its name, when it was issued; or `TokenRefusedError`.

    `joined` is told of each new session before anybody is given its token, and keeps it from being given by raising.
    """

    def __init__(
        self,
        *,
        agent_of: AgentOf,
        tokens: SessionTokens,
        sessions: SubSessionStore,
        joined: Joined,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._joined = joined
        self._agent_of = agent_of
        self._tokens = tokens
        self._sessions = sessions
        self._clock = clock
        self._ids = ids

    async def exchange(self, request: ExchangeRequest, release: Release) -> ExchangeResponse:
        """Open a session below the one whose token is the subject, or go on with it.

        Raises:
            ExchangeRefusedError: with an OAuth error code.
            TokenRefusedError: a token is not what it must be.
            StoreUnavailableError: nothing was opened.
        """
        above = self._tokens.verify(request.subject_token)
        if not request.actor_token:
            raise ExchangeRefusedError("invalid_request", "actor_token, the proof of the agent that goes on, is needed")
        agent, told_at_us = await self._agent_of(request.actor_token, release)
        task = release.tasks.get(above.task)
        if task is None or agent not in task.agents or (request.task and request.task != above.task):
            raise ExchangeRefusedError(
                "invalid_grant", "this agent may not go on with this task", counted_as="task_not_granted"
            )
        if len(above.parents) + 1 >= MAX_CHAIN_AGENTS:
            raise ExchangeRefusedError(
                "invalid_grant", f"work is handed on by {MAX_CHAIN_AGENTS} agents at most", counted_as="chain_too_long"
            )
        lineage = msgspec.structs.replace(above.lineage, agent=agent)
        if request.session_id:
            session = await self._going_on(request.session_id, above, lineage, told_at_us)
        else:
            session = msgspec.structs.replace(self._narrowed(request, above, lineage), agent_told_at_us=told_at_us)
            match await self._sessions.hand_down(session, release.digest, MAX_LIVE_BELOW_A_SESSION):
                case "opened":
                    await self._joined(session)
                case "too_many":
                    raise ExchangeRefusedError(
                        "invalid_grant",
                        f"a session has at most {MAX_LIVE_BELOW_A_SESSION} live ones right below it",
                        counted_as="too_many_below",
                    )
                case _:
                    raise ExchangeRefusedError("invalid_grant", "the session has ended", counted_as="session_ended")
        return ExchangeResponse(access_token=self._tokens.issue(session), session_id=session.session_id)

    def _narrowed(self, request: ExchangeRequest, above: Session, lineage: Lineage) -> Session:
        operations = above.operations
        if request.scope:
            asked = tuple(sorted(set(request.scope.split())))
            if len(asked) > MAX_OPERATIONS or (operations is not None and not set(asked) <= set(operations)):
                raise ExchangeRefusedError("invalid_scope", "operations can only be taken away", counted_as="wider_than_above")
            operations = asked
        roles = tuple(sorted(set(request.roles.split()))) if request.roles else above.roles
        calls = _number(request.max_calls, above.max_calls or MAX_CALLS) if request.max_calls else above.max_calls
        if (
            not set(roles) <= set(above.roles)
            or not _RUN.fullmatch(request.run)
            or (above.run and request.run not in ("", above.run))
        ):
            raise ExchangeRefusedError("invalid_grant", "roles and run can only be narrowed", counted_as="wider_than_above")
        now_us = self._clock.wall_us()
        lifetime_s = _number(request.lifetime_s, SESSION_LIFETIME_S) if request.lifetime_s else SESSION_LIFETIME_S
        parent = Parent(session_id=above.session_id, agent=above.lineage.agent, max_calls=above.max_calls)
        return Session(
            session_id=self._ids.new("ses"),
            lineage=lineage,
            task=above.task,
            roles=roles,
            attributes=above.attributes,
            expires_at_us=min(above.expires_at_us, now_us + lifetime_s * 1_000_000),
            opened_at_us=now_us,
            parents=(parent, *above.parents),
            run=above.run or request.run,
            operations=operations,
            max_calls=calls,
        )

    async def _going_on(self, session_id: str, above: Session, lineage: Lineage, told_at_us: int) -> Session:
        found = await self._sessions.get(session_id)
        if found is None or found.lineage != lineage or not found.parents or found.parents[0].session_id != above.session_id:
            raise ExchangeRefusedError(
                "invalid_grant", "no such session to go on with; ask for a new one", counted_as="session_not_found"
            )
        # Roles that those above have lost since are lost here too.
        session = msgspec.structs.replace(
            found,
            roles=tuple(role for role in found.roles if role in above.roles),
            # For the user stands the session above, which ends with them.
            user_told_at_us=self._clock.wall_us(),
            agent_told_at_us=told_at_us,
        )
        if not await self._sessions.refresh(session):
            raise ExchangeRefusedError("invalid_grant", "the session has ended; ask for a new one", counted_as="session_ended")
        return session


def _number(text: str, most: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise ExchangeRefusedError(
            "invalid_request",
            f"max_calls and lifetime_s are numbers from 1 to what is above, {most} here",
            counted_as="wider_than_above",
        )
    return int(text)
