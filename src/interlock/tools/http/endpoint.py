"""The address of an MCP server, and the headers that every request to it begins with."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from interlock import __version__
from interlock.tools.errors import ToolConfigurationError

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_PLAIN_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_ENCODED: Final = re.compile(r"=\?base64\?.*\?=")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_DEPTH_MAX_LEVELS: Final = 16

Mirrored = tuple[tuple[tuple[str, ...], str], ...]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `target` is the path with its query, `authority` the Host header."""

    host: str
    port: int
    tls: bool
    target: str
    authority: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read an absolute http(s) URL. Raises `ToolConfigurationError`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ToolConfigurationError(f"not a URL: {error}") from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ToolConfigurationError("a tool's url begins with http:// or https:// and names a host")
        if parts.username is not None or parts.password is not None:
            raise ToolConfigurationError("a tool's url must not hold a secret; use `credential`")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _VISIBLE.fullmatch(url) or not _VISIBLE.fullmatch(target):
            raise ToolConfigurationError("a tool's url is visible ASCII; percent-encode the rest")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            host=parts.hostname,
            port=port or _DEFAULT_PORTS[parts.scheme],
            tls=parts.scheme == "https",
            target=target,
            authority=host if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{host}:{port}",
        )

    def head(self, method: str, headers: Mapping[str, str]) -> bytes:
        """Request line and headers, without the empty line at the end. Values must already be safe."""
        fixed = {
            "Host": self.authority,
            "User-Agent": f"interlock/{__version__}",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**fixed, **headers}.items())
        return f"{method} {self.target} HTTP/1.1\r\n{lines}".encode("ascii")


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


def parameter_headers(mirrored: Mirrored, arguments: bytes) -> str:
    """The header lines for `arguments` (a JSON object), each ending in CRLF."""
    if not mirrored:
        return ""
    values = msgspec.json.decode(arguments)
    lines = ""
    for path, token in mirrored:
        value: Any = values
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, bool):
            lines += f"Mcp-Param-{token}: {'true' if value else 'false'}\r\n"
        elif isinstance(value, str | int | float):
            lines += f"Mcp-Param-{token}: {header_value(str(value))}\r\n"
    return lines


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
