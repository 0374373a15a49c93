"""What this process believes about each lineage, so that a call need not ask first: the claim compares, and corrects."""

from __future__ import annotations

from interlock.core.claim import LineageState, Stale
from interlock.core.recent import Recent
from interlock.core.who import Session
from interlock.gateway.limits import MAX_CACHED_LINEAGES
from interlock.gateway.ports import Standing, Standings


class Beliefs:
    """A bounded memory of standings. A wrong belief costs one more round, never a wrong decision: claims are compared."""

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._known: Recent[str, Standing] = Recent(MAX_CACHED_LINEAGES)

    async def of(self, session: Session) -> Standing | None:
        """Where the session's lineage stands; None when the session has ended."""
        lineage = session.lineage.id
        found = self._known.get(lineage)
        if found is None:
            found = await self._standings.load(session)
            if found is not None:
                self._known.put(lineage, found)
        return found

    async def renewed(self, session: Session) -> Standing | None:
        """Where the session's lineage stands now, asked afresh; None when the session has ended."""
        self.forget(session.lineage.id)
        return await self.of(session)

    def correct(self, lineage: str, stale: Stale) -> Standing:
        """Take over what the store says stands now."""
        fresh = Standing(epochs=stale.epochs, release_digest=stale.release_digest, state=stale.state)
        self._known.put(lineage, fresh)
        return fresh

    def advance(self, lineage: str, state: LineageState) -> None:
        """Take over a lineage state that came with a claim or settlement, unless a newer one is known."""
        known = self._known.get(lineage)
        if known is None:
            return
        was = known.state
        if state.facts_version >= was.facts_version and state.history_version >= was.history_version and state != was:
            self._known.put(lineage, Standing(epochs=known.epochs, release_digest=known.release_digest, state=state))

    def forget(self, lineage: str) -> None:
        """Ask the store next time."""
        self._known.pop(lineage)
