"""How much a tool may cost us, in one place."""

from __future__ import annotations

import msgspec


class ToolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on every loop, queue, payload and wait of the connectors. The overall time of a call is its contract's."""

    response_max_bytes: int = 4 * 1024 * 1024
    """One answer, all stream events together, or one line of a stdio server; of what is longer nothing is kept."""
    skimmed_max_bytes: int = 64 * 1024 * 1024
    """What is longer is read on so far, within the time of the call, to learn whether the call was done; then given up."""
    header_max_bytes: int = 32 * 1024
    stream_max_events: int = 10_000
    """Progress and log notifications tolerated before the result."""
    server_requests_max: int = 16
    """Requests of the server to us that are answered (with a refusal) during one call."""
    progress_max: int = 256
    """Progress notifications of one call that are passed on; the rest is dropped."""
    logs_max: int = 100
    """Log messages of one call that are kept; the rest is dropped."""
    log_max_bytes: int = 4 * 1024
    """One log message; a longer one is dropped."""
    asks_max: int = 16
    """Requests in one answer that says it needs input."""
    state_max_bytes: int = 64 * 1024
    """The opaque state that a tool wants back with what it asked for."""
    resumptions_max: int = 32
    """How often the stream of one call is taken up again after its server ended it early."""
    resumption_wait_max_ms: int = 5_000
    connections_max: int = 64
    """Open HTTP connections of one connection key; further calls wait within their own time."""
    connection_idle_s: float = 45.0
    connect_timeout_ms: int = 5_000
    negotiate_timeout_ms: int = 10_000
    listing_timeout_ms: int = 30_000
    listing_max_pages: int = 100
    listing_max_tools: int = 2_000
    close_timeout_ms: int = 1_000
    """Farewells: ending a session, draining a stream after its result, each step of stopping a process."""
    keys_max: int = 256
    """Connection keys one connector keeps open; the longest unused one makes room."""
    processes_max: int = 16
    """The same for stdio tools, where each key is a process."""
    key_idle_s: float = 300.0
    process_calls_max: int = 64
    """Calls under way in one stdio process."""
    process_unread_max_bytes: int = 8 * 1024 * 1024
    """Input a stdio process has not read; beyond it nothing more is written."""
    stderr_max_bytes_per_minute: int = 64 * 1024
    """Of a stdio server's stderr that is logged; the rest is dropped."""
    python_threads_max: int = 16
    credential_cache_s: float = 15.0
    retire_grace_s: float = 5.0
    """How long a connector that a new release no longer names still takes calls decided by the old one."""


DEFAULT_LIMITS = ToolLimits()
