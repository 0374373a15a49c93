"""One thing, several writings: numbers, dates, times of day, account numbers, addresses of pages.

`derived` is what a text says in other words; `readings` is how a whole value may be read. What is documented here is all that
counts as the same: `docs/reference/release.md`, on origins. Everything takes texts in a form of `core.disguise`, which is
small letters.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import itertools
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

MAX_VALUE_CHARS: Final = 512
MAX_QUANTITY_DIGITS: Final = 7
MAX_NUMBER_CHARS: Final = 40
MAX_REMEMBERED_READINGS: Final = 1_024

EDGES: Final = " \t\r\n.,;:!?()[]{}<>\"'`´“”‘’«»„*|\\"
URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s<>\"'`|\\^{}]+")
_BARE_URL: Final = re.compile(r"(?<![\w@./-])(?:[\w-]+\.)+[^\W\d_]{2,}(?:/[^\s<>\"'`|\\^{}]*)?(?![\w@-])")
_BARE_VALUE: Final = re.compile(r"(?:[\w-]+\.)+[\w-]+(?:/[^\s]*)?")
_WEB: Final = frozenset({"http", "https"})
_ACCOUNT: Final = re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b")
_ACCOUNT_CHARS: Final = range(15, 35)  # ISO 13616
# ASCII digits only: a number in the digits of another script is for a reader the same, and for a tool it may be none.
_WRITTEN: Final = (
    r"[0-9]{1,3}(?:[,_'’ ][0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,2}"
    r"|[0-9]+,[0-9]{1,2}|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
)
_UNITS: Final = {
    "$": "$", "usd": "$", "dollar": "$", "dollars": "$", "€": "€", "eur": "€", "euro": "€", "euros": "€",
    "£": "£", "gbp": "£", "pound": "£", "pounds": "£", "¥": "¥", "jpy": "¥", "yen": "¥", "%": "%", "percent": "%",
}  # fmt: skip
_UNIT_WORDS: Final = "|".join(sorted((unit for unit in _UNITS if unit.isalpha()), key=len, reverse=True))
_NUMBER: Final = re.compile(
    rf"(?<![\w.,])(?:([$€£¥]) ?)?([-+]?(?:{_WRITTEN}))"
    rf"(?:({_UNIT_WORDS})\b|(?![\w]|[.,]\d)(?: ?([€$£¥%])| ?({_UNIT_WORDS})\b)?)"
)
_NUMBER_VALUE: Final = re.compile(rf"([$€£¥]? ?)([-+]?(?:{_WRITTEN}))( ?(?:[€$£¥%]|(?:{_UNIT_WORDS}))?)")
_WHOLE_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")
_PLAIN_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,6})?")
_COMMA_DECIMAL: Final = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d{1,2}")
_PADDED: Final = re.compile(r"[-+]?0[\d,_'’ ]")
_GROUPED: Final = re.compile(r"[-+]?\d{1,3}(?:[, ]\d{3})+")
_DIGIT: Final = re.compile(r"\d")
_ISO_DATE: Final = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_NUMERIC_DATE: Final = re.compile(r"\b(\d{1,2})[./-](\d{1,2})[./-](\d{4}|\d{2})\b")
_TIME: Final = re.compile(r"\b(\d{1,2})(?::(\d{2}))?(?::\d{2})?\s*(am|pm|a\.m\.|p\.m\.)?(?![\w:])")
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
_DAY_MONTH: Final = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\b\.?(?:,?\s+(\d{{4}}))?")
_MONTH_DAY: Final = re.compile(rf"\b({_MONTH})\b\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s+(\d{{4}}))?")
_DATES: Final = (_ISO_DATE, _NUMERIC_DATE, _DAY_MONTH, _MONTH_DAY)
_JOINED: Final = re.compile(r"\s*(?:to|until|till|through|and|or|,|-|–|—)\s*")
_FOUR_DIGITS: Final = re.compile(r"\d{4}")
_BETWEEN: Final = re.compile(r"(?<=\d)(?:t(?=\d)|z$)")  # the T and the Z of ISO 8601
# What may stand beside a day and a time: words that say nothing more, and after a time fractions of a second and a zone.
_WEEKDAYS: Final = ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun")
_WORDS_BESIDE: Final = (
    *("at", "on", "the", "of", "z", "utc", "gmt"),
    *(f"{day}day" for day in _WEEKDAYS),
    *(day[:3] for day in _WEEKDAYS),
)
_BESIDE: Final = re.compile(rf"(?:[\s,;()]|\b(?:{'|'.join(_WORDS_BESIDE)})\b)*", re.IGNORECASE)
_LETTERS: Final = re.compile(r"[a-z]+")
# All letters that a moment may be written with; what has others is none.
_OF_MOMENTS: Final = frozenset({*_WORDS_BESIDE, *_MONTHS, *("st", "nd", "rd", "th", "am", "pm", "a", "p", "m", "t", "z")})
_AFTER_TIME: Final = re.compile(r"(?:\.\d{1,9}(?!\d))?\s*(?:[+-]\d{2}:?\d{2}(?!\d))?")
_NOON_H: Final = 12
_HOURS: Final = 24


class Grade(enum.IntEnum):
    """What it means when all tokens of a reading are found.

    `WHOLE`: it is this value. `PART`: it may be; the value says more, or could be read in another way. `LESS`: the value
    includes it; whoever says it does not vouch for the value, and whoever accuses it accuses the value.
    """

    WHOLE = 0
    PART = 1
    LESS = 2


class Reading(NamedTuple):
    """A way to read a whole value: what must be there, and what it then means."""

    tokens: tuple[str, ...]
    grade: Grade = Grade.WHOLE


def derived(plain: str) -> Iterator[str]:
    """What a text says in another form: addresses, numbers, dates, times of day, account numbers written with gaps."""
    # What holds no gap is looked for in each piece once.
    for piece in set(plain.split()):
        if "." in piece:
            for match in _BARE_URL.finditer(piece):
                yield from _said_of_page("", match.group().rstrip(EDGES))
        if "://" in piece:
            for match in URL.finditer(piece):
                scheme, _, rest = match.group().rstrip(EDGES).partition("://")
                yield from _said_of_page(scheme, rest)
        if ("-" in piece or "." in piece or "/" in piece) and _DIGIT.search(piece):
            yield from _numeric(piece)
    if not _DIGIT.search(plain):
        return
    yield from _spelt(plain)
    yield from _times(plain)
    for match in _NUMBER.finditer(plain):
        yield from _said_of_number(match)
    for match in _ACCOUNT.finditer(plain):
        yield from _accounts(match.group())


@functools.lru_cache(maxsize=MAX_REMEMBERED_READINGS)
def readings(plain: str) -> tuple[Reading, ...]:
    """The ways to read a whole value as something that is written in several forms; asked for several times for each value."""
    return tuple(_read(plain)) if len(plain) <= MAX_VALUE_CHARS else ()


def forms(plain: str, *, included: bool) -> tuple[str, ...]:
    """A value, and each of its readings that means all of it; with `included` also those of what it includes."""
    if included and _WHOLE_NUMBER.fullmatch(plain):
        return plain, f"number:{plain}", f"padded:{plain}"  # as below, for the most usual value that is always another
    if not plain:
        return ()
    found = readings(plain)
    if not found:
        return (plain,)
    return (plain, *["+".join(tokens) for tokens, grade in found if grade is Grade.WHOLE or (included and grade is Grade.LESS)])


def is_amount_or_time(plain: str) -> bool:
    """Whether a value says how much or when, and is too small a number to name anybody's account."""
    text = plain.strip(EDGES)
    moments = [reading for reading in readings(text) if reading.tokens[0].startswith(("date:", "day:", "time:"))]
    if moments:
        # Unsure, and without a year of four digits, it may be a version, or the number of a bank.
        return moments[0].grade is Grade.WHOLE or _FOUR_DIGITS.search(text) is not None
    number = _number_value(text)
    if number is None or _PADDED.match(number.group(2)):
        return False
    return len(_number(number.group(2)).partition(":")[2].lstrip("-").partition(".")[0]) <= MAX_QUANTITY_DIGITS


def _read(plain: str) -> Iterator[Reading]:
    text = plain.strip(EDGES)
    if _PLAIN_NUMBER.fullmatch(text):
        # Most numbers are such: no unit, no padding, no day, no account.
        yield from _as_number(text.rstrip("0").rstrip(".") if "." in text else text, Grade.WHOLE)
    elif _DIGIT.search(text):
        yield from _read_number(text)
        yield from _moments(text)
        if _ACCOUNT.fullmatch(text):
            yield Reading((f"account:{re.sub(r'[ -]', '', text)}",))
    if "://" in text and URL.fullmatch(text):
        scheme, _, rest = text.partition("://")
        page = _page(rest)
        if scheme not in _WEB:
            yield Reading((f"url:{scheme}://{page}",))
            yield Reading((f"url:{page}",), Grade.LESS)
        elif scheme == "http":
            # Whoever gave the address of an encrypted page did not give that of one which anybody on the way can change.
            yield Reading((f"url:http://{page}",))
            yield Reading((f"url:{page}",), Grade.LESS)
        else:
            yield Reading((f"url:{page}",))
    elif "." in text and _BARE_VALUE.fullmatch(text):
        yield Reading((f"url:{_page(text)}",))
        yield Reading((f"url:http://{_page(text)}",), Grade.LESS)


def _said_of_page(scheme: str, rest: str) -> Iterator[str]:
    """Of an address: without `http(s)`, `www.` and a last slash, which people leave out; any other scheme belongs to it."""
    page = _page(rest)
    yield f"url:{page}"
    if scheme != "https":
        yield f"url:{scheme or 'http'}://{page}"


def _page(rest: str) -> str:
    return rest.removeprefix("www.").rstrip("/")


def _accounts(written: str) -> Iterator[str]:
    """Where the number ends and the sentence goes on cannot be told, so every piece that was written apart may be the last."""
    compact = ""
    for piece in re.split(r"[ -]", written):
        compact += piece
        if len(compact) in _ACCOUNT_CHARS:
            yield f"account:{compact}"


def _said_of_number(match: re.Match[str]) -> Iterator[str]:
    before, written, *after = match.groups()
    number = _number(written)
    if not number:
        return
    said = number.removeprefix("number:")
    if _PADDED.match(written):
        yield f"padded:{said}"
        return
    if " " in written and "." not in written:
        # It may be several numbers in a row just as well.
        yield f"joined:{said}"
        for piece in written.split(" "):
            yield from (() if _PADDED.match(piece) else (_number(piece),))
    else:
        yield number
    for found in (before, *after):
        if found:
            yield f"money:{_UNITS[found]}{said}"


def _number_value(text: str) -> re.Match[str] | None:
    """A value that is a number, with its unit at most at one end."""
    found = _NUMBER_VALUE.fullmatch(text)
    return None if found is None or (found.group(1).strip() and found.group(3).strip()) else found


def _read_number(text: str) -> Iterator[Reading]:
    found = _number_value(text)
    number = "" if found is None else _number(found.group(2))
    if found is None or not number:
        return
    said, written = number.removeprefix("number:"), found.group(2)
    unit = _UNITS.get((found.group(1) or found.group(3)).strip(), "")
    if _PADDED.match(written):
        # With zeros in front it is the name of something, and no amount.
        grade = Grade.LESS
    elif unit:
        yield Reading((f"money:{unit}{said}",))
        grade = Grade.LESS
    else:
        grade = Grade.PART if _GROUPED.fullmatch(written) else Grade.WHOLE  # grouped, it may be a list of several
    yield from _as_number(said, grade)


def _as_number(said: str, grade: Grade) -> Iterator[Reading]:
    yield Reading((f"number:{said}",), grade)
    yield Reading((f"joined:{said}",), max(grade, Grade.PART))
    yield Reading((f"padded:{said}",), Grade.LESS)


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


def _moments(text: str) -> Iterator[Reading]:
    """A value as a day, a time of day, or both.

    INVARIANT: it is nothing else besides. What else stands in it would be vouched for by a date that the user gave.
    """
    if text.isascii() and not _OF_MOMENTS.issuperset(_LETTERS.findall(text)):
        return
    plain = _BETWEEN.sub(" ", text)
    date = next((found for pattern in _DATES if (found := pattern.search(plain))), None)
    rest = plain if date is None else f"{plain[: date.start()]} {plain[date.end() :]}"
    time = _TIME.search(rest)
    if time is not None:
        after = _AFTER_TIME.match(rest, time.end())
        rest = f"{rest[: time.start()]} {rest[time.end() if after is None else after.end() :]}"
    if not _BESIDE.fullmatch(rest):
        return
    times = list(_times(time.group())) if time is not None else []
    if time is not None and not times:
        return
    if date is None:
        if times:
            yield Reading(tuple(times))
        return
    days = list(dict.fromkeys(_dates(date.group())))
    # Written in two digits a year may be a day just as well, and 3/4 may be in March and in April.
    sure = len(days) == 1 and (date.re is not _NUMERIC_DATE or len(date.group(3)) == 4)  # noqa: PLR2004  # digits
    for day in days:
        yield Reading((day, *times), Grade.WHOLE if sure else Grade.PART)
    if sure and days[0].startswith("date:"):
        # Whoever left the year out may have meant this one.
        yield Reading((f"day:{days[0][-5:]}", *times), Grade.PART)


def _dates(plain: str) -> Iterator[str]:
    yield from _numeric(plain)
    yield from _spelt(plain)


def _numeric(plain: str) -> Iterator[str]:
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


def _spelt(plain: str) -> Iterator[str]:
    """Days with the name of their month. In a row (`May 3rd to May 5th 2027`) the year that one of them has is that of all."""
    found = [(match.span(), match[3], _MONTHS[match[2]], int(match[1])) for match in _DAY_MONTH.finditer(plain)]
    found += [(match.span(), match[3], _MONTHS[match[1]], int(match[2])) for match in _MONTH_DAY.finditer(plain)]
    found.sort()
    years = [int(year or 0) for _, year, _, _ in found]
    rows = list(itertools.pairwise(found))
    joined = [_JOINED.fullmatch(plain, one[0][1], other[0][0]) is not None and one[2:] < other[2:] for one, other in rows]
    for at in range(len(rows)):
        if joined[at] and not years[at + 1]:
            years[at + 1] = years[at]
    for at in reversed(range(len(rows))):
        if joined[at] and not years[at]:
            years[at] = years[at + 1]
    for (_, written, month, day), year in zip(found, years, strict=True):
        yield from _day(year, month, day)
        if year and not written:
            yield from _day(0, month, day)


def _day(year: int, month: int, day: int) -> Iterator[str]:
    try:
        found = dt.date(year or 2000, month, day)
    except ValueError:
        return
    yield f"date:{found.isoformat()}" if year else f"day:{month:02}-{day:02}"


def _times(plain: str) -> Iterator[str]:
    for match in _TIME.finditer(plain):
        hour, minute, half = int(match.group(1)), match.group(2), (match.group(3) or "").replace(".", "")
        if minute is None and not half:
            continue
        if half:
            hour = hour % _NOON_H + (_NOON_H if half == "pm" else 0)
        if hour < _HOURS and int(minute or 0) < 60:  # noqa: PLR2004  # minutes
            yield f"time:{hour:02}:{minute or '00'}"
