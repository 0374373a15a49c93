"""What enters a context, cut into tokens by how it may be believed. One item for each input, result or document."""

from __future__ import annotations

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from interlock.core.choice import chosen
from interlock.core.context import Item
from interlock.core.plan import PlannedSource
from interlock.provenance.labels import Standing
from interlock.provenance.tokens import SPAN_WORDS, Tokenizer

MAX_ITEM_TOKENS: Final = 400_000
MAX_FIELD_CHARS: Final = 256
MAX_NAME_CHARS: Final = 64
MAX_REMEMBERED_NAMES: Final = 8_192
_NAME: Final = "<name>"
_PATH_SIGNS: Final = re.compile(r"[.\[\]]")
_FIELD: Final = re.compile(r"\S{1,64}|[\w.'-]+(?: [\w.'-]+){0,3}")


def of_input(tokenizer: Tokenizer, reference: str, text: str, *, seen: Callable[[int], bool] = lambda _: False) -> Item:
    """What the user said in their own channel. Spans that untrusted content held before stay untrusted.

    `seen` tells whether a span (`Tokenizer.spans`) stood in untrusted content: whoever pastes a mail does not vouch for it.
    """
    own, pasted = _split(tokenizer, text, seen)
    taken = _Taken(tokenizer)
    taken.groups[Standing.USER] |= tokenizer.of_user_text(own)
    if pasted:
        taken.words(Standing.TEXT, pasted)
    return taken.item("input", reference)


def of_assertion(tokenizer: Tokenizer, reference: str, text: str) -> Item:
    """What an agent says the user said, or says by itself."""
    taken = _Taken(tokenizer)
    taken.words(Standing.ASSERTED, text)
    return taken.item("asserted", reference)


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
    content, the text beside it is only the same again. `beside` is text that comes with a result of either kind, such as log
    messages: nothing vouches for it.
    """
    taken = _Taken(tokenizer)
    if structured is None:
        standing = Standing.TRUSTED if "*" in trusted else Standing.TEXT
        for text in texts:
            taken.value(standing, text, pointed=pointed)
    else:
        # The names of properties come again with every row, and often their values do.
        for path, value, listed in dict.fromkeys(_leaves(structured, "", listed=False)):
            standing = _standing_of(path, value, trusted, listed=listed)
            if path == _NAME and standing is Standing.TEXT and len(value) <= MAX_NAME_CHARS:
                taken.name(source, value, pointed=pointed)
                continue
            if len(value) <= MAX_FIELD_CHARS:
                taken.groups[Standing.PLACE] |= tokenizer.of_place(source, path, value)
            taken.value(standing, value, pointed=pointed)
    for choice in choices:
        for value in () if choice.choose is None else chosen(structured, choice.field, choice.choose):
            taken.groups[Standing.CHOSEN] |= tokenizer.of_place(source, choice.place, value)
    for text in beside:
        taken.value(Standing.TEXT, text, pointed=False)
    return taken.item(source, reference)


class _Taken:
    """What has been taken up of one item so far."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.groups: dict[Standing, set[int]] = defaultdict(set)
        self._is_complete = True

    def value(self, standing: Standing, value: str, *, pointed: bool) -> None:
        """A field or a text as a whole, of this standing."""
        match standing:
            case Standing.TRUSTED:
                self.groups[standing] |= self._tokenizer.of_user_text(value)
            case Standing.FIELD | Standing.LISTED:
                self.groups[standing] |= self._tokenizer.of_field(value)
            case _:
                self.groups[Standing.SPAN].update(self.words(standing, value))
        if pointed:
            self.groups[Standing.POINTED] |= self._tokenizer.of_user_text(value)

    def words(self, standing: Standing, text: str) -> list[int]:
        """All that a text holds and hides; gives its spans."""
        found = self._tokenizer.of_other_text(text)
        self.groups[standing] |= found.tokens
        self._is_complete = self._is_complete and found.is_complete
        return found.spans

    def name(self, source: str, name: str, *, pointed: bool) -> None:
        """The name of a property."""
        places, words, spans = _of_name(self._tokenizer.key, source, name)
        self.groups[Standing.PLACE] |= places
        self.groups[Standing.TEXT] |= words
        self.groups[Standing.SPAN].update(spans)
        if pointed:
            self.groups[Standing.POINTED] |= self._tokenizer.of_user_text(name)

    def item(self, source: str, reference: str) -> Item:
        """All of it, as it is kept."""
        kept: dict[int, bytes] = {}
        room, complete = MAX_ITEM_TOKENS, self._is_complete
        for standing in sorted(self.groups):
            hashes = sorted(self.groups[standing])
            complete = complete and len(hashes) <= room
            kept[int(standing)] = array("Q", hashes[:room]).tobytes()
            room -= min(room, len(hashes))
        return Item(source=source, reference=reference, tokens=kept, is_complete=complete)


@lru_cache(MAX_REMEMBERED_NAMES)
def _of_name(key: str, source: str, name: str) -> tuple[frozenset[int], frozenset[int], tuple[int, ...]]:
    """The name of a property at its place, as text, and its spans. A contract's names come again with every result."""
    tokenizer = Tokenizer(key)
    words = tokenizer.of_other_text(name)
    return tokenizer.of_place(source, _NAME, name), words.tokens, tuple(words.spans)


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


def _leaves(value: Any, path: str, *, listed: bool) -> Iterator[tuple[str, str, bool]]:
    match value:
        case dict():
            for name, inside in value.items():
                # Names of properties can be data too, so they are text that others may have written.
                yield _NAME, str(name), False
                yield from _leaves(inside, f"{path}.{step(name)}".lstrip("."), listed=listed)
        case list() | tuple():
            for inside in value:
                yield from _leaves(inside, f"{path}[]", listed=listed or len(value) > 1)
        case bool() | None:
            return
        case _:
            yield path, str(value), listed


def step(name: object) -> str:
    """A name as a step of a path: in quotes when it could be read as a path itself (`order.total`, `rows[]`), or is empty.

    Whoever may choose names must not get to where such a path leads.
    """
    plain = str(name)
    return plain if plain and not _PATH_SIGNS.search(plain) else json.dumps(plain, ensure_ascii=False)


def _standing_of(path: str, value: str, trusted: tuple[str, ...], *, listed: bool) -> Standing:
    if "*" in trusted or path in trusted:
        return Standing.TRUSTED
    if path.endswith(_NAME) or not _is_field(value):
        return Standing.TEXT
    return Standing.LISTED if listed else Standing.FIELD


def _is_field(value: str) -> bool:
    """Whether a value is one thing (an address, a number, a name of a few words) and not a text that can say anything."""
    return len(value) <= MAX_FIELD_CHARS and _FIELD.fullmatch(value.strip()) is not None
