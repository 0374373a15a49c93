"""What of a released result is read as text, and so taken up by provenance and looked at for evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from interlock.gateway.released import Released
from interlock.provenance.files import without_files
from interlock.provenance.trace import texts_in

_CHARS_OF_A_NUMBER = 8


def told(released: Released) -> tuple[str, ...]:
    """What the blocks of a result without structure say. Where there is one, the text beside it is only the same again."""
    return () if released.structured is not None else tuple(text for block in released.content for text in _of_block(block))


def told_beside(released: Released) -> tuple[str, ...]:
    """What comes with a result and is read, too: log messages, what the tool asks, and blocks beside structured content.

    The text among those is the structure again (`outputs.release_output`); links and embedded resources are not.
    """
    asks = () if released.asks is None else tuple(released.asks.requests.values())
    others = () if released.structured is None else [block for block in released.content if block.get("type") != "text"]
    if not (asks or others or released.logs):
        return ()
    items = tuple(text for item in (*released.logs, *asks) for text in texts_in(dict(item)))
    return (*items, *(text for block in others for text in _of_block(block)))


def every_text(released: Released) -> tuple[str, ...]:
    """All of it, with the texts of a structure."""
    inside = () if released.structured is None else texts_in(without_files(released.structured))
    return (*told(released), *inside, *told_beside(released))


def chars(value: Any, most: int) -> int:
    """About how many characters there are in a value as JSON; when it is more than `most`, any number above it."""
    size, pending = 0, [value]
    while pending and size <= most:
        item = pending.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict):
            pending += item
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
        else:
            size += _CHARS_OF_A_NUMBER
    return size


def _of_block(block: Mapping[str, Any]) -> Iterator[str]:
    """Text, text inside resources that a block carries, names and descriptions of links: all of it is read."""
    readable = without_files(dict(block))
    if block.get("type") == "text":
        if isinstance(text := readable.get("text"), str):
            yield text
        readable = {name: value for name, value in readable.items() if name not in {"text", "type"}}
    yield from texts_in(readable)
