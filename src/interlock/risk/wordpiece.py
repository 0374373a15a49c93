"""Cuts texts into the pieces that an uncased BERT vocabulary knows (Wu et al., 2016; Devlin et al., 2019). Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

MAX_WORD_CHARS: Final = 100
UNKNOWN: Final = "[UNK]"
BEGIN: Final = "[CLS]"
END: Final = "[SEP]"
# Ideographs stand alone (the blocks that the published tokenizer of BERT names).
_IDEOGRAPHS: Final = re.compile(
    "([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f])"
)
_ASCII_MARKS: Final = re.compile(r"([!-/:-@\[-`{-~])")


class Pieces:
    """Knows one vocabulary: piece to id."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._ids = vocabulary
        self._unknown = vocabulary[UNKNOWN]
        self._begin, self._end = vocabulary[BEGIN], vocabulary[END]
        self._word = lru_cache(maxsize=20_000)(self._cut)

    def ids(self, text: str, most: int) -> list[int]:
        """The ids of a text, between those for beginning and end; `most` of them at most, the rest is left out."""
        found: list[int] = [self._begin]
        for word in words(text):
            found += self._word(word)
            if len(found) >= most:
                break
        return [*found[: most - 1], self._end]

    def _cut(self, word: str) -> tuple[int, ...]:
        """The longest pieces that are known, from the left; unknown as a whole when one is not."""
        if len(word) > MAX_WORD_CHARS:
            return (self._unknown,)
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if (known := self._ids.get(piece)) is not None:
                    found.append(known)
                    start = end
                    break
            else:
                return (self._unknown,)
        return tuple(found)


def words(text: str) -> list[str]:
    """Words and marks, in small letters and without accents; what does not print is left out."""
    if not text.isascii():
        text = "".join(char if char in "\t\n\r" or unicodedata.category(char)[0] != "C" else "" for char in text)
        text = _IDEOGRAPHS.sub(r" \1 ", text.replace("\ufffd", ""))
        text = "".join(char for char in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(char) != "Mn")
        text = "".join(f" {char} " if unicodedata.category(char)[0] == "P" else char for char in text)
    else:
        text = "".join(char for char in text.lower() if char.isprintable() or char in "\t\n\r")
    return _ASCII_MARKS.sub(r" \1 ", text).split()
