"""What identity refuses. Strangers learn the code and nothing else.

IdentityError
├── KeyFolderError       keys on disk are not private, or not readable
├── DirectoryError       the development directory cannot be used
├── TokenRefusedError    a token is not what it must be; `code` says which rule it broke
├── IssuerUnreachableError an issuer's documents could not be had, or are not what they must be
├── TaskNeededError      the token is good; which task its session is for has to be said
└── ExchangeRefusedError the exchange is refused, with an OAuth error code (RFC 6749, RFC 8693)
"""

from __future__ import annotations

from enum import StrEnum


class IdentityError(Exception):
    """The root of identity's errors."""


class KeyFolderError(IdentityError):
    """Keys on disk are not private, or not readable."""


class DirectoryError(IdentityError):
    """The development directory cannot be used."""


class TokenCode(StrEnum):
    """Why a token was refused: a closed set, so that refusals can be counted by it."""

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    LIFETIME = "lifetime"
    WRONG_USE = "wrong_use"
    CLAIMS = "claims"
    ISSUER_UNREACHABLE = "issuer_unreachable"
    FOREIGN_TENANT = "foreign_tenant"
    GROUPS_OVERAGE = "groups_overage"
    ID_TOKEN = "id_token"  # noqa: S105  # a reason, no secret
    NOT_A_PERSON = "not_a_person"
    CLIENT = "client"
    REVOKED = "revoked"


class TokenRefusedError(IdentityError):
    """A token is not what it must be. `issuer` is what it claims, unproven, for counting only."""

    def __init__(self, code: TokenCode, detail: str = "", issuer: str = "") -> None:
        super().__init__(f"{code.value}: {detail}" if detail else code.value)
        self.code = code
        self.issuer = issuer


class IssuerUnreachableError(IdentityError):
    """An issuer's documents could not be had, or are not what they must be; the message is for operators."""


class TaskNeededError(IdentityError):
    """The token is good, and no single task follows from it. The message is for the caller: agent and user are proven."""


class ExchangeRefusedError(IdentityError):
    """The exchange is refused. `error` is an OAuth error code; the message may be shown to the caller."""

    def __init__(self, error: str, description: str, *, counted_as: str = "") -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.counted_as = counted_as
