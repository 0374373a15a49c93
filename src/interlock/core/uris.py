"""URI templates (RFC 6570, levels 1 and 2 without fragments): from a URI to the arguments of a call and back.

`{name}` stands for one segment, `{+path}` for what may hold slashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

_EXPRESSION: Final = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED: Final = _UNRESERVED | frozenset(b":/?#[]@!$&'()*+,;=")
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
MAX_URI_CHARS: Final = 2_048
MAX_COMPILED_TEMPLATES: Final = 512


class TemplateError(ValueError):
    """This is no template that is understood here; the message says why."""


def variables(template: str) -> tuple[str, ...]:
    """The names in a template, in order; none for a plain URI. Raises `TemplateError`."""
    names = tuple(name for _, name in _EXPRESSION.findall(template))
    if "{" in _EXPRESSION.sub("", template) or "}" in _EXPRESSION.sub("", template):
        raise TemplateError("a template holds {name} and {+name} only")
    if len(set(names)) != len(names):
        raise TemplateError("a name stands twice in the template")
    return names


def expand(template: str, values: Mapping[str, str]) -> str:
    """The URI that `values` make. Raises KeyError for a name that has no value."""
    return _EXPRESSION.sub(lambda found: _quoted(values[found[2]], _RESERVED if found[1] else _UNRESERVED), template)


def match(template: str, uri: str) -> dict[str, str] | None:
    """The values that make this very URI; None when there are none.

    INVARIANT: `expand` makes of them the same URI, byte for byte, so what was decided on is what is asked for; and no value
    climbs (`..`) out of where the template puts it.
    """
    if len(uri) > MAX_URI_CHARS:
        return None
    found = _pattern(template).fullmatch(uri)
    if found is None:
        return None
    try:
        values = {name: _unquoted(value) for name, value in found.groupdict().items()}
    except UnicodeDecodeError:
        return None
    if any(_climbs(value) for value in values.values()):
        return None
    return values if expand(template, values) == uri else None


@lru_cache(MAX_COMPILED_TEMPLATES)
def _pattern(template: str) -> re.Pattern[str]:
    made, end = "", 0
    for found in _EXPRESSION.finditer(template):
        inside = r"[^\x00-\x20]+" if found[1] else r"[^/?#\x00-\x20]+"
        made += re.escape(template[end : found.start()]) + f"(?P<{found[2]}>{inside})"
        end = found.end()
    return re.compile(made + re.escape(template[end:]))


def _quoted(value: str, plain: frozenset[int]) -> str:
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in value.encode())


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), value.encode()).decode()


def _climbs(value: str) -> bool:
    return any(part in {".", ".."} for part in re.split(r"[/\\]", value)) or "\x00" in value
