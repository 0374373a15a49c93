"""A user begins their work with an agent afresh: its sessions end, and what they had read taints no longer."""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from interlock.core.ports import Ids
from interlock.core.who import Lineage, Person
from interlock.ledger.contexts import StartedFresh
from interlock.ledger.drafts import draft
from interlock.store.labels import LabelRows, StartFresh

MAX_ROUNDS: Final = 5


class NothingToStartFreshError(Exception):
    """The person has no work with this agent."""


class FreshConflictError(Exception):
    """It cannot be begun afresh now; the message says why."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a fresh start did: these sessions ended. The next one that is opened is not tainted."""

    lineage_id: str
    agent: str
    ended: tuple[str, ...]


class FreshStarts:
    """Fresh starts of people's own work, in one environment. No role gives this for somebody else."""

    def __init__(self, labels: LabelRows, environment: str, ids: Ids) -> None:
        self._labels = labels
        self._environment = environment
        self._ids = ids

    async def begin(self, person: Person, agent: str, reason: str = "") -> Begun:
        """Begin afresh with an agent: by the person's own channel, for the person themselves.

        Raises:
            NothingToStartFreshError, FreshConflictError: nothing was changed.
        """
        lineage = Lineage(tenant=person.tenant, environment=self._environment, agent=agent, user=person.user)
        for _ in range(MAX_ROUNDS):
            found = await self._labels.taint(lineage.id)
            if found is None:
                raise NothingToStartFreshError("you have no work with such an agent here")
            if not found.tainted:
                raise FreshConflictError("nothing untrusted was read: there is nothing to be rid of")
            body = StartedFresh(
                lineage_id=lineage.id,
                tenant=lineage.tenant,
                environment=lineage.environment,
                agent=agent,
                by=person.user,
                tainted_by=found.tainted_by,
                sessions=found.sessions,
                reason=reason,
            )
            match await self._labels.start_fresh(lineage.id, found, draft(body, ids=self._ids)):
                case StartFresh.FRESH:
                    return Begun(lineage_id=lineage.id, agent=agent, ended=found.sessions)
                case StartFresh.UNDER_WAY:
                    raise FreshConflictError("calls are under way whose answers would come in; try again when they are done")
                case StartFresh.CHANGED:
                    continue
                case unreachable:
                    assert_never(unreachable)
        raise FreshConflictError("its sessions change too fast; try again")
