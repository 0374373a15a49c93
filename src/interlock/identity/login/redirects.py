"""Where a browser may be sent back to with a code (RFC 8252, RFC 9700): exactly what the client has registered."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

MAX_REDIRECTS: Final = 8
MAX_REDIRECT_CHARS: Final = 500
_LOOPBACK_IPS: Final = {"127.0.0.1", "::1"}
_LOOPBACK: Final = _LOOPBACK_IPS | {"localhost"}
# Schemes of one application are reversed domain names (RFC 8252, 7.1); these few are in use without a dot.
_KNOWN_SCHEMES: Final = {"cursor", "vscode", "vscode-insiders"}
_DOTTED_SCHEME: Final = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")


def may_register(uri: str) -> bool:
    """Whether a client may register a URI: https, http to this machine, or a scheme of its own; no fragment, nobody's name."""
    parts = _split(uri)
    if parts is None or "#" in uri or parts.username is not None or parts.password is not None:
        return False
    if parts.scheme in {"http", "https"} and not _AUTHORITY.fullmatch(parts.netloc):
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme == "http":
        return parts.hostname in _LOOPBACK
    return parts.scheme in _KNOWN_SCHEMES or _DOTTED_SCHEME.fullmatch(parts.scheme) is not None


def is_registered(uri: str, registered: tuple[str, ...]) -> bool:
    """Whether a URI is one of those registered: to the letter, but for the port of a loopback address (RFC 8252, 7.3)."""
    if not may_register(uri):
        return False
    return uri in registered or any(_same_but_for_port(uri, other) for other in registered)


def goes_to_this_machine(uri: str) -> bool:
    """Whether what is sent there stays on the machine of whoever follows it."""
    parts = _split(uri)
    return parts is not None and (parts.scheme != "https" or parts.hostname in _LOOPBACK)


def origin_of(uri: str) -> str:
    """What a Content-Security-Policy calls the place: `http://127.0.0.1:4711`, or `cursor:`."""
    parts = _split(uri)
    if parts is None:
        return "'none'"
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} else f"{parts.scheme}:"


def with_answer(uri: str, **answer: str) -> str:
    """The URI with an authorization response in its query; what the client had there stays."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(answer)}"


def _split(uri: str) -> SplitResult | None:
    if not 0 < len(uri) <= MAX_REDIRECT_CHARS or not _PLAIN.fullmatch(uri.replace("#", "")):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme and uri.startswith(f"{parts.scheme}:") else None


def _same_but_for_port(uri: str, registered: str) -> bool:
    one, other = _split(uri), _split(registered)
    if one is None or other is None or one.scheme != "http" or one.hostname not in _LOOPBACK_IPS:
        return False
    return (one.hostname, one.path, one.query) == (other.hostname, other.path, other.query) and other.scheme == "http"
