"""Texts as tokens. A token is a whole thing: an address, a host, a date, an amount, a word, two words in a row.

Matching is by whole tokens only, so `example.com` is not found in `example.com.evil.io`, nor `12` in `3120`.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from interlock.core.disguise import loose, strict, variants

MAX_TEXT_CHARS: Final = 4 * 1024 * 1024
MAX_CHUNK_CHARS: Final = 512
MAX_QUANTITY_DIGITS: Final = 7
MAX_NUMBER_CHARS: Final = 40
MAX_REMEMBERED_READINGS: Final = 1_024
_HASH_BYTES: Final = 8
_MASK: Final = 2**64 - 1
_ODD: Final = 0x9E3779B97F4A7C15
SPAN_WORDS: Final = 8
_SPAN_FACTOR: Final = pow(_ODD, SPAN_WORDS, 2**64)

_EDGES: Final = " \t\r\n.,;:!?()[]{}<>\"'`´“”‘’«»„*|\\"
_URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s<>\"'`|\\^{}]+", re.IGNORECASE)
_AT_DOMAIN: Final = re.compile(r"@[\w-]+(?:\.[\w-]+)+")
_LOCAL_PART: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+")
MAX_LOCAL_PART_CHARS: Final = 64  # RFC 5321, section 4.5.3.1.1
_HOST: Final = re.compile(r"(?<![\w@.-])(?:[\w-]+\.)+[^\W\d_][\w-]*(?![\w@-])")
_BARE_URL: Final = re.compile(r"(?<![\w@./-])(?:[\w-]+\.)+[^\W\d_]{2,}(?:/[^\s<>\"'`|\\^{}]*)?(?![\w@-])")
_ACCOUNT: Final = re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b")
_ACCOUNT_CHARS: Final = range(15, 35)  # ISO 13616
_NUMBER: Final = re.compile(
    r"(?<![\w.,])[-+]?"
    r"(?:\d{1,3}(?:[,_'’ ]\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d+,\d{1,2}|\d+(?:\.\d+)?|\.\d+)(?![\w]|[.,]\d)"
)
_PIECE: Final = re.compile(r"[\w.@+-]+")
_WORD: Final = re.compile(r"\w+")
_COMMA_DECIMAL: Final = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d{1,2}")
_DIGIT: Final = re.compile(r"\d")
_ISO_DATE: Final = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_NUMERIC_DATE: Final = re.compile(r"\b(\d{1,2})[./-](\d{1,2})[./-](\d{4}|\d{2})\b")
_TIME: Final = re.compile(r"\b(\d{1,2})(?::(\d{2}))?(?::\d{2})?\s*(am|pm|a\.m\.|p\.m\.)?(?![\w:])", re.IGNORECASE)
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            ("january", "jan"), ("february", "feb"), ("march", "mar"), ("april", "apr"), ("may",), ("june", "jun"),
            ("july", "jul"), ("august", "aug"), ("september", "sep", "sept"), ("october", "oct"), ("november", "nov"),
            ("december", "dec"),
        ),
        start=1,
    )
    for name in names
}  # fmt: skip
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY_MONTH: Final = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\b\.?(?:,?\s+(\d{{4}}))?", re.IGNORECASE)
_MONTH_DAY: Final = re.compile(rf"\b({_MONTH})\b\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s+(\d{{4}}))?", re.IGNORECASE)
_DATES: Final = (_ISO_DATE, _NUMERIC_DATE, _DAY_MONTH, _MONTH_DAY)
_BETWEEN: Final = re.compile(r"(?<=\d)(?:t(?=\d)|z$)", re.IGNORECASE)  # the T and the Z of ISO 8601
# What may stand beside a day and a time: words that say nothing more, fractions of a second, the offset of a zone.
_BESIDE: Final = re.compile(
    r"(?:[\s,;()]|\b(?:at|on|the|of|z|utc|gmt|(?:mon|tues|wednes|thurs|fri|satur|sun)day|mon|tue|wed|thu|fri|sat|sun)\b"
    r"|\.\d{1,9}(?!\d)|[+-]\d{2}:?\d{2}(?!\d))*",
    re.IGNORECASE,
)
_NOON_H: Final = 12
_HOURS: Final = 24


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a value may be recognised: all of `tokens` are there. `exact` when no normalising was needed."""

    tokens: tuple[int, ...]
    exact: bool


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
        """What a text of the user vouches for: its tokens in strict form."""
        return frozenset(self._all(strict(text[:MAX_TEXT_CHARS])))

    def of_other_text(self, text: str) -> frozenset[int]:
        """What a text accuses: its tokens in loose form, and those of everything that is encoded in it."""
        found: set[int] = set()
        for plain in variants(text[:MAX_TEXT_CHARS]):
            found |= self._all(plain)
            # Whatever stands between separators counts as well: what accuses may find too much.
            found.update(map(self.hashed, {piece.strip(".-+") for piece in _PIECE.findall(plain)}))
            found.update(map(self.hashed, set(_WORD.findall(plain))))
        return frozenset(found)

    def of_field(self, value: str) -> frozenset[int]:
        """How a whole field is found: as it is, or as another writing of the same number, day, account or address."""
        return frozenset(token for way in self.as_field(value) for token in way.tokens)

    def as_field(self, value: str) -> tuple[Way, ...]:
        """The ways in which a value may be a whole field, however it is disguised."""
        found: list[Way] = []
        for plain in variants(value):
            bare = plain.strip()
            if not bare:
                continue
            found.append(Way(tokens=(self.hashed(f"field {bare}"),), exact=True))
            found += [
                Way(tokens=(self.hashed(f"field {'+'.join(reading)}"),), exact=False) for reading in _readings(bare) if reading
            ]
        return tuple(found)

    def of_place(self, source: str, path: str, value: str) -> frozenset[int]:
        """A whole field as it stands at a place, and other writings of the same number, day, account or address."""
        return frozenset(token for way in self.at_place(source, path, value) for token in way.tokens)

    def at_place(self, source: str, path: str, value: str) -> tuple[Way, ...]:
        """The ways in which a value may stand at a place. Strictly: what only looks like it is not what stands there."""
        bare = strict(value).strip()
        if not bare:
            return ()
        place = self.hashed(f"place {source} {path}")
        forms = [bare, *("+".join(reading) for reading in _readings(bare) if reading)]
        return tuple(Way(tokens=(_pair(place, self.hashed(f"field {form}")),), exact=form is bare) for form in forms)

    def _all(self, plain: str) -> set[int]:
        chunks = _chunks(plain)
        known = {chunk: self.hashed(chunk) for chunk in set(chunks)}
        row = [known[chunk] for chunk in chunks]
        found = set(row)
        found.update(map(_pair, row, row[1:]))
        found.update(map(self.hashed, {*_addresses(plain), *_derived(plain)}))
        return found

    @staticmethod
    def is_word(piece: str) -> bool:
        """Whether a piece of a text counts as a word of a span: it is more than punctuation."""
        return len(_chunks(loose(piece))) == 1

    def spans(self, text: str) -> list[int]:
        """The token of every `SPAN_WORDS` words in a row, by the place of the first; equal for texts that read alike."""
        row = [self.hashed(chunk) for chunk in _chunks(loose(text[:MAX_TEXT_CHARS]))]
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
        """The ways in which what vouches may know a value, the exact one first. None for an empty value."""
        return self._ways(strict(value))

    def accused(self, value: str) -> tuple[Way, ...]:
        """The ways in which other texts may contain a value, also when it is disguised or encoded itself."""
        found: list[Way] = []
        for plain in variants(value):
            found.extend(self._ways(plain))
        return tuple(found)

    def _ways(self, plain: str) -> tuple[Way, ...]:
        row = [self.hashed(chunk) for chunk in _chunks(plain)]
        if not row:
            return ()
        whole = row if len(row) == 1 else list(map(_pair, row, row[1:]))
        found = [Way(tokens=tuple(whole), exact=True)]
        found += [Way(tokens=tuple(map(self.hashed, tokens)), exact=False) for tokens in _readings(plain) if tokens]
        return tuple(found)


def _pair(first: int, second: int) -> int:
    """The token of two chunks in a row."""
    return (first * _ODD + second) & _MASK


def _chunks(plain: str) -> list[str]:
    return [chunk[:MAX_CHUNK_CHARS] for piece in plain.split() if (chunk := piece.strip(_EDGES))]


def _addresses(plain: str) -> Iterator[str]:
    """Addresses as whole tokens, wherever they stand in a chunk; of a URL also its host, and its path without the query."""
    if "://" in plain:
        for match in _URL.finditer(plain):
            url = match.group().rstrip(_EDGES)
            yield url
            yield from _parts(url)
    if "@" in plain:
        for email in mail_addresses(plain):
            yield email.strip(_EDGES)
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


def _derived(plain: str) -> Iterator[str]:
    """What a text says in another form: numbers, dates, times of day, account numbers written with gaps."""
    if "." in plain:
        for match in _BARE_URL.finditer(plain):
            yield f"url:{match.group().rstrip(_EDGES).removeprefix('www.').rstrip('/')}"
    if "://" in plain:
        for match in _URL.finditer(plain):
            yield f"url:{_plain_url(match.group().rstrip(_EDGES))}"
    if not _DIGIT.search(plain):
        return
    yield from _dates(plain)
    yield from _times(plain)
    for match in _NUMBER.finditer(plain):
        number = _number(match.group())
        if number:
            yield number
    for match in _ACCOUNT.finditer(plain):
        # Where the number ends and the sentence goes on cannot be told, so every length it may have counts.
        compact = re.sub(r"[ -]", "", match.group())
        for length in _ACCOUNT_CHARS:
            if length <= len(compact):
                yield f"account:{compact[:length]}"


@functools.lru_cache(maxsize=MAX_REMEMBERED_READINGS)
def _readings(plain: str) -> tuple[tuple[str, ...], ...]:
    """The ways to read a whole value as something that is written in several forms; asked for several times for each value."""
    return tuple(_read(plain)) if len(plain) <= MAX_CHUNK_CHARS else ()


def _read(plain: str) -> Iterator[tuple[str, ...]]:
    text = plain.strip(_EDGES)
    number = _number(text.lstrip("$€£¥ ").rstrip("€$£¥% "))
    if number and re.fullmatch(r"[-+$€£¥%\d.,_'’ ]+", text):
        yield (number,)
    yield from _moments(text)
    if _ACCOUNT.fullmatch(text):
        yield (f"account:{re.sub(r'[ -]', '', text)}",)
    if _URL.fullmatch(text):
        yield (f"url:{_plain_url(text)}",)
    elif re.fullmatch(r"(?:[\w-]+\.)+[\w-]+(?:/[^\s]*)?", text):
        yield (f"url:{text.removeprefix('www.').rstrip('/')}",)


def _moments(text: str) -> Iterator[tuple[str, ...]]:
    """A value as a day, a time of day, or both.

    INVARIANT: it is nothing else besides. What else stands in it would be vouched for by a date that the user gave.
    """
    plain = _BETWEEN.sub(" ", text)
    date = next((found for pattern in _DATES if (found := pattern.search(plain))), None)
    rest = plain if date is None else f"{plain[: date.start()]} {plain[date.end() :]}"
    time = _TIME.search(rest)
    if time is not None:
        rest = f"{rest[: time.start()]} {rest[time.end() :]}"
    if not _BESIDE.fullmatch(rest):
        return
    times = list(_times(time.group())) if time is not None else []
    if time is not None and not times:
        return
    if date is None:
        if times:
            yield tuple(times)
        return
    # The same day; of a day with a year also the day of a text that left the year out.
    for day in list(_dates(date.group()))[:1]:
        yield (day, *times)
        if day.startswith("date:"):
            yield (f"day:{day[-5:]}", *times)


def _plain_url(url: str) -> str:
    """Without scheme, `www.` and a last slash: what people leave out when they write an address."""
    return url.partition("://")[2].removeprefix("www.").rstrip("/")


def _number(text: str) -> str:
    """A number as people write it (1,250.00, 1.250,00, 1 250, 12,5) in one form; empty when it is none."""
    bare = text.strip()
    if _COMMA_DECIMAL.fullmatch(bare):
        bare = bare.replace(".", "").replace(",", ".")
    bare = re.sub(r"[,_'’ ]", "", bare)
    try:
        value = Decimal(bare)
    except InvalidOperation:
        return ""
    if not value.is_finite() or len(bare) > MAX_NUMBER_CHARS:
        return ""  # longer digit strings are identifiers, found as chunks
    return f"number:{format(value.normalize(), 'f')}" if value else "number:0"


def _dates(plain: str) -> Iterator[str]:
    for match in _ISO_DATE.finditer(plain):
        year, month, day = (int(part) for part in match.groups())
        yield from _day(year, month, day)
    for match in _NUMERIC_DATE.finditer(plain):
        first, second, year = (int(part) for part in match.groups())
        year += 2000 if year < 100 else 0  # noqa: PLR2004  # two digits
        # Both readings: day before month, and month before day.
        yield from _day(year, second, first)
        if first != second:
            yield from _day(year, first, second)
    for match in _DAY_MONTH.finditer(plain):
        yield from _day(int(match.group(3) or 0), _MONTHS[match.group(2).lower()], int(match.group(1)))
    for match in _MONTH_DAY.finditer(plain):
        yield from _day(int(match.group(3) or 0), _MONTHS[match.group(1).lower()], int(match.group(2)))


def _day(year: int, month: int, day: int) -> Iterator[str]:
    try:
        found = dt.date(year or 2000, month, day)
    except ValueError:
        return
    yield f"date:{found.isoformat()}" if year else f"day:{month:02}-{day:02}"


def _times(plain: str) -> Iterator[str]:
    for match in _TIME.finditer(plain):
        hour, minute, half = int(match.group(1)), match.group(2), (match.group(3) or "").replace(".", "").lower()
        if minute is None and not half:
            continue
        if half:
            hour = hour % _NOON_H + (_NOON_H if half == "pm" else 0)
        if hour < _HOURS and int(minute or 0) < 60:  # noqa: PLR2004  # minutes
            yield f"time:{hour:02}:{minute or '00'}"


def is_weak(value: str) -> bool:
    """Whether a match of this value may be chance: two characters or fewer, or a word that stands in every text."""
    plain = loose(value).strip(_EDGES)
    return len(plain) <= 2 or plain in _COMMON  # noqa: PLR2004  # characters


def is_quantity(value: str) -> bool:
    """Whether a value says how much or when, and is too small a number to name anybody's account."""
    plain = strict(value).strip(_EDGES)
    if any(reading and reading[0].startswith(("date:", "day:", "time:")) for reading in _readings(plain)):
        return True
    number = _number(plain.lstrip("$€£¥ ").rstrip("€$£¥% "))
    return bool(number) and len(number.partition(":")[2].lstrip("-").partition(".")[0]) <= MAX_QUANTITY_DIGITS


_COMMON: Final = frozenset(
    """the and for you your this that with from are was not but all any can has have had her his its our out one two new now
    yes none null true false test name user admin email file date time day today tomorrow id please here there what when
    which who how why more most some such than then them they into over only also very will would should could about after
    before between each other same own send read list get set add""".split()  # noqa: SIM905  # words read better as a text
)
