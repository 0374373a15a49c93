"""What opens a login: secrets that are shown once and kept as keyed digests, and codes that people type."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from interlock.core.ports import Ids

# No vowels, so that no words come out, and nothing that looks like something else (RFC 8628, section 6.1).
USER_CODE_SIGNS: Final = "BCDFGHJKLMNPQRSTVWXZ"
USER_CODE_LENGTH: Final = 8
MAX_SECRET_CHARS: Final = 2_000
CODE_LIFETIME_S: Final = 60
DEVICE_CODE_LIFETIME_S: Final = 600
DEVICE_PAUSE_S: Final = 5
# With 20^8 codes, at most MAX_OPEN_DEVICES of them open, and so many tries, a guess succeeds once in 600,000 such windows.
MAX_TYPED_CODES: Final = 20
TYPED_WITHIN_S: Final = 600
MAX_OPEN_DEVICES: Final = 2_000
MAX_CLIENTS_A_MINUTE: Final = 30
MAX_CLIENTS: Final = 10_000
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Sealer:
    """Makes secrets of 256 random bits and digests by which they are found again: HMAC-SHA-256 with a key of this server."""

    def __init__(self, key: bytes, ids: Ids) -> None:
        self._key = key
        self._ids = ids

    def secret(self) -> str:
        """A new secret, 43 characters."""
        return _base64(self._ids.salt() + self._ids.salt())

    def digest(self, kind: str, secret: str) -> bytes:
        """What is stored of a secret: 32 bytes, of no use to who reads them. `kind` keeps secrets of two kinds apart."""
        return hmac.digest(self._key, f"interlock/login/{kind}/1\0{secret}".encode(), "sha256")

    def user_code(self) -> str:
        """A new code for a person to type: eight signs."""
        number, signs = int.from_bytes(self._ids.salt()), []
        for _ in range(USER_CODE_LENGTH):
            number, place = divmod(number, len(USER_CODE_SIGNS))
            signs.append(USER_CODE_SIGNS[place])
        return "".join(signs)


def shown_code(code: str) -> str:
    """A user code as people read it: `BCDF-GHJK`."""
    return f"{code[:4]}-{code[4:]}"


def typed_code(text: str) -> str:
    """A user code as it is meant, however it was typed; empty when it cannot be one."""
    code = re.sub(r"[\s-]", "", text).upper() if len(text) <= MAX_SECRET_CHARS else ""
    return code if len(code) == USER_CODE_LENGTH and set(code) <= set(USER_CODE_SIGNS) else ""


def is_challenge(text: str) -> bool:
    """Whether a text is a PKCE challenge of the method S256 (RFC 7636)."""
    return _CHALLENGE.fullmatch(text) is not None


def verifies(verifier: str, challenge: str) -> bool:
    """Whether a PKCE verifier belongs to a challenge of the method S256. There is no other method."""
    if not _VERIFIER.fullmatch(verifier) or not is_challenge(challenge):
        return False
    return hmac.compare_digest(_base64(hashlib.sha256(verifier.encode()).digest()), challenge)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
