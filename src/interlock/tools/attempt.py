"""One invocation under way: whether it has left, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from interlock.tools.errors import AnswerNotKeptError, CalledLateError, CallFailedError
from interlock.tools.port import Invocation, ToolAnswer, ToolFailure, ToolResult


class Attempt:
    """Carries an `Invocation` to where it is written.

    INVARIANT: `sent` is False only while not one byte of the call can have left: callers then believe that nothing happened.
    """

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.sent = False

    def first_byte(self) -> None:
        """Call immediately before the first write. Raises `CallFailedError` (`refused`) when the call may not start."""
        try:
            self.invocation.before_first_byte()
        except Exception as error:
            raise CallFailedError("refused", f"stopped before the first byte: {type(error).__name__}: {error}") from error
        self.sent = True

    async def end(self, work: Awaitable[ToolAnswer]) -> ToolResult:
        """Wait for `work` within the invocation's time and turn what it raises into a `ToolFailure`."""
        try:
            async with asyncio.timeout(self.invocation.timeout_ms / 1000):
                return await work
        except TimeoutError:
            return self.failed("timeout", f"no answer within {self.invocation.timeout_ms} ms")
        except CalledLateError as error:
            return ToolFailure(sent=False, code="late", detail=f"the tool let it be: {error}")
        except AnswerNotKeptError as error:
            return ToolAnswer(is_error=error.is_error, not_kept_bytes=error.size_bytes)
        except CallFailedError as error:
            return self.failed(error.code, error.detail)

    def failed(self, code: str, detail: str) -> ToolFailure:
        """A failure that tells the truth about `sent`."""
        return ToolFailure(sent=self.sent, code=code, detail=detail)
