"""That something in a listing, or a resource, has changed: told within a process to whoever listens. It carries no text."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class Listing(StrEnum):
    """Which listing."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A listing of a tool has changed, or one of its resources; of every tool without `tool`."""

    tool: str = ""
    listing: Listing | None = None
    uri: str = ""


class Changes:
    """Belongs to one event loop. Listeners are called at once and must neither wait nor raise."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[Changed], None]] = {}

    def listen(self, listener: Callable[[Changed], None]) -> Callable[[], None]:
        """Be told from now on; call what is returned to end it."""
        key = object()
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    def tell(self, changed: Changed) -> None:
        """Tell all."""
        for listener in list(self._listeners.values()):
            listener(changed)
