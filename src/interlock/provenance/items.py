"""What enters a context, cut into tokens by how it may be believed. One item for each input, result or document."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from interlock.provenance.labels import Standing
from interlock.provenance.tokens import Tokenizer, words

MAX_ITEM_TOKENS: Final = 400_000
MAX_FIELD_CHARS: Final = 256
SPAN_WORDS: Final = 8
_FIELD: Final = re.compile(r"\S{1,64}|[\w.'-]+(?: [\w.'-]+){0,3}")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that entered a context: `source` says what (`input`, `tickets.get`), `reference` which (a call or input id).

    `tokens` holds for each way in which something entered (a value of `Standing`) its hashes, sorted, eight bytes each.
    `is_complete` is False when it held more tokens than are kept: what is not found may then have been in it.
    """

    source: str
    reference: str
    tokens: Mapping[int, bytes]
    is_complete: bool = True


def of_input(tokenizer: Tokenizer, reference: str, text: str, *, seen_untrusted: frozenset[str] = frozenset()) -> Item:
    """What the user said in their own channel. Spans that untrusted content held before stay untrusted.

    `seen_untrusted` are spans of `SPAN_WORDS` words, as `spans` gives them: whoever pastes a mail does not vouch for it.
    """
    own, pasted = _split(text, seen_untrusted)
    groups: dict[Standing, frozenset[int]] = {Standing.USER: tokenizer.of_user_text(own)}
    if pasted:
        groups[Standing.TEXT] = tokenizer.of_other_text(pasted)
    return _item("input", reference, groups)


def of_assertion(tokenizer: Tokenizer, reference: str, text: str) -> Item:
    """What an agent says the user said, or says by itself."""
    return _item("asserted", reference, {Standing.ASSERTED: tokenizer.of_other_text(text)})


def of_result(
    tokenizer: Tokenizer,
    source: str,
    reference: str,
    *,
    structured: Mapping[str, Any] | None,
    texts: tuple[str, ...],
    trusted: tuple[str, ...],
) -> Item:
    """What a tool returned: structured fields by their paths, and free text.

    `trusted` are the contract's trusted output paths (`amount`, `rows[].id`), or `*` for all of it. Where there is structured
    content, the text beside it is only the same again.
    """
    groups: dict[Standing, set[int]] = defaultdict(set)
    if structured is None:
        standing = Standing.TRUSTED if "*" in trusted else Standing.TEXT
        for text in texts:
            groups[standing] |= _tokens(tokenizer, standing, text)
    else:
        for path, value, listed in _leaves(structured, "", listed=False):
            standing = _standing_of(path, value, trusted, listed=listed)
            groups[standing] |= _tokens(tokenizer, standing, value)
    return _item(source, reference, {standing: frozenset(hashes) for standing, hashes in groups.items()})


def spans(text: str) -> frozenset[str]:
    """Every `SPAN_WORDS` words in a row of an untrusted text, for recognising what is pasted later."""
    row = words(text)
    return frozenset(" ".join(row[place : place + SPAN_WORDS]) for place in range(len(row) - SPAN_WORDS + 1))


def _split(text: str, seen_untrusted: frozenset[str]) -> tuple[str, str]:
    """A user's text without the words of pasted spans, and those words."""
    if not seen_untrusted:
        return text, ""
    pieces = [piece for piece in text.split() if words(piece)]
    row = [" ".join(words(piece)) for piece in pieces]
    pasted = [False] * len(row)
    for place in range(len(row) - SPAN_WORDS + 1):
        if " ".join(row[place : place + SPAN_WORDS]) in seen_untrusted:
            pasted[place : place + SPAN_WORDS] = [True] * SPAN_WORDS
    own = " ".join(piece for piece, is_pasted in zip(pieces, pasted, strict=True) if not is_pasted)
    return own, " ".join(piece for piece, is_pasted in zip(pieces, pasted, strict=True) if is_pasted)


def _leaves(value: Any, path: str, *, listed: bool) -> Iterator[tuple[str, str, bool]]:
    match value:
        case dict():
            for name, inside in value.items():
                # Names of properties can be data too, so they are text that others may have written.
                yield f"{path}.<name>".lstrip("."), str(name), listed
                yield from _leaves(inside, f"{path}.{name}".lstrip("."), listed=listed)
        case list() | tuple():
            for inside in value:
                yield from _leaves(inside, f"{path}[]", listed=listed or len(value) > 1)
        case bool() | None:
            return
        case _:
            yield path, str(value), listed


def _standing_of(path: str, value: str, trusted: tuple[str, ...], *, listed: bool) -> Standing:
    if "*" in trusted or path in trusted:
        return Standing.TRUSTED
    if path.endswith("<name>") or not _is_field(value):
        return Standing.TEXT
    return Standing.LISTED if listed else Standing.FIELD


def _is_field(value: str) -> bool:
    """Whether a value is one thing (an address, a number, a name of a few words) and not a text that can say anything."""
    return len(value) <= MAX_FIELD_CHARS and _FIELD.fullmatch(value.strip()) is not None


def _tokens(tokenizer: Tokenizer, standing: Standing, text: str) -> set[int]:
    match standing:
        case Standing.TRUSTED:
            return set(tokenizer.of_user_text(text))
        case Standing.FIELD | Standing.LISTED:
            return set(tokenizer.of_field(text))
        case _:
            return set(tokenizer.of_other_text(text))


def _item(source: str, reference: str, groups: Mapping[Standing, frozenset[int]]) -> Item:
    kept: dict[int, bytes] = {}
    room, complete = MAX_ITEM_TOKENS, True
    for standing in sorted(groups):
        hashes = sorted(groups[standing])
        complete = complete and len(hashes) <= room
        kept[int(standing)] = array("Q", hashes[:room]).tobytes()
        room -= min(room, len(hashes))
    return Item(source=source, reference=reference, tokens=kept, is_complete=complete)
