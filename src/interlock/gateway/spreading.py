"""Labels reach every open agent of the same work: what one was given to read, the others may be told by it.

INVARIANT: when something is released to an agent, whoever it works with is labelled at least as its lineage is. Agents that
hand work on do not speak through the gate, so nobody sees when one tells another: it is taken for told at once.
"""

from __future__ import annotations

import msgspec

from interlock.core.claim import Labels, LineageState
from interlock.core.ports import Ids
from interlock.core.recent import Recent
from interlock.core.terms import Posture
from interlock.core.who import Session
from interlock.gateway.limits import MAX_CACHED_LINEAGES, MAX_SPREADING_ROUNDS
from interlock.gateway.ports import LabelShelf, Standings
from interlock.ledger.contexts import LabelsSpread
from interlock.ledger.drafts import draft
from interlock.store.errors import StoreUnavailableError


class Spreading:
    """Spreads labels. Every method raises `StoreUnavailableError`: nothing may then be released."""

    def __init__(self, shelf: LabelShelf, standings: Standings, ids: Ids) -> None:
        self._shelf = shelf
        self._standings = standings
        self._ids = ids
        # Labels that have reached everybody. Whoever joins the work later is labelled as it joins, so this stays true.
        self._reached: Recent[str, LineageState] = Recent(MAX_CACHED_LINEAGES)

    async def before_release(
        self, session: Session, state: LineageState, brought: Labels, *, call_id: str, operation: str
    ) -> None:
        """Call this before something is released, with how the lineage stood and what labels this release brings."""
        by = f"{call_id} {operation}"
        labels = LineageState(
            facts_version=0,
            posture=Posture.NORMAL,
            tainted=state.tainted or brought.tainted,
            confidentiality=max(state.confidentiality, brought.confidentiality),
            tainted_by=state.tainted_by or (by if brought.tainted else ""),
            confidential_by=by if brought.confidentiality > state.confidentiality else state.confidential_by,
        )
        await self._spread(session, labels, call_id)

    async def joined(self, session: Session) -> None:
        """Call this when work was handed on to a session, before anybody is given its token: its agent has a past, too."""
        self._reached.pop(session.lineage.id)  # it reached those that were there
        standing = await self._standings.load(session)
        if standing is not None:
            labels = msgspec.structs.replace(standing.state, facts_version=0, history_version=0, posture=Posture.NORMAL)
            await self._spread(session, labels, "")

    async def _spread(self, session: Session, labels: LineageState, call_id: str) -> None:
        lineage = session.lineage.id
        if not (labels.tainted or labels.confidentiality) or self._reached.get(lineage) == labels:
            return
        for _ in range(MAX_SPREADING_ROUNDS):
            raised = await self._shelf.labelled_less(session, labels)
            if not raised:
                break
            body = LabelsSpread(
                tainted=labels.tainted,
                confidentiality=labels.confidentiality,
                tainted_by=labels.tainted_by,
                confidential_by=labels.confidential_by,
                lineages=raised,
            )
            if await self._shelf.spread(session, labels, raised, draft(body, ids=self._ids, call_id=call_id)):
                break
        else:
            raise StoreUnavailableError("those at the same work change faster than they can be labelled; try again shortly")
        self._reached.put(lineage, labels)
