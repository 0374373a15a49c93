"""What a server tells unasked: that a listing of its own, or a resource, has changed. Nothing else of it is heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from interlock.core.changes import Listing
from interlock.tools import messages
from interlock.tools.messages import Message

LISTEN: Final = "subscriptions/listen"
FLAGS: Final = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
_LISTINGS: Final = {f"notifications/{listing}/list_changed": listing for listing in Listing}
Hear: TypeAlias = Callable[[Listing | None, str], None]
"""Called with the listing that has changed, or with None and the URI of a resource that has. Must neither wait nor raise."""


def wanted(uris: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of `subscriptions/listen` (2026-07-28)."""
    found: dict[str, Any] = dict.fromkeys(FLAGS, True)
    return {"notifications": found | ({"resourceSubscriptions": list(uris)} if uris else {})}


def listened(message: Message, hear: Hear) -> None:
    """Take up a notification."""
    listing = _LISTINGS.get(message.method)
    if listing is not None:
        hear(listing, "")
    elif message.method == "notifications/resources/updated":
        uri = messages.params_of(message).get("uri")
        if isinstance(uri, str):
            hear(None, uri)
