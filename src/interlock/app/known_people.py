"""What the latest token of each person said of them: an approval counts only while its giver still holds the role."""

from __future__ import annotations

from typing import Final

from interlock.core.ports import Clock
from interlock.core.recent import Recent
from interlock.core.who import Person
from interlock.store.approvals import Approvals

REMEMBERED_PEOPLE: Final = 2_000
NOTED_AGAIN_S: Final = 60.0


class KnownPeople:
    """Notes people as their tokens come by; the same token is not written twice within a minute."""

    def __init__(self, approvals: Approvals, clock: Clock) -> None:
        self._approvals = approvals
        self._clock = clock
        self._noted: Recent[tuple[str, str], tuple[tuple[str, ...], int, float]] = Recent(REMEMBERED_PEOPLE)

    async def note(self, person: Person) -> None:
        """Take note of a person's roles. Raises `StoreUnavailableError`."""
        name = (person.tenant, person.user)
        roles, told_at_us, at_s = self._noted.get(name) or ((), 0, 0.0)
        now_s = self._clock.monotonic_s()
        # INVARIANT: a token that is newer is always written: another process may have written another one in between.
        if (roles, told_at_us) == (person.roles, person.told_at_us) and now_s - at_s < NOTED_AGAIN_S and at_s:
            return
        await self._approvals.tell_person(person.tenant, person.user, person.roles, person.told_at_us)
        self._noted.put(name, (person.roles, person.told_at_us, now_s))
