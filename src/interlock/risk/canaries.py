"""Planted secrets in the arguments of a call, plain or disguised. Only digests of them are known here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from interlock.core.canonical import JsonValue
from interlock.core.disguise import variants
from interlock.core.risk import Canary

_NOT_PART: Final = re.compile(r"[^a-z0-9]+")
MAX_VALUES: Final = 10_000


class Canaries:
    """Looks for the canaries of one release."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self._by_start: dict[str, list[Canary]] = {}
        for canary in canaries:
            self._by_start.setdefault(canary.starts, []).append(canary)

    def seen(self, arguments: JsonValue) -> tuple[str, ...]:
        """The names of the canaries that these arguments hold, sorted.

        Looked at are each text and all of them in a row, as they are and decoded (percent, HTML, base64, hexadecimal, invisible
        characters, look-alike letters), with everything but letters and digits left out, and backwards.
        """
        if not self._by_start:
            return ()
        texts = list(_texts(arguments))
        found: set[str] = set()
        for text in dict.fromkeys([*texts, "".join(texts), " ".join(texts)]):
            for plain in variants(text):
                bare = _NOT_PART.sub("", plain)
                found.update(self._in(bare))
                found.update(self._in(bare[::-1]))
        return tuple(sorted(found))

    def _in(self, bare: str) -> Iterator[str]:
        for starts, canaries in self._by_start.items():
            at = bare.find(starts)
            while at >= 0:
                for canary in canaries:
                    piece = bare[at : at + canary.chars]
                    if len(piece) == canary.chars and digest_of(piece) == canary.sha256:
                        yield canary.name
                at = bare.find(starts, at + 1)


def digest_of(secret: str) -> str:
    """The digest that a release keeps of a canary: of its small letters and digits alone."""
    return hashlib.sha256(_NOT_PART.sub("", secret.lower()).encode()).hexdigest()


def _texts(value: JsonValue) -> Iterator[str]:
    """Every text and number in it, names of properties included, in the order in which they stand."""
    pending: list[JsonValue] = [value]
    given = 0
    while pending and given < MAX_VALUES:
        item = pending.pop()
        match item:
            case dict():
                pending.extend(part for pair in reversed(item.items()) for part in (pair[1], pair[0]))
            case list():
                pending.extend(reversed(item))
            case str() | int() | float():
                given += 1
                yield str(item)
            case _:
                continue
    if pending:
        raise TooManyValuesError(f"more than {MAX_VALUES} values")


class TooManyValuesError(ValueError):
    """More values than are looked at. The call is refused: what is not looked at is not let through."""
