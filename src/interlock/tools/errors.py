"""Everything the tools package raises. What a tool or a network does is never raised: that is a `ToolFailure`."""

from __future__ import annotations

from interlock.tools.port import ToolUnavailableError

__all__ = [
    "AnswerNotKeptError",
    "CallFailedError",
    "CalledLateError",
    "StreamEndedError",
    "ToolConfigurationError",
    "ToolUnavailableError",
]


class ToolConfigurationError(ValueError):
    """A tool's source cannot be used as written; the message says what to change in its file."""


class CalledLateError(Exception):
    """The tool let the call be, because its time to begin was over: certainly nothing was done."""


class CallFailedError(Exception):
    """Inside this package only: why a request had no answer. Turned into a `ToolFailure` before it leaves a connector.

    `code` is one of those of `ToolFailure`; `detail` is for operators and never holds a credential.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class AnswerNotKeptError(CallFailedError):
    """The answer was longer than is kept. It was read to its end all the same, and said whether the call was done.

    `request_id` is the request it named, None when it named none.
    """

    def __init__(self, *, is_error: bool, size_bytes: int, request_id: int | str | None = None) -> None:
        super().__init__("too_large", f"the answer is {size_bytes} bytes long, which is more than is kept")
        self.is_error = is_error
        self.size_bytes = size_bytes
        self.request_id = request_id


class StreamEndedError(CallFailedError):
    """A stream ended before the result, and the server has said where to take it up again (MCP 2025-11-25, resumability)."""

    def __init__(self, event_id: str, retry_ms: int) -> None:
        super().__init__("protocol", "the stream ended without the result")
        self.event_id = event_id
        self.retry_ms = retry_ms
