"""Whether what an operation answers can hold text that somebody made up: words that a model could take for its orders.

Counted are the letters that whoever fills an answer may choose. Numbers, booleans, hexadecimal digits, words out of a list and
names of declared properties are none; a string that its schema binds neither by a pattern nor in its length has no end of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from typing import Any, Final

import msgspec

from interlock.core.contract import Contract, Kind

MAX_OWN_LETTERS: Final = 32
"""As many as the longest usual identifier has; what holds more of them in all is a text."""
LETTERS_OF_ANYTHING: Final = 4
"""What a character counts that may be a space, or of a script that says a word with it."""
MAX_PATTERN_CHARS: Final = 512
MAX_PATTERN_LEVELS: Final = 16
MAX_SCHEMA_LEVELS: Final = 32
MAX_SCHEMA_PLACES: Final = 2_000
MAX_REMEMBERED_SCHEMAS: Final = 512
_MANY: Final = MAX_OWN_LETTERS + 1
_HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")
_DIALECTS: Final = ("/2020-12/", "/2019-09/")
_OLDER: Final = "/draft-07/"

MOMENTS: Final[Mapping[str, str]] = {
    "date": r"^[0-9TZtz:+. -]{1,40}$",
    "date-time": r"^[0-9TZtz:+. -]{1,40}$",
    "time": r"^[0-9TZtz:+. -]{1,40}$",
    "uuid": r"^[0-9a-fA-F-]{1,40}$",
}
"""What is held of a string with such a format, as a pattern: enough that no text passes for one. It counts no letters."""


def taints(contract: Contract) -> bool:
    """Whether a call of this contract may bring text into the caller's context that no reviewer vouches for.

    What a tool may ask, log or attach counts as much as what it returns, and a call that changes something as much as a read.
    """
    if "*" in contract.trusted:
        return False
    if contract.passes or contract.kind is not Kind.TOOL or contract.output_schema is None:
        return True
    return holds_text(contract.output_schema, contract.trusted)


@lru_cache(MAX_REMEMBERED_SCHEMAS)
def holds_text(schema: str, trusted: tuple[str, ...] = ()) -> bool:
    """Whether a value that is valid under this schema (JSON text) can hold text, other than at the trusted paths.

    Errs on the side of yes: what it does not know of a schema is taken to bind nothing.
    """
    root = msgspec.json.decode(schema)
    return _Letters(root, trusted).of(root, "", 0) > MAX_OWN_LETTERS


class _Letters:
    """Counts the letters of somebody's own that a value of a schema can hold, up to `_MANY`."""

    def __init__(self, root: Any, trusted: tuple[str, ...]) -> None:
        self._root = root
        self._trusted = frozenset(trusted)
        self._places = count(1)
        dialect = str(root.get("$schema", _DIALECTS[0])) if isinstance(root, dict) else ""
        # Older dialects do not know some of the words that bind a value here, and would let anything pass for them.
        self._is_older = _OLDER in dialect
        self._is_known = self._is_older or any(name in dialect for name in _DIALECTS)

    def of(self, schema: Any, path: str, level: int) -> int:
        """The letters of a value at an output path."""
        if schema is False:
            return 0
        if not isinstance(schema, dict) or not self._is_known or level > MAX_SCHEMA_LEVELS:
            return _MANY
        if next(self._places) > MAX_SCHEMA_PLACES or (level and "$id" in schema):
            return _MANY
        if self._is_older and "$ref" in schema:
            return self.of(self._target(schema["$ref"]), path, level + 1)  # what stands beside it says nothing there
        if "enum" in schema or "const" in schema:
            return 0
        # Each of these binds the value, so the closest one does.
        found = [self._of_kinds(schema, path, level)]
        if isinstance(schema.get("$ref"), str):
            found.append(self.of(self._target(schema["$ref"]), path, level + 1))
        found += [self.of(inside, path, level + 1) for inside in _listed(schema.get("allOf"))]
        for word in ("anyOf", "oneOf"):
            if alternatives := _listed(schema.get(word)):
                found.append(max(self.of(inside, path, level + 1) for inside in alternatives))
        return min(found)

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return True
        target = self._root
        for part in reference[2:].split("/"):
            target = target.get(part, True) if isinstance(target, dict) else True
        return target

    def _of_kinds(self, schema: Mapping[str, Any], path: str, level: int) -> int:
        kinds = schema.get("type")
        most = 0
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            match kind:
                case "null" | "boolean" | "integer" | "number":
                    pass
                case "string":
                    most = max(most, 0 if path in self._trusted else _of_string(schema))
                case "array":
                    most = max(most, self._of_array(schema, path, level))
                case "object":
                    most = max(most, self._of_object(schema, path, level))
                case _:
                    return _MANY
        return most

    def _of_array(self, schema: Mapping[str, Any], path: str, level: int) -> int:
        first = _listed(schema.get("prefixItems"))
        total = sum(self.of(inside, f"{path}[]", level + 1) for inside in first)
        each = self.of(schema.get("items", True), f"{path}[]", level + 1)
        most = schema.get("maxItems")
        return min(_MANY, total + (each * most if isinstance(most, int) else _MANY * bool(each)))

    def _of_object(self, schema: Mapping[str, Any], path: str, level: int) -> int:
        # `unevaluatedProperties` closes nothing here: what stands beside it (`allOf`, `$ref`) may let more properties in.
        if schema.get("patternProperties") or schema.get("additionalProperties") is not False:
            return _MANY  # the names of such properties can say anything, too
        inside = schema.get("properties", {})
        if not isinstance(inside, dict):
            return _MANY
        return min(_MANY, sum(self.of(of, f"{path}.{name}".lstrip("."), level + 1) for name, of in inside.items()))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _of_string(schema: Mapping[str, Any]) -> int:
    longest = schema.get("maxLength")
    found = [longest * LETTERS_OF_ANYTHING if isinstance(longest, int) else _MANY]
    if isinstance(schema.get("pattern"), str):
        found.append(_of_pattern(schema["pattern"]))
    if schema.get("format") in MOMENTS:
        found.append(0)
    return min(_MANY, *found)


def _of_pattern(pattern: str) -> int:
    """The letters of a string that matches; many when the pattern does not bind the whole string, or cannot be read."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return _MANY
    try:
        return _Pattern(pattern).letters()
    except _UnreadableError:
        return _MANY


class _UnreadableError(Exception):
    """The pattern uses what is not read here."""


class _Part(msgspec.Struct, frozen=True):
    """A part of a pattern: the letters that may be chosen in it; whether it has letters, and leaves a choice about them."""

    letters: int = 0
    has_letters: bool = False
    leaves_choice: bool = False


class _Pattern:
    """Reads a regular expression of JSON Schema, as far as patterns of identifiers go."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def letters(self) -> int:
        """The letters of what matches as a whole. Raises `_UnreadableError`."""
        if not self._takes("^"):
            raise _UnreadableError
        part = self._sequence(0)
        if not self._takes("$") or self._at != len(self._text):
            raise _UnreadableError
        return part.letters

    def _next(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _takes(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _take(self) -> str:
        found = self._next()
        if not found:
            raise _UnreadableError
        self._at += 1
        return found

    def _sequence(self, level: int) -> _Part:
        letters, has_letters, leaves_choice = 0, False, False
        while self._next() not in ("", "|", ")", "$"):
            part = self._repeated(self._atom(level))
            letters = min(_MANY, letters + part.letters)
            has_letters, leaves_choice = has_letters or part.has_letters, leaves_choice or part.leaves_choice
        return _Part(letters, has_letters, leaves_choice)

    def _atom(self, level: int) -> _Part:
        taken = self._take()
        match taken:
            case "(":
                return self._group(level + 1)
            case "[":
                return self._class()
            case "\\":
                return self._escaped(self._take())
            case ".":
                return _Part(LETTERS_OF_ANYTHING)
            case "^" | "*" | "+" | "?" | "{" | "}" | "]":
                raise _UnreadableError
            case _:
                return _Part(has_letters=_counts(taken) > 0)

    def _group(self, level: int) -> _Part:
        if level > MAX_PATTERN_LEVELS or (self._takes("?") and not self._takes(":")):
            raise _UnreadableError
        parts = [self._sequence(level)]
        while self._takes("|"):
            parts.append(self._sequence(level))
        if not self._takes(")"):
            raise _UnreadableError
        has_letters = any(part.has_letters for part in parts)
        leaves_choice = any(part.leaves_choice for part in parts) or (has_letters and len(parts) > 1)
        return _Part(max(part.letters for part in parts), has_letters, leaves_choice)

    def _class(self) -> _Part:
        if self._takes("^"):
            raise _UnreadableError
        each, may_be_a_space = 0, False
        while not self._takes("]"):
            first = self._member()
            if self._next() == "-" and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._member()
                if len(first) != 1 or len(last) != 1 or not last.isascii() or first > last:
                    raise _UnreadableError
                members = "".join(map(chr, range(ord(first), ord(last) + 1)))
            else:
                members = first
            each = max(each, *map(_counts, members))
            may_be_a_space = may_be_a_space or not members.strip() or " " in members
        return _Part(LETTERS_OF_ANYTHING if each and may_be_a_space else each)

    def _member(self) -> str:
        """A member of a class, or all that a short name stands for."""
        taken = self._take()
        if taken == "\\":
            taken = self._take()
            if taken in _SHORT:
                return _SHORT[taken]
            if taken.isalnum():
                raise _UnreadableError
            return taken
        if taken == "[" or (taken in "&~-" and self._next() == taken):
            raise _UnreadableError
        return taken

    def _escaped(self, taken: str) -> _Part:
        if taken in _SHORT:
            return _Part(max(map(_counts, _SHORT[taken])))
        if taken.isalnum():
            raise _UnreadableError
        return _Part()

    def _repeated(self, part: _Part) -> _Part:
        """A part with what says how often it comes."""
        taken = self._next()
        if taken not in ("*", "+", "?", "{"):
            return part
        self._at += 1
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(taken) or self._bounds()
        self._takes("?")  # as few as may be: of what matches this says nothing
        if self._next() in ("*", "+", "?", "{"):
            raise _UnreadableError
        times = _MANY if most is None else most
        if part.leaves_choice and times > 1:
            return _Part(_MANY)  # words can be spelled by choosing again and again
        choice = part.leaves_choice or (part.has_letters and least != most)
        return _Part(min(_MANY, part.letters * times), part.has_letters, choice)

    def _bounds(self) -> tuple[int, int | None]:
        inside, closed, _ = self._text[self._at :].partition("}")
        least, comma, most = inside.partition(",")
        if not closed or not least.isdecimal() or (most and not most.isdecimal()):
            raise _UnreadableError
        self._at += len(inside) + 1
        return int(least), int(most) if most else (None if comma else int(least))


_SHORT: Final = {"d": "0", "s": "\t", "w": "z", "n": "\n", "r": "\r", "t": "\t"}


def _counts(char: str) -> int:
    """What one character counts, where it may be chosen."""
    if char in _HEXADECIMAL or char in "\t\n\r" or (char.isascii() and not char.isalpha()):
        return 0
    return 1 if char.isascii() else LETTERS_OF_ANYTHING
