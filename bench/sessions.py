"""A session for a bench, opened as the exchange would."""

from __future__ import annotations

from typing import Final

from interlock.app.plane import RecordedSessions
from interlock.app.system import System
from interlock.core.who import Lineage, Session
from interlock.store.sessions import Sessions

HOLDS_US: Final = 3_600_000_000


async def opened(system: System, user: str) -> Session:
    """A session of `bot`; a user is the same lineage in every gateway, so calls repeated elsewhere are the same calls."""
    session = Session(
        session_id=system.ids.new("ses"),
        lineage=Lineage(tenant="acme", environment="bench", agent="bot", user=user),
        task="bench",
        roles=("Staff",),
        attributes={},
        expires_at_us=system.clock.wall_us() + HOLDS_US,
    )
    await RecordedSessions(Sessions(system.database), system.ids).open(session, "")
    return session
