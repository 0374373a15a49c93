"""Who proposed which release, and which were in force."""

from __future__ import annotations

import msgspec

from interlock.store.database import Database


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody stands behind a stored release; `tests_failed` of its `tests_run` own tests failed when it was proposed."""

    proposed_by: str
    proposed_roles: tuple[str, ...]
    proposed_in: str
    tests_run: int
    tests_failed: int


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was put in force."""

    epoch: int
    digest: str
    name: str
    activated_by: str
    reason: str
    at_us: int


class Proposals:
    """Reads and writes proposals. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, digest: str, proposal: Proposal) -> None:
        """Note that somebody proposes a stored release."""
        await self._database.rows(
            "save_proposal",
            digest,
            proposal.proposed_by,
            list(proposal.proposed_roles),
            proposal.proposed_in,
            proposal.tests_run,
            proposal.tests_failed,
        )

    async def of(self, digest: str) -> tuple[Proposal, ...]:
        """Who proposed it, first to last."""
        return tuple(
            Proposal(
                proposed_by=row["proposed_by"],
                proposed_roles=tuple(row["proposed_roles"]),
                proposed_in=row["proposed_in"],
                tests_run=row["tests_run"],
                tests_failed=row["tests_failed"],
            )
            for row in await self._database.rows("proposals", digest)
        )

    async def previous(self) -> str | None:
        """The digest that was in force before the present one."""
        row = await self._database.row("previous_release")
        return None if row is None else str(row["digest"])

    async def was_in_force(self, digest: str) -> bool:
        """Whether a release was in force before."""
        return await self._database.row("was_in_force", digest) is not None

    async def activations(self, *, before_epoch: int, limit: int) -> tuple[Activation, ...]:
        """Which releases were in force, newest first."""
        return tuple(Activation(**dict(row)) for row in await self._database.rows("activations", before_epoch, limit))
