"""Every limit of the gate, with its unit."""

from __future__ import annotations

from typing import Final

MAX_ARGUMENT_BYTES: Final = 256 * 1024
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
MAX_RELEASED_IN_LEDGER_BYTES: Final = 16 * 1024
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
MAX_ASK_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 128 * 1024
MAX_ANSWERS: Final = 32
# How long a write whose tool asked something waits for the answers, before it is looked into like any call in doubt.
ANSWERS_WITHIN_S: Final = 900.0
MAX_HELD_CALLS: Final = 500
MAX_HELD_CALLS_PER_SESSION: Final = 20
CALLER_KEY_WINDOW_S: Final = 24 * 3600
CLAIM_WAIT_MS: Final = 15_000
SETTLE_MARGIN_MS: Final = 10_000
MAX_FREE_DECISION_ROUNDS: Final = 3
MAX_ORDERED_DECISION_ROUNDS: Final = 20
RESOURCE_CACHE_S: Final = 5.0
MAX_CACHED_RESOURCES: Final = 2_000
# What a process keeps of lineages and sessions, of each kind at most this much; whatever is not kept is asked for again.
MAX_CACHED_LINEAGES: Final = 4_000
MAX_CACHED_SCOPES: Final = 1_000
MAX_CACHED_TAKINGS: Final = 1_000
MAX_SPREADING_ROUNDS: Final = 5
MAX_COMPILED_SCHEMAS: Final = 512
MAX_CALLS_IN_FLIGHT: Final = 2_000
PERMIT_HOLDS_S: Final = 10.0
MAX_OPEN_APPROVALS_PER_LINEAGE: Final = 20
MAX_APPROVAL_WAIT_MS: Final = 60_000
APPROVAL_POLL_MS: Final = 250
BUDGET_WAIT_MS: Final = 2_000
BUDGET_POLL_FIRST_MS: Final = 25
BUDGET_POLL_MOST_MS: Final = 400
# What the event loop does itself: two to three milliseconds of work at most. What is longer is done in a thread.
INLINE_TOKENS_CHARS: Final = 2_048
INLINE_TRACE_CHARS: Final = 4_096
INLINE_INDEX_BYTES: Final = 65_536
# Tokens and items of all contexts that a process keeps; a token takes about 90 bytes, so this is 13 MB.
MAX_CACHED_CONTEXT_SIZE: Final = 150_000
MAX_PAST_CALLS: Final = 20_000
# Past calls of all lineages that a process keeps; one takes about a kilobyte.
MAX_CACHED_PAST_CALLS: Final = 20_000
LONGEST_SESSION_S: Final = 31 * 24 * 3600
MAX_PLAN_BYTES: Final = 32 * 1024
MAX_CACHED_PLAN_BYTES: Final = 2 * 1024 * 1024
MAX_PLAN_OPERATIONS: Final = 100
MAX_PLANNED_VALUES: Final = 100
MAX_FIELD_PATH_CHARS: Final = 200
MAX_CHOICE_CHARS: Final = 1_000
MAX_DOUBTS_WATCHED: Final = 200
DOUBTS_AT_ONCE: Final = 8
MAX_LOOKS: Final = 6
LOOK_HOLD_MARGIN_S: Final = 30.0
LOOK_PAUSE_MOST_S: Final = 60.0
# Claims whose answer never came: how many are remembered, and for how long the database is asked after each.
MAX_GIVEN_UP: Final = 10_000
GIVEN_UP_AT_ONCE: Final = 64
GIVEN_UP_WATCHED_S: Final = 600.0
# How long whoever gave a claim up has to say so, before it is sent again as one whose end nobody knows.
GIVEN_UP_SAID_S: Final = 5.0
LEASE_S: Final = 1.0
LEASE_MARGIN_S: Final = 0.1
# Nothing starts in the last moment of a lease, so that a busy machine does not take a write for one after a pause.
LAST_START_S: Final = 0.05
LEASE_WAIT_MS: Final = 1_500
MAX_REMEMBERED_STOPS: Final = 10_000
# How long a control change waits before it looks again whether a first byte that is being written has left.
SWEEP_MS: Final = 0.2
