"""Texts as tokens. A token is a whole thing: an address, a host, a date, an amount, a word, two words in a row.

Matching is by whole tokens only, so `example.com` is not found in `example.com.evil.io`, nor `12` in `3120`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from interlock.core.disguise import loose, strict, unfolded, variants
from interlock.provenance.readings import EDGES, URL, Grade, derived, is_amount_or_time, readings

MAX_TEXT_CHARS: Final = 4 * 1024 * 1024
RUN_CHUNKS: Final = 4
_HASH_BYTES: Final = 8
_MASK: Final = 2**64 - 1
_ODD: Final = 0x9E3779B97F4A7C15
SPAN_WORDS: Final = 8
_SPAN_FACTOR: Final = pow(_ODD, SPAN_WORDS, 2**64)

_AT_DOMAIN: Final = re.compile(r"@[\w-]+(?:\.[\w-]+)+")
_LOCAL_PART: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+")
MAX_LOCAL_PART_CHARS: Final = 64  # RFC 5321, section 4.5.3.1.1
_HOST: Final = re.compile(r"(?<![\w@.-])(?:[\w-]+\.)+[^\W\d_][\w-]*(?![\w@-])")
# Around a word they say nothing: quotes and brackets, and the end of a sentence.
_HARMLESS_BEFORE: Final = "\"'`´“”‘’«»„("
_HARMLESS_AFTER: Final = "\"'`´“”‘’«»„),.;:!"
_PIECE: Final = re.compile(r"[\w.@+-]+")
_WORD: Final = re.compile(r"\w+")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a value may be recognised: all of `tokens` are there. `exact` when no normalising was needed.

    `part`: the value says more than they do, or could mean something else, so whoever said them may have meant another.
    """

    tokens: tuple[int, ...]
    exact: bool
    part: bool = False


class Tokenizer:
    """Hashes tokens under a key of its own, so that stored tokens of one lineage say nothing about those of another."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._keyed = hashlib.blake2b(digest_size=_HASH_BYTES, key=key.encode()[:64])

    def hashed(self, token: str) -> int:
        """The 64-bit hash that stands for a token in an index."""
        made = self._keyed.copy()
        made.update(token.encode())
        return int.from_bytes(made.digest())

    def of_user_text(self, text: str) -> frozenset[int]:
        """What a text of the user vouches for: its tokens in strict form, and up to `RUN_CHUNKS` words in a row."""
        plain = strict(text[:MAX_TEXT_CHARS])
        row = self._row(plain)
        found = self._all(plain, row)
        longer = list(map(_pair, row, row[1:]))
        for length in range(3, RUN_CHUNKS + 1):
            longer = list(map(_pair, longer, row[length - 1 :]))
            found.update(longer)
        found.update(self.hashed(f"marked {mark}") for piece in set(plain.split()) if (mark := _marked(piece)) and mark != "*")
        return frozenset(found)

    def of_other_text(self, text: str) -> frozenset[int]:
        """What a text accuses: its tokens in loose form, and those of everything that is encoded in it."""
        return self.of_hostile_text(text)[0]

    def of_hostile_text(self, text: str) -> tuple[frozenset[int], bool]:
        """As `of_other_text`, and whether that is all: more may be hidden in it, or it may be longer than is looked at."""
        found: set[int] = set()
        plains, is_complete = unfolded(text[:MAX_TEXT_CHARS])
        for plain in plains:
            found |= self._all(plain, self._row(plain))
            # Whatever stands between separators counts as well: what accuses may find too much.
            found.update(map(self.hashed, {piece.strip(".-+") for piece in _PIECE.findall(plain)}))
            found.update(map(self.hashed, set(_WORD.findall(plain))))
        return frozenset(found), is_complete and len(text) <= MAX_TEXT_CHARS

    def of_field(self, value: str) -> frozenset[int]:
        """How a whole field is found: as it is, or as another writing of the same number, day, account or address."""
        return frozenset(self.hashed(f"field {form}") for plain in variants(value) for form in _given(plain.strip()))

    def as_field(self, value: str) -> tuple[Way, ...]:
        """The ways in which a value may be a whole field, however it is disguised."""
        return tuple(
            Way(tokens=(self.hashed(f"field {form}"),), exact=place == 0)
            for plain in variants(value)
            for place, form in enumerate(_asked(plain.strip()))
        )

    def of_place(self, source: str, path: str, value: str) -> frozenset[int]:
        """A whole field as it stands at a place, and other writings of the same number, day, account or address."""
        place = self.hashed(f"place {source} {path}")
        return frozenset(_pair(place, self.hashed(f"field {form}")) for form in _given(strict(value).strip()))

    def at_place(self, source: str, path: str, value: str) -> tuple[Way, ...]:
        """The ways in which a value may stand at a place. Strictly: what only looks like it is not what stands there."""
        place = self.hashed(f"place {source} {path}")
        forms = _asked(strict(value).strip())
        return tuple(
            Way(tokens=(_pair(place, self.hashed(f"field {form}")),), exact=number == 0) for number, form in enumerate(forms)
        )

    def _row(self, plain: str) -> list[int]:
        chunks = _chunks(plain)
        known = {chunk: self.hashed(chunk) for chunk in set(chunks)}
        return [known[chunk] for chunk in chunks]

    def _all(self, plain: str, row: list[int]) -> set[int]:
        found = set(row)
        found.update(map(_pair, row, row[1:]))
        found.update(map(self.hashed, {*_addresses(plain), *derived(plain)}))
        return found

    @staticmethod
    def is_word(piece: str) -> bool:
        """Whether a piece of a text counts as a word of a span: it is more than punctuation."""
        return len(_chunks(loose(piece))) == 1

    def spans(self, text: str) -> list[int]:
        """The token of every `SPAN_WORDS` words in a row, by the place of the first; equal for texts that read alike."""
        row = self._row(loose(text[:MAX_TEXT_CHARS]))
        found: list[int] = []
        rolling = 0
        for place, word in enumerate(row):
            rolling = (rolling * _ODD + word) & _MASK
            if place >= SPAN_WORDS:
                rolling = (rolling - row[place - SPAN_WORDS] * _SPAN_FACTOR) & _MASK
            if place >= SPAN_WORDS - 1:
                found.append(rolling)
        return found

    def vouched(self, value: str) -> tuple[Way, ...]:
        """The ways in which what vouches may know a value, the exact one first. None for a value without letters and digits.

        Its words stand in a row, and what stands around them stood there as well, where it can mean something (`report*`).
        """
        plain = strict(value)
        row = self._row(plain)
        if not row or not _WORD.search(plain):
            return ()
        run = min(len(row), RUN_CHUNKS)
        whole = tuple(functools.reduce(_pair, row[at : at + run]) for at in range(len(row) - run + 1))
        marks = tuple(self.hashed(f"marked {mark}") for piece in plain.split() if (mark := _marked(piece)))
        found = [Way(tokens=(*whole, *marks), exact=True)]
        for reading in readings(plain):
            if reading.grade is not Grade.LESS:
                tokens = tuple(map(self.hashed, reading.tokens))
                found.append(Way(tokens=tokens, exact=False, part=reading.grade is Grade.PART))
        return tuple(found)

    def accused(self, value: str) -> tuple[Way, ...]:
        """The ways in which other texts may contain a value, also when it is disguised or encoded itself."""
        return tuple(way for plain in variants(value) for way in self._inside(plain, Grade.LESS))

    def standing(self, value: str) -> tuple[Way, ...]:
        """The ways in which a value may stand in a text of others as it is, not disguised."""
        return self._inside(strict(value), Grade.WHOLE)

    def _inside(self, plain: str, worst: Grade) -> tuple[Way, ...]:
        row = self._row(plain)
        if not row:
            return ()
        found = [Way(tokens=tuple(row if len(row) == 1 else map(_pair, row, row[1:])), exact=True)]
        for reading in readings(plain):
            if reading.grade <= worst:
                tokens = tuple(map(self.hashed, reading.tokens))
                found.append(Way(tokens=tokens, exact=False, part=reading.grade is Grade.PART))
        return tuple(found)


def _given(plain: str) -> tuple[str, ...]:
    """What a whole field says: itself, and what it is in other writings."""
    if not plain:
        return ()
    return (plain, *("+".join(reading.tokens) for reading in readings(plain) if reading.grade is not Grade.PART))


def _asked(plain: str) -> tuple[str, ...]:
    """What a whole field must say for a value to be that field, the exact one first."""
    if not plain:
        return ()
    return (plain, *("+".join(reading.tokens) for reading in readings(plain) if reading.grade is Grade.WHOLE))


def _pair(first: int, second: int) -> int:
    """The token of two chunks in a row; of more, one after another."""
    return (first * _ODD + second) & _MASK


def _chunks(plain: str) -> list[str]:
    return [chunk for piece in plain.split() if (chunk := piece.strip(EDGES))]


def _marked(piece: str) -> str:
    """A piece with the signs around it that may change what it means (`.env`, `report*`, `[a]`); empty when there are none."""
    chunk = piece.strip(EDGES)
    if chunk == piece:
        return ""
    bare = piece.lstrip(_HARMLESS_BEFORE).rstrip(_HARMLESS_AFTER)
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    return "" if bare == chunk else bare


def _addresses(plain: str) -> Iterator[str]:
    """Addresses as whole tokens, wherever they stand in a chunk; of a URL also its host, and its path without the query."""
    if "://" in plain:
        for match in URL.finditer(plain):
            url = match.group().rstrip(EDGES)
            yield url
            yield from _parts(url)
    if "@" in plain:
        for email in mail_addresses(plain):
            yield email.strip(EDGES)
    if "." in plain:
        for match in _HOST.finditer(plain):
            yield match.group()


def mail_addresses(plain: str) -> Iterator[str]:
    """Mail addresses. Read from the `@` outwards: from the left, every letter of a long word would begin another attempt."""
    end = 0
    for match in _AT_DOMAIN.finditer(plain):
        # One more than there may be: what is longer is no address, and its last letters are not somebody else's.
        before = plain[max(end, match.start() - MAX_LOCAL_PART_CHARS - 1) : match.start()]
        local = _LOCAL_PART.match(before[::-1])
        if local is not None and local.end() <= MAX_LOCAL_PART_CHARS:
            yield f"{local.group()[::-1]}{match.group()}"
            end = match.end()


def _parts(url: str) -> Iterator[str]:
    """The host of a URL as a client reads it (behind any user name), and the host with the path."""
    rest = re.split(r"[?#]", url.partition("://")[2], maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    host = re.sub(r":\d*$", "", authority.rpartition("@")[2])
    if host:
        yield host
        yield f"{host}{slash}{path}".rstrip("/")


def is_short(value: str) -> bool:
    """Whether a match of this value may be chance: two characters or fewer. Signs alone (`*`, `/`) are not short but wide."""
    plain = loose(value).strip(EDGES)
    return len(plain) <= 2 and _WORD.search(plain) is not None  # noqa: PLR2004  # characters


def is_common(value: str) -> bool:
    """Whether a value is a word that stands in every text, so that having said it means little."""
    return loose(value).strip(EDGES) in _COMMON


def is_quantity(value: str) -> bool:
    """Whether a value says how much or when, and is too small a number to name anybody's account."""
    return is_amount_or_time(strict(value))


_COMMON: Final = frozenset(
    """the and for you your this that with from are was not but all any can has have had her his its our out one two new now
    yes none null true false test name user admin email file date time day today tomorrow id please here there what when
    which who how why more most some such than then them they into over only also very will would should could about after
    before between each other same own send read list get set add""".split()  # noqa: SIM905  # words read better as a text
)
