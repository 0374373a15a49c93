"""Pictures, sounds and files inside a result: nobody reads them as a text."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any, Final

MIN_FILE_CHARS: Final = 256


def files_in(value: Mapping[str, Any]) -> Collection[str]:
    """The names of the properties that hold one. What merely says that it is one, and could be read as a text, is none."""
    if not isinstance(value.get("mimeType"), str):
        return ()
    return [name for name in ("blob", "data") if _is_file(value.get(name))]


def without_files(value: Any) -> Any:
    """A value as JSON without them, at every level."""
    match value:
        case dict():
            files = files_in(value)
            return {name: without_files(inside) for name, inside in value.items() if name not in files}
        case list() | tuple():
            return [without_files(inside) for inside in value]
        case _:
            return value


def _is_file(value: Any) -> bool:
    """Whether this is base64 of something that is no text; what is short is read anyway."""
    if not isinstance(value, str) or len(value) < MIN_FILE_CHARS:
        return False
    try:
        base64.b64decode(value, validate=True).decode("utf-8")
    except UnicodeDecodeError:
        return True
    except ValueError:
        return False
    return False
