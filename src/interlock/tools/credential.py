"""A tool's own secret: where it is read, and where it is kept from going."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from interlock.core.ports import Clock
from interlock.tools.errors import CallFailedError, ToolConfigurationError
from interlock.tools.limits import ToolLimits

CREDENTIAL_MAX_BYTES: Final = 16 * 1024
SCRUB_MIN_BYTES: Final = 8
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN: Final = re.compile(rb"[\x21-\x7e]+")
_WITHHELD: Final = b"[credential withheld]"


class Credential:
    """Resolves `env:NAME` or `file:PATH`, again every few seconds so that a rotated secret is taken up.

    INVARIANT: the value appears in no repr, message or log of ours, and is cut out of whatever a tool sends back.
    """

    def __init__(self, spec: str, *, clock: Clock, limits: ToolLimits) -> None:
        """Check the form of `spec` (empty: none). Raises `ToolConfigurationError`; the secret itself is read later."""
        kind, _, name = spec.partition(":")
        if spec and (kind not in {"env", "file"} or not name or (kind == "env" and not _ENV_NAME.fullmatch(name))):
            raise ToolConfigurationError("a credential is written `env:NAME` or `file:PATH`")
        self._kind, self._name = kind, name
        self._clock = clock
        self._cache_s = limits.credential_cache_s
        self._value = b""
        self._good_until_s = float("-inf")

    def __repr__(self) -> str:
        """Where the secret is, never what it is."""
        return f"Credential({self._kind}:{self._name})" if self._kind else "Credential(none)"

    @property
    def variable(self) -> str:
        """The environment variable by which a stdio tool is handed the secret."""
        return self._name if self._kind == "env" else "INTERLOCK_TOOL_CREDENTIAL"

    def value(self) -> bytes:
        """The secret as visible ASCII, empty when none is configured. Raises `CallFailedError` (`refused`) when missing."""
        if not self._kind:
            return b""
        now = self._clock.monotonic_s()
        if now >= self._good_until_s:
            self._value = self._read()
            self._good_until_s = now + self._cache_s
        return self._value

    def scrub(self, data: bytes) -> bytes:
        """`data` without the secret, should a tool repeat it: neither callers nor the ledger may learn it."""
        if len(self._value) >= SCRUB_MIN_BYTES and self._value in data:
            return data.replace(self._value, _WITHHELD)
        return data

    def _read(self) -> bytes:
        where = f"{self._kind}:{self._name}"
        if self._kind == "env":
            found = os.environ.get(self._name, "").encode("utf-8", "surrogateescape")
        else:
            try:
                with Path(self._name).open("rb") as file:
                    found = file.read(CREDENTIAL_MAX_BYTES + 1).strip()
            except OSError as error:
                raise CallFailedError("refused", f"credential {where} cannot be read: {error.strerror}") from None
        if not found:
            raise CallFailedError("refused", f"credential {where} is empty; set it for this process")
        if len(found) > CREDENTIAL_MAX_BYTES or not _TOKEN.fullmatch(found):
            raise CallFailedError("refused", f"credential {where} is not one line of visible ASCII")
        return found
