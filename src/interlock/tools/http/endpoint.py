"""The address of an MCP server, and the headers that every request to it begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from interlock import __version__
from interlock.tools.errors import ToolConfigurationError

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


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
