"""Texts as tokens. A token is a whole thing: an address, a host, a date, an amount, a word, two words in a row.

Matching is by whole tokens only, so `example.com` is not found in `example.com.evil.io`, nor `12` in `3120`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

import msgspec

from interlock.core.disguise import loose, reads_one_way, strict, unfolded, variants
from interlock.provenance.readings import EDGES, URL, Grade, derived, forms, is_amount_or_time, readings

MAX_TEXT_CHARS: Final = 4 * 1024 * 1024
MAX_REMEMBERED_KEYS: Final = 1_024
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


class Hostile(NamedTuple):
    """What a text accuses, and its spans (`Tokenizer.spans`).

    `is_complete` is False when more may be hidden in it, or it is longer than is looked at.
    """

    tokens: frozenset[int]
    spans: list[int]
    is_complete: bool


class Tokenizer:
    """Hashes tokens under a key of its own, so that stored tokens of one lineage say nothing about those of another."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._keyed = hashlib.blake2b(digest_size=_HASH_BYTES, key=key.encode()[:64])
        self._field = self._keyed.copy()
        self._field.update(b"field ")

    def hashed(self, token: str) -> int:
        """The 64-bit hash that stands for a token in an index."""
        made = self._keyed.copy()
        made.update(token.encode())
        return int.from_bytes(made.digest())

    def hashes(self, tokens: Iterable[str]) -> list[int]:
        """The hashes of many tokens, in their order."""
        return _hashes(self._keyed, tokens)

    def of_user_text(self, text: str) -> frozenset[int]:
        """What a text of the user vouches for: its tokens in strict form, and up to `RUN_CHUNKS` words in a row."""
        plain = strict(text[:MAX_TEXT_CHARS])
        marks = {f"marked {mark}" for piece in set(plain.split()) if (mark := _marked(piece)) and mark != "*"}
        row, found = self._read(plain, marks)
        run = row
        for length in range(2, RUN_CHUNKS + 1):
            run = _longer(run, row[length - 1 :])
            found.update(run)
        return frozenset(found)

    def of_other_text(self, text: str) -> Hostile:
        """What a text accuses: its tokens in loose form, and those of everything that is encoded in it."""
        plains, is_complete = unfolded(text[:MAX_TEXT_CHARS])
        found: set[int] = set()
        first: list[int] = []
        for number, plain in enumerate(plains):
            row, tokens = self._read(plain, _pieces(plain))
            found |= tokens
            found.update(_longer(row, row[1:]))
            if number == 0:
                first = row
        return Hostile(frozenset(found), _spans(first), is_complete and len(text) <= MAX_TEXT_CHARS)

    def of_field(self, value: str) -> set[int]:
        """How a whole field is found: as it is, or as another writing of the same number, day, account or address."""
        return {token for plain in variants(value) for token in self._forms(plain)}

    def as_field(self, value: str) -> tuple[Way, ...]:
        """The ways in which a value may be a whole field, however it is disguised."""
        return tuple(
            Way(tokens=(token,), exact=place == 0)
            for plain in variants(value)
            for place, token in enumerate(_hashes(self._field, forms(plain.strip(), included=False)))
        )

    def place(self, source: str, path: str) -> int:
        """What stands for the place of a field."""
        return self.hashed(f"place {source} {path}")

    def of_place(self, place: int, value: str) -> set[int]:
        """A whole field as it stands at a place, and other writings of the same number, day, account or address."""
        return set(_after(place, self._forms(strict(value))))

    def of_field_at(self, place: int, value: str) -> tuple[Collection[int], Collection[int]]:
        """What `of_field` and `of_place` give: nearly always of the same forms, which are hashed once."""
        found = self._forms(strict(value))
        return (found if reads_one_way(value) else self.of_field(value)), _after(place, found)

    def _forms(self, plain: str) -> list[int]:
        return _hashes(self._field, forms(plain.strip(), included=True))

    def at_place(self, source: str, path: str, value: str) -> tuple[Way, ...]:
        """The ways in which a value may stand at a place. Strictly: what only looks like it is not what stands there."""
        found = _hashes(self._field, forms(strict(value).strip(), included=False))
        there = _after(self.place(source, path), found)
        return tuple(Way(tokens=(token,), exact=number == 0) for number, token in enumerate(there))

    def _row(self, plain: str) -> list[int]:
        return self.hashes(_chunks(plain))

    def _read(self, plain: str, also: AbstractSet[str]) -> tuple[list[int], set[int]]:
        """The chunks of a text in a row, and all single tokens in it, with those of `also`; each is hashed once."""
        chunks = _chunks(plain)
        tokens = list({*chunks, *_addresses(plain), *derived(plain), *also})
        known = dict(zip(tokens, self.hashes(tokens), strict=True))
        return [known[chunk] for chunk in chunks], set(known.values())

    @staticmethod
    def is_word(piece: str) -> bool:
        """Whether a piece of a text counts as a word of a span: it is more than punctuation."""
        return len(_chunks(loose(piece))) == 1

    def spans(self, text: str) -> list[int]:
        """The token of every `SPAN_WORDS` words in a row, by the place of the first; equal for texts that read alike."""
        return _spans(self._row(loose(text[:MAX_TEXT_CHARS])))

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


def _hashes(begun: hashlib.blake2b, texts: Iterable[str]) -> list[int]:
    copy, number, found = begun.copy, int.from_bytes, []
    for text in texts:
        made = copy()
        made.update(text.encode())
        found.append(number(made.digest()))
    return found


def _after(place: int, tokens: list[int]) -> list[int]:
    """Each of some tokens as a pair with the same one before it."""
    before = place * _ODD
    return [(before + token) & _MASK for token in tokens]


def _longer(run: list[int], words: list[int]) -> list[int]:
    """Each of a row of tokens with the word behind it."""
    return [(first * _ODD + second) & _MASK for first, second in zip(run, words, strict=False)]


def _spans(row: list[int]) -> list[int]:
    found: list[int] = []
    rolling = 0
    for word, left in zip(row, (*(0,) * SPAN_WORDS, *row), strict=False):
        rolling = (rolling * _ODD + word - left * _SPAN_FACTOR) & _MASK
        found.append(rolling)
    return found[SPAN_WORDS - 1 :]


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


def _pieces(plain: str) -> set[str]:
    """Whatever stands between separators: what accuses may find too much."""
    found: set[str] = set()
    for piece in set(plain.split()):
        if not piece.isalnum():
            found.update(_WORD.findall(piece))
            found.update(part.strip(".-+") for part in _PIECE.findall(piece))
    return found


def _addresses(plain: str) -> Iterator[str]:
    """Addresses as whole tokens, wherever they stand in a piece; of a URL also its host, and its path without the query."""
    for piece in set(plain.split()):
        if "://" in piece:
            for match in URL.finditer(piece):
                url = match.group().rstrip(EDGES)
                yield url
                yield from _parts(url)
        if "@" in piece:
            for email in mail_addresses(piece):
                yield email.strip(EDGES)
        if "." in piece:
            for match in _HOST.finditer(piece):
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


@functools.lru_cache(MAX_REMEMBERED_KEYS)
def tokenizer_of(key: str) -> Tokenizer:
    """The tokenizer of a lineage; made anew it costs as much as the tokens of a small result."""
    return Tokenizer(key)


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
