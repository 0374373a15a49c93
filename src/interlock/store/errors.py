"""What can go wrong with the database, in one place. Each message says what to do next.

StoreError
├── StoreUnavailableError   it did not answer, or not in time: nothing may be executed
├── EmbeddedError           the embedded server cannot be started or kept private
├── MigrationError          the schema cannot be brought to this version
├── UnknownReleaseError     a release is named that is not stored
├── MarkError               what must be kept beside the database cannot be
├── WitnessError            the file of signed heads beside it was damaged
├── BackupError             a backup cannot be made, or is not what it says it is
├── PasswordError           the database's password cannot be had
├── PoolerError             something in between gives no session of one's own
└── UnstorableError         a value that no record can hold: a NUL, a number of more than 64 bits
"""

from __future__ import annotations


class StoreError(Exception):
    """The root of the store's errors."""


class StoreUnavailableError(StoreError):
    """The database could not be asked or did not answer in time. Treat the request as not done: fail closed."""


class EmbeddedError(StoreError):
    """The embedded server cannot be started or kept private."""


class MigrationError(StoreError):
    """The database's schema cannot be brought to this version."""


class UnstorableError(StoreError):
    """A value was asked for that no record can hold, so there is none. The statement was not run."""


class UnknownReleaseError(StoreError):
    """A release is named that is not stored."""


class MarkError(StoreUnavailableError):
    """What must be kept beside the database cannot be. Treat the request as not done: fail closed."""


class WitnessError(StoreError):
    """The file of signed heads beside the database was damaged. What it told is not known: fail closed."""


class BackupError(StoreError):
    """A backup cannot be made or restored, or is not what it says it is."""


class PasswordError(StoreUnavailableError):
    """The database's password cannot be had. Its message never holds what was given."""


class PoolerError(StoreError):
    """Something between us and Postgres gives no session of one's own."""
