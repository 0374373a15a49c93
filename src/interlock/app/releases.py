"""Releases as people handle them: proposed by one, activated by another, rolled back in a hurry; each on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from interlock.app.administration import AdminGate, NotPermittedError
from interlock.core.ports import Clock, Ids
from interlock.core.who import Person
from interlock.ledger.drafts import draft
from interlock.ledger.events import ReleaseActivated, ReleaseProposed
from interlock.policy.testing import PolicyTestResult, run_tests
from interlock.release.diff.compare import Diff, diff, widening_lines
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.model import Release
from interlock.release.ownership import changed, teams_needed, teams_of
from interlock.store.controls import Controls
from interlock.store.errors import UnknownReleaseError
from interlock.store.processes import Processes
from interlock.store.releases import Activation, Proposal, Proposals

ACTIVATION_WAIT_S: Final = 10.0
ACTIVATION_POLL_S: Final = 0.05
MAX_ACTIVATIONS_LISTED: Final = 200
MAX_WIDENING_RECORDED: Final = 50


class ReleaseConflictError(Exception):
    """The release cannot be put in force as things stand; the message says what is missing."""


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """A stored release that waits for somebody else to activate it.

    `changed` are the files that differ from the release in force, `teams` the owners whose people must stand behind it.
    """

    name: str
    digest: str
    in_force: str
    changed: tuple[str, ...]
    teams: tuple[str, ...]
    tests_run: int
    tests_failed: tuple[PolicyTestResult, ...]
    diff: Diff


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it is kept: the texts of its files by their path."""

    name: str
    digest: str
    files: Mapping[str, str]


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """A release that decides from now on. `not_yet_loaded` are processes that refuse their calls until they have it."""

    name: str
    digest: str
    previous: str
    epoch: int
    not_yet_loaded: tuple[str, ...]
    diff: Diff | None = None


class Releases:
    """The releases of the plane."""

    def __init__(
        self,
        *,
        admin: AdminGate,
        controls: Controls,
        proposals: Proposals,
        processes: Processes,
        variables: Mapping[str, str],
        clock: Clock,
        ids: Ids,
        load_now: Callable[[], Awaitable[None]],
        noted: Callable[[], Awaitable[object]],
    ) -> None:
        self._admin = admin
        self._controls = controls
        self._proposals = proposals
        self._processes = processes
        self._variables = variables
        self._clock = clock
        self._ids = ids
        self._load_now = load_now
        self._noted = noted

    async def propose(self, person: Person, files: dict[str, str]) -> Proposed:
        """Store a release, with what its own tests say. Raises `NotPermittedError` or `ReleaseError` with every problem."""
        in_force = await self._admin.permit(person, "propose")
        release = await asyncio.to_thread(from_files, files, self._variables)
        results = await asyncio.to_thread(run_tests, release)
        failed = tuple(result for result in results if not result.passed)
        differing = changed(in_force.files, release.files)
        found = await asyncio.to_thread(_diff, in_force.files, release.files)
        await self._controls.save_release(release.digest, release.name, dict(release.files))
        proposal = Proposal(
            proposed_by=person.user,
            proposed_roles=person.roles,
            proposed_in=person.tenant,
            tests_run=len(results),
            tests_failed=len(failed),
        )
        await self._proposals.save(release.digest, proposal)
        body = ReleaseProposed(
            name=release.name,
            digest=release.digest,
            in_force=in_force.digest,
            changed=differing,
            by=person.user,
            roles=person.roles,
            tests_run=len(results),
            tests_failed=len(failed),
            changes=found.counts,
            widens=widening_lines(found, MAX_WIDENING_RECORDED),
        )
        await self._controls.append(draft(body, ids=self._ids))
        return Proposed(
            name=release.name,
            digest=release.digest,
            in_force=in_force.digest,
            changed=differing,
            teams=tuple(sorted(teams_needed(differing, in_force.owners))),
            tests_run=len(results),
            tests_failed=failed,
            diff=found,
        )

    async def stored(self, person: Person, digest: str) -> Stored:
        """A stored release. Raises `NotPermittedError` or `UnknownReleaseError`."""
        await self._admin.permit(person, "status", target=digest)
        release = await self._stored(digest)
        return Stored(name=release.name, digest=release.digest, files=release.files)

    async def diff(self, person: Person, digest: str) -> Diff:
        """How a stored release differs from the one in force. Raises as `stored`."""
        roles = (await self._admin.release()).administration.activate
        # Whoever may put it in force may see what that would change.
        operation = "activate" if set(roles) & set(person.roles) else "status"
        in_force = await self._admin.permit(person, operation, target=digest)
        files = await self._controls.release_files(digest)
        return await asyncio.to_thread(_diff, in_force.files, files)

    async def activate(self, person: Person, digest: str, reason: str, *, instead_of: str = "") -> Activated:
        """Put a proposed release in force; answers when every live process decides by it.

        Separation of duties: somebody else proposed it, its tests passed, and of every team that owns a part that changes
        one of the two is a member. `instead_of` is the release that the person compared it with, when they did.

        Raises:
            NotPermittedError: on record.
            ReleaseConflictError, UnknownReleaseError, ReleaseError: nothing was changed.
        """
        in_force = await self._admin.permit(person, "activate", target=digest)
        if instead_of and instead_of != in_force.digest:
            raise ReleaseConflictError(
                "another release is in force than the one you compared with; look at the difference again"
            )
        release = await self._stored(digest)
        proposals = await self._proposals.of(digest)
        if not proposals:
            raise ReleaseConflictError("nobody has proposed this release; `interlock release propose` does")
        others = [item for item in proposals if (item.proposed_by, item.proposed_in) != (person.user, person.tenant)]
        if not others:
            await self._admin.refuse(person, "activate", digest, "proposed it themselves")
            raise NotPermittedError("whoever proposed a release does not activate it; somebody else has to look at it")
        self._tests_passed(proposals)
        await self._owners_agree(person, in_force, release, others)
        return await self._put(release, in_force.digest, person, reason, proposed_by=others[0].proposed_by, proposals=proposals)

    async def rollback(self, person: Person, reason: str, digest: str = "") -> Activated:
        """Put a release in force again that was before; the last one when none is named. One person is enough."""
        in_force = await self._admin.permit(person, "activate", target=digest or "rollback")
        back = digest or await self._proposals.previous()
        if not back or not await self._proposals.was_in_force(back):
            raise ReleaseConflictError("no such release was in force before; `interlock release history` shows which were")
        release = await self._stored(back)
        return await self._put(release, in_force.digest, person, f"rollback: {reason}")

    async def history(self, person: Person, *, before_epoch: int = 2**62, limit: int = 50) -> tuple[Activation, ...]:
        """Which releases were in force, newest first."""
        await self._admin.permit(person, "status")
        return await self._proposals.activations(before_epoch=before_epoch, limit=min(limit, MAX_ACTIVATIONS_LISTED))

    async def put_in_force(self, files: dict[str, str], *, by: str) -> Activated:
        """Validate, store and activate without asking anybody: for the start of a process that is given a release."""
        release = await asyncio.to_thread(from_files, files, self._variables)
        _, previous = await self._controls.epochs()
        await self._controls.save_release(release.digest, release.name, dict(release.files))
        someone = Person(user=by, tenant="", roles=())
        return await self._put(release, previous, someone, "given at the start")

    async def _stored(self, digest: str) -> Release:
        files = await self._controls.release_files(digest)
        return await asyncio.to_thread(from_files, files, self._variables)

    @staticmethod
    def _tests_passed(proposals: tuple[Proposal, ...]) -> None:
        failed = max(item.tests_failed for item in proposals)
        if failed:
            raise ReleaseConflictError(f"{failed} of its own tests fail; propose one whose tests pass")

    async def _owners_agree(self, person: Person, in_force: Release, release: Release, others: list[Proposal]) -> None:
        needed = teams_needed(changed(in_force.files, release.files), in_force.owners)
        teams = in_force.administration.teams
        behind = teams_of(person.roles, teams).union(*(teams_of(item.proposed_roles, teams) for item in others))
        missing = sorted(needed - behind)
        if missing:
            await self._admin.refuse(person, "activate", release.digest, f"nobody of {', '.join(missing)} stands behind it")
            whose = "; ".join(f"{team}: {', '.join(teams.get(team, ())) or 'no role makes a member'}" for team in missing)
            raise NotPermittedError(f"it changes what these teams own, and neither of you is of them ({whose})")

    async def _put(
        self,
        release: Release,
        previous: str,
        person: Person,
        reason: str,
        *,
        proposed_by: str = "",
        proposals: tuple[Proposal, ...] = (),
    ) -> Activated:
        found = await self._differs(previous, release)
        body = ReleaseActivated(
            name=release.name,
            digest=release.digest,
            previous=previous,
            by=person.user,
            roles=person.roles,
            reason=reason,
            proposed_by=proposed_by,
            tests_run=max((item.tests_run for item in proposals), default=0),
            tests_failed=max((item.tests_failed for item in proposals), default=0),
            changes={} if found is None else found.counts,
            widens=() if found is None else widening_lines(found, MAX_WIDENING_RECORDED),
        )
        event = draft(body, ids=self._ids)
        epoch = await self._controls.activate(release.digest, expected=previous, by=person.user, reason=reason, event=event)
        if epoch is None:
            raise ReleaseConflictError("another release was put in force at the same moment; look at it and try again")
        await self._noted()
        await self._load_now()
        late = await self._wait_for_processes(epoch)
        return Activated(
            name=release.name, digest=release.digest, previous=previous, epoch=epoch, not_yet_loaded=late, diff=found
        )

    async def _differs(self, previous: str, release: Release) -> Diff | None:
        """How a release differs from the one before; None when that one cannot be read by this version any more."""
        if not previous:
            return None
        try:
            return await asyncio.to_thread(_diff, await self._controls.release_files(previous), release.files)
        except (ReleaseError, UnknownReleaseError):
            return None  # going on from a release that is broken must stay possible; the record says no counts

    async def _wait_for_processes(self, epoch: int) -> tuple[str, ...]:
        """Processes that have not said within the time that they loaded the release. They cannot decide by the old one."""
        deadline_s = self._clock.monotonic_s() + ACTIVATION_WAIT_S
        while True:
            late = tuple(process.process_id for process in await self._processes.live() if process.release_epoch < epoch)
            if not late or self._clock.monotonic_s() > deadline_s:
                return late
            await asyncio.sleep(ACTIVATION_POLL_S)


def _diff(old: Mapping[str, str], new: Mapping[str, str]) -> Diff:
    # Without variables, so that what they stand for is shown to nobody.
    return diff(from_files(old), from_files(new))
