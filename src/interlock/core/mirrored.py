"""Arguments that stand in headers too (MCP 2026-07-28, `x-mcp-header`), so that what routes a call need not read its body."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

_PLAIN_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_ENCODED: Final = re.compile(r"=\?base64\?.*\?=")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_DEPTH_MAX_LEVELS: Final = 16

Mirrored = tuple[tuple[tuple[str, ...], str], ...]
"""Pairs of a path of properties and the part of the header's name after `Mcp-Param-`."""


def header_value(text: str) -> str:
    """`text` as a header value: plain where it survives, else in the base64 form of SEP-2243."""
    if _PLAIN_VALUE.fullmatch(text) and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8')).decode('ascii')}?="


def mirrored_parameters(input_schema: str) -> Mirrored:
    """Which arguments a stateless server wants repeated as `Mcp-Param-...` headers (`x-mcp-header` in the schema).

    Returns (path of properties, header name part) pairs; what is not an annotated property of the plain kind is left out.
    """
    try:
        schema = msgspec.json.decode(input_schema)
    except (msgspec.DecodeError, RecursionError):
        return ()
    return tuple(_annotated(schema, ()))


def parameter_headers(mirrored: Mirrored, arguments: bytes) -> dict[str, str]:
    """The headers for `arguments` (a JSON object)."""
    if not mirrored:
        return {}
    values = msgspec.json.decode(arguments)
    shown = ((token, _shown(_at(values, path))) for path, token in mirrored)
    return {f"Mcp-Param-{token}": header_value(value) for token, value in shown if value is not None}


def mismatch(mirrored: Mirrored, arguments: object, headers: Mapping[str, str | None]) -> str:
    """The first argument whose header says something else, or is there without it, or missing; empty when all agree.

    `headers` are the decoded values by lower-case token; None for one that cannot be read, or stood twice.
    """
    for path, token in mirrored:
        value = _at(arguments, path)
        wanted, named = _shown(value), token.lower()
        if (wanted is None) != (named not in headers):
            return ".".join(path)
        if wanted is not None and not _same(value, wanted, headers[named]):
            return ".".join(path)
    return ""


def _same(value: object, wanted: str, said: str | None) -> bool:
    if said is None or said == wanted:
        return said == wanted
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # One number has several spellings.
    return _NUMBER.fullmatch(said) is not None and Decimal(said) == Decimal(str(value))


def _at(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _shown(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _annotated(schema: object, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH_MAX_LEVELS:
        return []
    found: list[tuple[tuple[str, ...], str]] = []
    for name, inner in properties.items():
        token = inner.get("x-mcp-header") if isinstance(inner, dict) else None
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            found.append(((*path, name), token))
        found += _annotated(inner, (*path, name))
    return found
