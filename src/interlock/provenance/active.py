"""The parts of a text that act on whoever reads it (links, images, commands), or give somebody away (cards, papers)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from interlock.core.disguise import variants
from interlock.provenance.tokens import mail_addresses

MAX_PARTS: Final = 100
KINDS: Final = ("card", "command", "identity", "image", "link", "recipient")
CARD_WORD_CHARS: Final = 40
_LINK: Final = re.compile(r"\b(?:https?|ftp|file|data|javascript|mailto|tel|smb):[^\s<>\"'`)\]]+", re.IGNORECASE)
# As clients make links of them: known endings, anything with a path behind a host, an address, `//host`.
_ENDINGS: Final = (
    "com|net|org|io|dev|app|ai|co|ru|cn|xyz|top|info|biz|uk|de|eu|fr|nl|jp|br|cc|tk|ly|gg|su|icu"
    "|link|site|online|shop|club|live|page|click|cloud|tech|store|website|space"
)
_REST: Final = r"(?:/[^\s<>\"'`)\]]*)"
_BARE: Final = re.compile(
    rf"(?<![\w@.:/-])(?:www\.[\w-]+|[\w-]+(?:\.[\w-]+)*\.(?:{_ENDINGS}))(?:\.[\w-]+)*{_REST}?(?![\w@-])"
    rf"|(?<![\w@.:/-])(?:[\w-]+\.)+[^\W\d_]{{2,}}(?::\d+)?{_REST}"
    rf"|(?<![\w@.:/-])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?{_REST}"
    rf"|(?<![\w:/])//[\w-]+(?:\.[\w-]+)+(?::\d+)?{_REST}?",
    re.IGNORECASE,
)
# What may go on for long is bounded or ends where another attempt begins, so that no text costs the square of its length.
_IMAGE: Final = re.compile(
    r"!\[[^\]]{0,300}\]\(\s*<?([^)\s>]+)|<(?:img|iframe|script|link|video|audio|object)\b[^<>]{0,1000}?(?:src|href|data)\s*=\s*[\"']?([^\"'\s>]+)",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"(?:^|\n|\r)[^\S\r\n]*(?:to|cc|bcc|reply-to|from)\s*:\s*([^\r\n]+)", re.IGNORECASE)
_COMMAND: Final = re.compile(
    r"(?:^|[\s;&|`(])((?:curl|wget|bash|sh|powershell|pwsh|cmd(?:\.exe)?|nc|ncat|python3?|perl|ruby|eval|rm|chmod|sudo)\s+"
    r"(?:-|https?:|/|\$|\"|')[^\n;]{0,200})",
    re.IGNORECASE,
)
# Without the word beside it, only what passes the check of ISO/IEC 7812 counts as a card: other long numbers are common.
_CARD: Final = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_CARD_WORD: Final = re.compile(r"(?:\bcards?|credit|debit|visa|mastercard|amex)(?:\b|_)[^\n]{0,24}$", re.IGNORECASE)
_IDENTITY: Final = re.compile(
    r"\b(?:passport|ssn|social[ _-]security|id(?:entity)?[ _-]?card|driver'?s?[ _-]licen[cs]e)(?:[ _-]?(?:number|no|nr)\b)?"
    r"[\s.:=#\"'-]{0,6}(?:is\s{1,3})?((?=(?:[A-Z-]{0,8}\d){4})[A-Z0-9][A-Z0-9-]{5,19})(?![\w-])",
    re.IGNORECASE,
)


def active_parts(text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each active part, plain or hidden; `MAX_PARTS` at most.

    Kinds: `image`, `link`, `recipient`, `command`, `card` (a payment card), `identity` (a passport, or the like).
    """
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
    for piece, pattern in _perhaps_links(plain):
        for match in pattern.finditer(piece):
            yield "link", match.group().lstrip("/").rstrip(".,;:!?")
    for match in _HEADER.finditer(plain):
        for address in mail_addresses(match.group(1)):
            yield "recipient", address
    for match in _COMMAND.finditer(plain):
        yield "command", match.group(1).strip()
    for match in _CARD.finditer(plain):
        if _is_card(match.group()) or _CARD_WORD.search(plain[max(0, match.start() - CARD_WORD_CHARS) : match.start()]):
            yield "card", match.group()
    for match in _IDENTITY.finditer(plain):
        yield "identity", match.group(1)


def _perhaps_links(plain: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """The pieces of a text in which a link may be found, for none holds a gap; and by which pattern."""
    pieces = plain.split()
    yield from ((piece, _LINK) for piece in pieces if ":" in piece)
    yield from ((piece, _BARE) for piece in pieces if "." in piece)


def _is_card(written: str) -> bool:
    """The check digit of a payment card (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in written if char.isdigit()]
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])  # noqa: PLR2004  # two digits then, added
    return digits[0] in {2, 3, 4, 5, 6} and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
