"""Where lineages stand, read from the sessions table for the gate."""

from __future__ import annotations

from interlock.core.who import Session
from interlock.gateway.internal import session_scopes
from interlock.gateway.ports import Standing
from interlock.store.sessions import Sessions


class LoadedStandings:
    """Implements the gate's `Standings` on the sessions table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def load(self, session: Session) -> Standing | None:
        """Where the lineage stands now."""
        found = await self._sessions.load(session)
        if found is None:
            return None
        return Standing(epochs=found.epochs, release_digest=found.release_digest, state=found.state)

    async def over(self, sessions: tuple[Session, ...]) -> frozenset[str]:
        """Which of these may do nothing any more."""
        return await self._sessions.over({item.session_id: (item.lineage.id, session_scopes(item)) for item in sessions})
