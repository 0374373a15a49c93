"""Every limit of the ways in, with its unit."""

from __future__ import annotations

from typing import Final

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_FORM_BYTES: Final = 64 * 1024
MAX_RELEASE_BYTES: Final = 16 * 1024 * 1024
REQUEST_READ_S: Final = 30.0
MAX_CONCURRENT_MCP: Final = 6_000
MAX_CONCURRENT_PUBLIC: Final = 256
MAX_STATEFUL_SESSIONS: Final = 2_000
MAX_STATEFUL_PER_SESSION: Final = 64
STATEFUL_IDLE_S: Final = 1_800.0
MAX_REASON_CHARS: Final = 500
MAX_SCOPE_CHARS: Final = 200
MAX_REQUEST_ID_CHARS: Final = 200
MAX_EVALUATIONS: Final = 100
