"""What stays open beyond a request, streams and held calls, and ends with whoever it belongs to."""

from __future__ import annotations

from collections.abc import Callable

from interlock.core.who import Session
from interlock.gateway.ports import Standings


class OpenStreams:
    """The open streams of one process. `tend` is a chore: it is called again and again.

    It asks the database, not what this process believes of a lineage: an ended session makes no other of its lineage stale.
    """

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._open: dict[object, tuple[Session, Callable[[], None]]] = {}

    def add(self, session: Session, end: Callable[[], None]) -> Callable[[], None]:
        """From now on `end` is called when the session is over; call what is returned when the stream has ended."""
        key = object()
        self._open[key] = (session, end)
        return lambda: self._open.pop(key, None) and None

    async def tend(self) -> None:
        """End the streams of sessions that are over, or stopped in all they do. Raises `StoreUnavailableError`."""
        sessions = {session.session_id: session for session, _ in self._open.values()}
        over = await self._standings.over(tuple(sessions.values())) if sessions else frozenset()
        for session, end in list(self._open.values()):
            if session.session_id in over:
                end()

    async def stands(self, session: Session) -> bool:
        """Whether a session may do anything at all now. Raises `StoreUnavailableError`."""
        return not await self._standings.over((session,))
