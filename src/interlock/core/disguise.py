"""One form for texts that are the same to a reader, and the texts that are hidden inside a text.

Two rules with opposite aims. What *vouches* for a value compares strictly, so that nothing that merely looks alike is
vouched for. What *accuses* a value compares loosely, so that no disguise helps.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from typing import Final, Literal

MAX_VARIANTS: Final = 64
MAX_VARIANT_DEPTH_LEVELS: Final = 3
MIN_BASE64_CHARS: Final = 12
MAX_MARKS: Final = 30
_JOINER: Final = "\u034f"  # a letter to the algorithm, and nothing to a reader
_FOREIGN: Final = re.compile(rf"[^\x00-\x7f]{{{MAX_MARKS + 1},}}")
_BASE64: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_BASE64_CHARS},}}={{0,2}}")
_HEX: Final = re.compile(r"\b(?:[0-9A-Fa-f]{2}){6,}\b")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_PERCENTS: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY: Final = re.compile(r"&(?:#\d+|#x[0-9A-Fa-f]+|[A-Za-z]+);")
_TAG_BASE: Final = 0xE0000  # Unicode tag characters mirror ASCII and are shown by nothing
_TAGS: Final = range(0xE0020, 0xE007F)
# Letters of other scripts that a reader takes for Latin ones; what NFKC already folds is not repeated here.
_LOOK_ALIKE: Final = str.maketrans(
    {
        **dict(zip("абвгеёзіїјкмнорсѕтухԁԛԝһӏ", "a6bree3iijkmhopcstyxdqwhl", strict=True)),
        **dict(zip("АВЕЁЗІЇЈКМНОРСЅТУХԚԜҺӀ", "abee3iijkmhopcstyxqwhl", strict=True)),
        **dict(zip("αβεικνορτυχωγ", "abeikvoptuxwy", strict=True)),
        **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "abezhikmnoptyx", strict=True)),
        **dict(zip("ıɩǀⅼɑɡʟօոսցհ", "iillaglonugh", strict=True)),
    }
)


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """A text in a normal form of Unicode, in time that grows with its length.

    Putting the marks on one letter in order takes the square of their number, so runs of more than `MAX_MARKS` are parted, as
    the Stream-Safe Text Format does (UAX #15, section 13).
    """
    return unicodedata.normalize(form, _FOREIGN.sub(_parted, text))


def _parted(run: re.Match[str]) -> str:
    made: list[str] = []
    marks = 0
    for char in run.group():
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks > MAX_MARKS:
            made.append(_JOINER)
            marks = 1
        made.append(char)
    return "".join(made)


def strict(text: str) -> str:
    """The form in which a value vouches for another: composed, without case. Look-alikes stay different.

    Lowered, not folded: folding takes ß for ss, and two domains that differ in it belong to two people (RFC 5894, section 7.2).
    """
    return normalized("NFC", text).lower()


def loose(text: str) -> str:
    """The form in which disguises fall away: compatibility forms, invisible characters, look-alike letters, case."""
    if text.isascii():
        return text.lower()
    plain = normalized("NFKC", text)
    visible = "".join(char for char in plain if unicodedata.category(char) not in {"Cf", "Cc", "Mn"} or char in "\n\t")
    return visible.translate(_LOOK_ALIKE).casefold()


def variants(text: str) -> list[str]:
    """The text in its loose form, and every text that is encoded in it (percent, HTML, base64, hex), at most `MAX_VARIANTS`.

    Encodings inside encodings are followed to a depth of `MAX_VARIANT_DEPTH_LEVELS`.
    """
    found = [loose(text)]
    seen = set(found)
    layer = [text]
    for _ in range(MAX_VARIANT_DEPTH_LEVELS):
        inner: list[str] = []
        for outer in layer:
            for decoded in _decoded(outer):
                plain = loose(decoded)
                if plain not in seen and len(found) < MAX_VARIANTS:
                    seen.add(plain)
                    found.append(plain)
                    inner.append(decoded)
        if not inner:
            break
        layer = inner
    return found


def tags_in(text: str) -> str:
    """What the invisible tag characters of a text spell."""
    return "".join(chr(ord(char) - _TAG_BASE) for char in text if _TAGS.start <= ord(char) < _TAGS.stop)


def _decoded(text: str) -> list[str]:
    found: list[str] = []
    if not text.isascii():
        unseen = "".join(char for char in text if unicodedata.category(char) != "Cf")
        if unseen != text:
            found.append(unseen)
        hidden = tags_in(text)
        if hidden:
            found.append(hidden)
    if _PERCENT.search(text):
        found.append(
            _PERCENTS.sub(lambda match: bytes.fromhex(match.group().replace("%", "")).decode("utf-8", "replace"), text)
        )
    if _ENTITY.search(text):
        found.append(html.unescape(text))
    for match in _BASE64.finditer(text):
        decoded = _base64(match.group())
        if decoded:
            found.append(decoded)
    for match in _HEX.finditer(text):
        decoded = _printable(binascii.unhexlify(match.group()))
        if decoded:
            found.append(decoded)
    return found


def _base64(text: str) -> str:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _printable(base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True))
    except (binascii.Error, ValueError):
        return ""


def _printable(data: bytes) -> str:
    """The text in these bytes; empty when they hold none, so that words which happen to be base64 do not count."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if all(char.isprintable() or char in "\r\n\t" for char in text) else ""
