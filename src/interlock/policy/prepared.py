"""A release made ready for deciding: indexed policies, argument encoders, and what has been worked out before."""

from __future__ import annotations

from typing import Final

import cedarpy

from interlock.policy.encoding import ArgumentEncoder, Section
from interlock.policy.evaluate import Memo, Outcome
from interlock.policy.pinned import Apart, Aparts, Pins
from interlock.policy.reads import Step
from interlock.policy.slices import OperationSlices, Slices
from interlock.release.model import Release

STANDING_MAX_ENTRIES: Final = 1_024  # of each kind; one takes up to 2 KB


class Standing:
    """The standing sections of the context, and the JSON texts of what has been shown of them."""

    __slots__ = ("sections", "texts")

    def __init__(self, sections: dict[str, Section]) -> None:
        self.sections = sections
        self.texts: dict[tuple[Step, ...], str] = {}


class Prepared:
    """What every decision by one release shares. Memories are bounded, the rest by operations times agents in policies."""

    __slots__ = ("aparts", "arguments", "memo", "people", "pins", "release", "slices", "standing")

    def __init__(self, *, release: Release, slices: Slices, memo: Memo[Outcome]) -> None:
        self.release = release
        self.slices = slices
        self.arguments = {name: ArgumentEncoder(contract) for name, contract in release.contracts.items()}
        self.memo = memo
        self.standing: Memo[Standing] = Memo(STANDING_MAX_ENTRIES)
        self.people: Memo[cedarpy.Entities] = Memo(STANDING_MAX_ENTRIES)
        self.pins = Pins()
        self.aparts = Aparts(slices.handles)

    def apart(self, slices: OperationSlices) -> Apart | None:
        """An operation's policies taken apart; None where they cannot be, and are asked as they were written.

        Raises:
            UnusableReleaseError: Cedar does not accept a policy.
        """
        return self.aparts.of(slices)
