"""One form for texts that are the same to a reader, and the texts that are hidden inside a text.

Two rules with opposite aims. What *vouches* for a value compares strictly, so that nothing that merely looks alike is
vouched for. What *accuses* a value compares loosely, so that no disguise helps.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import re
import unicodedata
from typing import Final, Literal, NamedTuple

MAX_VARIANTS: Final = 64
MAX_REMEMBERED_VALUES: Final = 1_024
MAX_REMEMBERED_CHARS: Final = 256
MAX_VARIANT_DEPTH_LEVELS: Final = 3
MIN_BASE64_CHARS: Final = 12
MIN_PRINTABLE_TO_ODD: Final = 10
MAX_MARKS: Final = 30
_JOINER: Final = "\u034f"  # a letter to the algorithm, and nothing to a reader
_FOREIGN: Final = re.compile(rf"[^\x00-\x7f]{{{MAX_MARKS + 1},}}")
_BASE64: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_BASE64_CHARS},}}={{0,2}}")
# Printable ASCII without the signs that the other encodings begin with; what is hexadecimal is found by `_BASE64` as well.
_UNENCODED: Final = re.compile(r"[\t\n\r !-$'-<>-\[\]-~]*")
_HEX: Final = re.compile(r"\b(?:[0-9A-Fa-f]{2}){6,}\b")
_PERCENTS: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY: Final = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+);?|&[A-Za-z][A-Za-z0-9]+;")
# JSON, JavaScript, Python: `\u0040`, `\x40`, and what ends a line or a text.
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([nrt\"'/\\]))")
_PLAIN_ESCAPES: Final = {"n": "\n", "r": "\n", "t": "\t"}
# RFC 2045, section 6.7; a query (`?limit=40`) is not taken for it.
_QUOTED_PRINTABLE: Final = re.compile(r"=(?:3D|\r?\n)|\w=(?:40|2E)\w")
_QUOTED: Final = re.compile(r"=(?:([0-9A-F]{2})|\r?\n)")
_UNSEEN: Final = frozenset({"Cf", "Cc", "Mn"})
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
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
    return text.lower() if text.isascii() else normalized("NFC", text).lower()


def loose(text: str) -> str:
    """The form in which disguises fall away: compatibility forms, invisible characters, look-alike letters, case."""
    return _visible(text).lower() if text.isascii() else _alike(text).casefold()


def _alike(text: str) -> str:
    """A text as a reader takes it, in Latin letters; case stays."""
    plain = _visible(text)
    alike = {ord(char): _LOOK_ALIKE[ord(char)] for char in set(plain) if ord(char) in _LOOK_ALIKE}
    return plain.translate(alike) if alike else plain


def _visible(text: str) -> str:
    """Without what is shown by nothing. Each character is asked about once: texts are long, and alphabets are short."""
    if text.isascii():
        return _CONTROLS.sub("", text) if _CONTROLS.search(text) else text
    plain = normalized("NFKC", text)
    unseen = {ord(char): None for char in set(plain) if unicodedata.category(char) in _UNSEEN and not char.isspace()}
    return plain.translate(unseen) if unseen else plain


class Unfolded(NamedTuple):
    """What a text says and hides. `is_complete` is False when more is hidden in it than was followed."""

    texts: tuple[str, ...]
    is_complete: bool


def variants(text: str) -> tuple[str, ...]:
    """The texts of `unfolded`."""
    return unfolded(text).texts


def unfolded(text: str) -> Unfolded:
    """The text in its loose form, and every text that is encoded in it, at most `MAX_VARIANTS`.

    Encodings are percent, HTML, base64, hexadecimal, escapes of JSON, and quoted-printable; inside encodings they are followed
    to a depth of `MAX_VARIANT_DEPTH_LEVELS`. What is encoded one way in many places makes one text, so that no number of
    decoys hides another.
    """
    return _of_value(text) if len(text) <= MAX_REMEMBERED_CHARS else _unfolded(text)


@functools.lru_cache(MAX_REMEMBERED_VALUES)
def _of_value(text: str) -> Unfolded:
    """A value is asked about several times in one call."""
    return _unfolded(text)


def reads_one_way(text: str) -> bool:
    """Whether nothing is hidden or encoded in a text, so that its strict form and its loose form are all its `variants`."""
    return _UNENCODED.fullmatch(text) is not None and (len(text) < MIN_BASE64_CHARS or _BASE64.search(text) is None)


def _unfolded(text: str) -> Unfolded:
    if reads_one_way(text):
        return Unfolded((strict(text),), is_complete=True)
    found = [loose(text)]
    layer, followed, kept = [text], {text}, set(found)
    for level in range(MAX_VARIANT_DEPTH_LEVELS + 1):
        inner = [decoded for outer in layer for decoded in _decoded(outer) if decoded not in followed]
        if inner and level == MAX_VARIANT_DEPTH_LEVELS:
            return Unfolded(tuple(found), is_complete=False)
        layer = list(dict.fromkeys(inner))
        followed.update(layer)
        for plain in map(loose, layer):
            if plain not in kept and len(found) == MAX_VARIANTS:
                return Unfolded(tuple(found), is_complete=False)
            if plain not in kept:
                kept.add(plain)
                found.append(plain)
    return Unfolded(tuple(found), is_complete=True)


def tags_in(text: str) -> str:
    """What the invisible tag characters of a text spell."""
    if text.isascii() or not any(ord(char) in _TAGS for char in set(text)):
        return ""
    return "".join(chr(ord(char) - _TAG_BASE) for char in text if ord(char) in _TAGS)


def _decoded(text: str) -> list[str]:
    found: list[str] = []
    # An encoding may be written in look-alikes, and with what cannot be seen in between. Its case stays: base64 minds it.
    plain = _visible(text) if text.isascii() else _alike(text)
    if plain != text:
        found.append(plain)
    hidden = tags_in(text)
    if hidden:
        found += [hidden, text.translate({code: code - _TAG_BASE for code in _TAGS})]
    if "%" in text and _PERCENTS.search(text):
        found.append(
            _PERCENTS.sub(lambda match: bytes.fromhex(match.group().replace("%", "")).decode("utf-8", "replace"), text)
        )
    if "&" in text and _ENTITY.search(text):
        found.append(html.unescape(text))
    if "\\" in text and _ESCAPE.search(text):
        # Two escapes may make one character (RFC 8259, section 7); one alone makes none.
        unescaped = _ESCAPE.sub(_unescaped, text)
        found.append(unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if "=" in text and _QUOTED_PRINTABLE.search(text):
        found.append(_QUOTED.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", text))
    for pattern, decode in ((_BASE64, _base64), (_HEX, _hex)):
        pieces = [decoded for match in pattern.finditer(text) if (decoded := decode(match.group()))]
        if pieces:
            found.append("\n".join(pieces))
    return found


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _PLAIN_ESCAPES.get(match[3], match[3])


def _hex(text: str) -> str:
    return _printable(binascii.unhexlify(text))


def _base64(text: str) -> str:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _printable(base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True))
    except (binascii.Error, ValueError):
        return ""


def _printable(data: bytes) -> str:
    """The text in these bytes; empty when they hold none, so that words which happen to be base64 do not count.

    A little that is no text may be in it: else one such byte would hide all the rest.
    """
    text = data.replace(b"\0", b"").decode("utf-8", "replace")  # two bytes a letter: a common way for base64 as well
    if text.count("\ufffd") * MIN_PRINTABLE_TO_ODD > len(text):
        return ""
    odd = sum(text.count(char) for char in set(text) if not _is_text(char))
    return text if odd * MIN_PRINTABLE_TO_ODD <= len(text) else ""


def _is_text(char: str) -> bool:
    return char != "\ufffd" and (char.isprintable() or char.isspace() or unicodedata.category(char) == "Cf")
