"""What a session is shown, and which operation is behind a name."""

from __future__ import annotations

from interlock.core.contract import Kind
from interlock.core.ports import Clock
from interlock.core.who import Session
from interlock.gateway.governed import Governed, Governing
from interlock.gateway.internal import session_scopes
from interlock.gateway.lease import Lease
from interlock.gateway.listing import listed
from interlock.gateway.messages import Found, VisibleOperation
from interlock.gateway.ports import Standing
from interlock.gateway.standing import Beliefs


class Offering:
    """Read-only. Every method raises `StoreUnavailableError`: it cannot be known, so show nothing."""

    def __init__(self, *, beliefs: Beliefs, governing: Governing, lease: Lease, clock: Clock) -> None:
        self._beliefs = beliefs
        self._governing = governing
        self._lease = lease
        self._clock = clock

    async def visible(self, session: Session, quarantined: frozenset[str]) -> tuple[VisibleOperation, ...]:
        """The operations this session may use, as it will see them; none for a session that has ended."""
        self._beliefs.forget(session.lineage.id)
        found = await self._governed(session)
        if found is None:
            return ()
        governed, standing = found
        state = self._lease.in_force(standing.state, session_scopes(session))
        return listed(governed, session, state, quarantined, self._clock.wall_us())

    async def find(self, session: Session, kind: Kind, name: str, tool: str | None) -> Found | None:
        """The operation that a server knows by a name or URI. It says nothing about whether the session may use it."""
        found = await self._governed(session)
        return None if found is None else found[0].named(kind, name, tool)

    async def _governed(self, session: Session) -> tuple[Governed, Standing] | None:
        standing = await self._beliefs.of(session)
        if standing is None:
            return None
        return await self._governing.in_force(standing.release_digest, standing.epochs.release), standing
