"""What a tool answered, and what of it may leave the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.gateway.messages import Asked
from interlock.tools.port import Asks

UNREADABLE_ERROR: Final = {"type": "text", "text": "The tool reported an error that cannot be read here."}
LONG_ERROR: Final = {"type": "text", "text": "The tool reported an error that is too long to be kept here."}
WITHHELD_ERROR: Final = {"type": "text", "text": "The tool reported an error. Its text is withheld in this session."}
_OUR_OWN_WORDS: Final = (UNREADABLE_ERROR, LONG_ERROR, WITHHELD_ERROR)


class RawOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool's answer before obligations. Stored as JSON text for replays of writes."""

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    logs: tuple[Mapping[str, Any], ...] = ()
    asks: Asks | None = None
    error_code: int = 0
    needs: tuple[str, ...] = ()


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """What may leave the gate after obligations, or `withheld` with the reason. `not_kept`: nobody has it any more."""

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] | None = None
    is_error: bool = False
    redacted: tuple[str, ...] = ()
    withheld: str = ""
    not_kept: bool = False
    asks: Asked | None = None
    refused_ask: str = ""
    logs: tuple[Mapping[str, Any], ...] = ()
    error_code: int = 0
    needs: tuple[str, ...] = ()

    @property
    def tells_an_error(self) -> bool:
        """Whether there are words of a tool that failed in it, not ours."""
        return self.is_error and any(block not in _OUR_OWN_WORDS for block in self.content)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is given to the caller."""
        return not self.content and self.structured is None and not self.logs and self.asks is None

    def written(self) -> dict[str, Any]:
        """All that is given to the caller, as it is recorded."""
        found: dict[str, Any] = {"content": self.content, "structured": self.structured}
        found |= {"logs": self.logs} if self.logs else {}
        return found | ({"asks": self.asks.requests} if self.asks is not None else {})
