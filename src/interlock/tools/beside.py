"""What a server says beside its answer while a call is under way: progress, log messages, and what it asks of the caller.

INVARIANT: of what comes before the answer only numbers of progress go on at once, and they are finite, rising and counted;
every text waits for the settlement, and what is asked is put to the caller by the gate alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.tools import messages
from interlock.tools.errors import CallFailedError
from interlock.tools.limits import ToolLimits
from interlock.tools.messages import Message
from interlock.tools.port import AskRefusedError, Line

ASKED: Final[Mapping[str, str]] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""What a server may ask of a client, and the capability by which a client offers it."""
_MOST_PROGRESS: Final = 2**53


class Beside:
    """For one call. Hand it every message that is not the reply."""

    def __init__(self, line: Line, request_id: int, limits: ToolLimits) -> None:
        self.logs: list[Mapping[str, object]] = []
        self._line = line
        self._request_id = request_id
        self._limits = limits
        self._told = 0
        self._asked = 0
        self._reached = -math.inf

    def notified(self, message: Message) -> None:
        """Take up a notification: progress goes on as numbers, a log message is kept, the rest means nothing."""
        if message.method == "notifications/progress" and self._line.progress is not None:
            self._progress(messages.params_of(message))
        elif message.method == "notifications/message" and self._line.log_level is not None:
            self._log(messages.params_of(message))

    def check_request(self) -> None:
        """Count a request of the server. Raises `CallFailedError` (`too_large`) for one too many."""
        self._asked += 1
        if self._asked > self._limits.server_requests_max:
            raise CallFailedError("too_large", f"more than {self._limits.server_requests_max} requests of the server")

    def goes_on(self, message: Message) -> bool:
        """Whether a request of the server may be put to the caller."""
        return self._line.ask is not None and ASKED.get(message.method, "") in self._line.offers

    async def answer(self, message: Message) -> bytes:
        """Put a request to the caller; gives the message that answers the server."""
        assert self._line.ask is not None  # noqa: S101  # `goes_on` looked
        try:
            return messages.answer(message, await self._line.ask(message.method, messages.params_of(message)))
        except AskRefusedError as error:
            return messages.declined(message, str(error))

    def _progress(self, params: Mapping[str, Any]) -> None:
        done, total = _number(params.get("progress")), _number(params.get("total"))
        if params.get("progressToken") != self._request_id or done is None or done <= self._reached:
            return
        self._told += 1
        if self._line.progress is not None and self._told <= self._limits.progress_max:
            self._reached = done
            self._line.progress(done, total)

    def _log(self, params: Mapping[str, Any]) -> None:
        kept = {name: params[name] for name in ("level", "logger", "data") if name in params}
        short = len(msgspec.json.encode(kept)) <= self._limits.log_max_bytes
        if short and isinstance(kept.get("level"), str) and "data" in kept and len(self.logs) < self._limits.logs_max:
            self.logs.append(kept)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared, not converted: JSON has whole numbers that no float can hold.
    return value if 0 <= value <= _MOST_PROGRESS else None
