"""Every limit of the ways in, with its unit."""

from __future__ import annotations

from typing import Final

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_STATEFUL_SESSIONS: Final = 2_000
STATEFUL_IDLE_S: Final = 1_800.0
MAX_REASON_CHARS: Final = 500
MAX_SCOPE_CHARS: Final = 200
MAX_RELEASE_BYTES: Final = 16 * 1024 * 1024
