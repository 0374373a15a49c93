"""The parts of a text that act on whoever reads it: links, images, further recipients, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from interlock.core.disguise import variants

MAX_PARTS: Final = 100
_LINK: Final = re.compile(r"\b(?:https?|ftp|file|data|javascript|mailto|tel|smb):[^\s<>\"'`)\]]+", re.IGNORECASE)
_BARE: Final = re.compile(
    r"(?<![\w@.:/-])(?:www\.[\w-]+|[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|io|dev|app|ai|co|ru|cn|xyz|top|info))(?:\.[\w-]+)*(?:/[^\s<>\"'`)\]]*)?(?![\w@-])",
    re.IGNORECASE,
)
_IMAGE: Final = re.compile(
    r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<(?:img|iframe|script|link|video|audio|object)\b[^>]*?(?:src|href|data)\s*=\s*[\"']?([^\"'\s>]+)",
    re.IGNORECASE,
)
_MAIL: Final = re.compile(r"[\w.!#$%&*+/=?^{|}~-]+@[\w-]+(?:\.[\w-]+)+")
_HEADER: Final = re.compile(r"(?:^|\n|\r)\s*(?:to|cc|bcc|reply-to|from)\s*:\s*([^\r\n]+)", re.IGNORECASE)
_COMMAND: Final = re.compile(
    r"(?:^|[\s;&|`(])((?:curl|wget|bash|sh|powershell|pwsh|cmd(?:\.exe)?|nc|ncat|python3?|perl|ruby|eval|rm|chmod|sudo)\s+"
    r"(?:-|https?:|/|\$|\"|')[^\n;]{0,200})",
    re.IGNORECASE,
)


def active_parts(text: str) -> Iterator[tuple[str, str]]:
    """Kind (`image`, `link`, `recipient`, `command`) and text of each active part, plain or hidden; `MAX_PARTS` at most."""
    given: set[tuple[str, str]] = set()
    # No pattern minds case: a variant that differs in nothing else has no part of its own.
    for plain in {plain.casefold(): plain for plain in reversed((text, *variants(text)))}.values():
        for part in _parts(plain):
            key = (part[0], part[1].casefold())
            if key not in given and len(given) < MAX_PARTS:
                given.add(key)
                yield part


def _parts(plain: str) -> Iterator[tuple[str, str]]:
    for match in _IMAGE.finditer(plain):
        yield "image", match.group(1) or match.group(2)
    for pattern in (_LINK, _BARE):
        for match in pattern.finditer(plain):
            yield "link", match.group().rstrip(".,;:!?")
    for match in _HEADER.finditer(plain):
        for address in _MAIL.finditer(match.group(1)):
            yield "recipient", address.group()
    for match in _COMMAND.finditer(plain):
        yield "command", match.group(1).strip()
