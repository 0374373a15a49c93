"""What can go wrong in this package, in one place."""

from __future__ import annotations


class PolicyError(Exception):
    """Base of this package's errors."""


class FactsRefusedError(PolicyError):
    """A fact has no safe encoding. `field` names it (`args.amount`, `user.limit`); the message says what to send instead."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class UnusableReleaseError(PolicyError):
    """The release cannot decide anything: nothing may run on it. Correct what the message names and load it again."""


class ObligationError(PolicyError):
    """An obligation is not one of the closed set, or cannot be filled in from the facts. The call is denied."""


class PermitError(PolicyError):
    """The permit does not cover this execution: nothing may be sent. Decide and claim again to get another."""
