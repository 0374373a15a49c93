"""What enters a context, cut into tokens by how it may be believed. One item for each input, result or document."""

from __future__ import annotations

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from interlock.core.choice import chosen
from interlock.core.context import Item
from interlock.core.plan import PlannedSource
from interlock.provenance.files import files_in, without_files
from interlock.provenance.labels import Standing
from interlock.provenance.tokens import SPAN_WORDS, Tokenizer, tokenizer_of

MAX_ITEM_TOKENS: Final = 400_000
MAX_FIELD_CHARS: Final = 256
MAX_NAME_CHARS: Final = 64
MAX_REMEMBERED_NAMES: Final = 2_048
_NAME: Final = "<name>"
_PATH_SIGNS: Final = re.compile(r"[.\[\]]")
_FIELD: Final = re.compile(r"\S{1,64}|[\w.'-]+(?: [\w.'-]+){0,3}")


def of_input(tokenizer: Tokenizer, reference: str, text: str, *, seen: Callable[[int], bool] = lambda _: False) -> Item:
    """What the user said in their own channel. Spans that untrusted content held before stay untrusted.

    `seen` tells whether a span (`Tokenizer.spans`) stood in untrusted content: whoever pastes a mail does not vouch for it.
    """
    own, pasted = _split(tokenizer, text, seen)
    taken = _Taken(tokenizer, "input")
    taken.groups[Standing.USER] |= tokenizer.of_user_text(own)
    if pasted:
        taken.words(Standing.TEXT, pasted)
    return taken.item(reference)


def of_assertion(tokenizer: Tokenizer, reference: str, text: str) -> Item:
    """What an agent says the user said, or says by itself."""
    taken = _Taken(tokenizer, "asserted")
    taken.words(Standing.ASSERTED, text)
    return taken.item(reference)


def of_result(
    tokenizer: Tokenizer,
    source: str,
    reference: str,
    *,
    structured: Mapping[str, Any] | None,
    texts: tuple[str, ...],
    trusted: tuple[str, ...],
    pointed: bool = False,
    choices: tuple[PlannedSource, ...] = (),
    beside: tuple[str, ...] = (),
) -> Item:
    """What a tool returned: structured fields by their paths, and free text.

    `trusted` are the contract's trusted output paths (`amount`, `rows[].id`), or `*` for all of it. `pointed`: the user named
    what was read (`trace.points`). `choices` are those that the session's plan makes among the rows. Where there is structured
    content, the text beside it is only the same again, and files in it (`files.files_in`) are not read. `beside` is text that
    comes with a result of either kind, such as log messages: nothing vouches for it.
    """
    taken = _Taken(tokenizer, source, trusted, pointed=pointed)
    if structured is None:
        standing = Standing.TRUSTED if "*" in trusted else Standing.TEXT
        for text in texts:
            taken.text(standing, text)
            taken.point(text)
    else:
        taken.structure(structured, "", listed=False)
    for choice in choices:
        for value in () if choice.choose is None else chosen(without_files(structured), choice.field, choice.choose):
            taken.groups[Standing.CHOSEN] |= tokenizer.of_place(tokenizer.place(source, choice.place), value)
    for text in beside:
        taken.text(Standing.TEXT, text)
    return taken.item(reference)


class _Taken:
    """What has been taken up of one item so far."""

    def __init__(self, tokenizer: Tokenizer, source: str, trusted: tuple[str, ...] = (), *, pointed: bool = False) -> None:
        self.groups: dict[Standing, set[int]] = defaultdict(set)
        self._tokenizer = tokenizer
        self._source = source
        self._trusted = trusted
        self._pointed = pointed
        self._names: set[str] = set()
        self._leaves: set[tuple[str, str, bool]] = set()
        self._is_complete = True

    def structure(self, value: Any, path: str, *, listed: bool) -> None:
        """What stands at a path of a structured result, and below it. `listed`: it is among several of a list.

        The names of properties come again with every row, and often their values do; each is looked at once.
        """
        if isinstance(value, dict):
            files = files_in(value)
            for name, inside in value.items():
                if name not in files:
                    plain = str(name)
                    if plain not in self._names:
                        self._names.add(plain)
                        self._name(plain)
                    self.structure(inside, f"{path}.{step(plain)}" if path else step(plain), listed=listed)
        elif isinstance(value, list | tuple):
            for inside in value:
                self.structure(inside, f"{path}[]", listed=listed or len(value) > 1)
        elif value is not None and not isinstance(value, bool):
            leaf = (path, str(value), listed)
            if leaf not in self._leaves:
                self._leaves.add(leaf)
                self._leaf(*leaf)

    def _name(self, name: str) -> None:
        """The name of a property. It can be data too, so it is a text that others may have written."""
        standing = _standing_of(_NAME, name, self._trusted, listed=False)
        if standing is not Standing.TEXT or len(name) > MAX_NAME_CHARS:
            self._leaf(_NAME, name, False)
            return
        places, words, spans = _of_name(self._tokenizer.key, self._source, name)
        self.groups[Standing.PLACE].update(places)
        self.groups[Standing.TEXT].update(words)
        if spans:
            self.groups[Standing.SPAN].update(spans)
        self.point(name)

    def _leaf(self, path: str, value: str, listed: bool) -> None:
        standing = _standing_of(path, value, self._trusted, listed=listed)
        place = _place(self._tokenizer.key, self._source, path)
        if standing is Standing.FIELD or standing is Standing.LISTED:
            fields, places = self._tokenizer.of_field_at(place, value)
            self.groups[standing].update(fields)
            self.groups[Standing.PLACE].update(places)
        else:
            if len(value) <= MAX_FIELD_CHARS:
                self.groups[Standing.PLACE] |= self._tokenizer.of_place(place, value)
            self.text(standing, value)
        self.point(value)

    def text(self, standing: Standing, text: str) -> None:
        """A text of this standing as a whole."""
        if standing is Standing.TRUSTED:
            self.groups[standing] |= self._tokenizer.of_user_text(text)
        else:
            self.groups[Standing.SPAN].update(self.words(standing, text))

    def words(self, standing: Standing, text: str) -> list[int]:
        """All that a text holds and hides; gives its spans."""
        found = self._tokenizer.of_other_text(text)
        self.groups[standing] |= found.tokens
        self._is_complete = self._is_complete and found.is_complete
        return found.spans

    def point(self, text: str) -> None:
        """What a read returned that the user named."""
        if self._pointed:
            self.groups[Standing.POINTED] |= self._tokenizer.of_user_text(text)

    def item(self, reference: str) -> Item:
        """All of it, as it is kept."""
        kept: dict[int, bytes] = {}
        room, complete = MAX_ITEM_TOKENS, self._is_complete
        for standing in sorted(self.groups):
            if tokens := self.groups[standing]:
                complete = complete and len(tokens) <= room
                kept[int(standing)] = array("Q", sorted(tokens)[:room]).tobytes()
                room -= min(room, len(tokens))
        return Item(source=self._source, reference=reference, tokens=kept, is_complete=complete)


@lru_cache(MAX_REMEMBERED_NAMES)
def _place(key: str, source: str, path: str) -> int:
    """What stands for a place. A contract's paths come again with every result."""
    return tokenizer_of(key).place(source, path)


@lru_cache(MAX_REMEMBERED_NAMES)
def _of_name(key: str, source: str, name: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The name of a property at its place, as text, and its spans. A contract's names come again with every result."""
    tokenizer = tokenizer_of(key)
    words = tokenizer.of_other_text(name)
    return tuple(tokenizer.of_place(tokenizer.place(source, _NAME), name)), tuple(words.tokens), tuple(words.spans)


def _split(tokenizer: Tokenizer, text: str, seen: Callable[[int], bool]) -> tuple[str, str]:
    """A user's text without the words of pasted spans, and those words."""
    pieces = [piece for piece in text.split() if tokenizer.is_word(piece)]
    pasted = [False] * len(pieces)
    for place, span in enumerate(tokenizer.spans(" ".join(pieces))):
        if seen(span):
            pasted[place : place + SPAN_WORDS] = [True] * SPAN_WORDS
    if not any(pasted):
        return text, ""
    own = " ".join(piece for piece, is_pasted in zip(pieces, pasted, strict=True) if not is_pasted)
    return own, " ".join(piece for piece, is_pasted in zip(pieces, pasted, strict=True) if is_pasted)


def step(name: object) -> str:
    """A name as a step of a path: in quotes when it could be read as a path itself (`order.total`, `rows[]`), or is empty.

    Whoever may choose names must not get to where such a path leads.
    """
    plain = str(name)
    if plain.isidentifier() or (plain and not _PATH_SIGNS.search(plain)):
        return plain
    return json.dumps(plain, ensure_ascii=False)


def _standing_of(path: str, value: str, trusted: tuple[str, ...], *, listed: bool) -> Standing:
    if trusted and ("*" in trusted or path in trusted):
        return Standing.TRUSTED
    if path.endswith(_NAME) or not _is_field(value):
        return Standing.TEXT
    return Standing.LISTED if listed else Standing.FIELD


def _is_field(value: str) -> bool:
    """Whether a value is one thing (an address, a number, a name of a few words) and not a text that can say anything."""
    return len(value) <= MAX_FIELD_CHARS and _FIELD.fullmatch(value.strip()) is not None
