"""What a listing hides: instructions to the model, text that nobody sees, names that look like others, encoded parts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.disguise import loose, tags_in
from interlock.core.listing import ListedTool

LONG_DESCRIPTION_CHARS: Final = 4_000
MAX_FINDINGS: Final = 50
MAX_PLACES: Final = 2_000
_EXCERPT_CHARS: Final = 80
_SECRETS: Final = (
    r"id_rsa|\.ssh\b|\.env\b|\.aws/credentials|mcp\.json|api[_ ]?keys?|passwords?|access tokens?|(?:full )?conversation"
)
_ADDRESSED: Final = re.compile(
    "|".join(
        (
            r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|prior|above|earlier|other|all|system|instructions?)\b",
            (
                r"\b(?:do not|don't|never)\b.{0,30}\b(?:tell|inform|mention|reveal|show|notify|ask)\b.{0,30}"
                r"\b(?:user|anyone|anybody|human|person)\b"
            ),
            (
                r"\byou (?:must|should|have to|need to|are required to)\b.{0,60}"
                r"\b(?:first|before|always|call|use|invoke|read|send|include|pass)\b"
            ),
            (
                r"\b(?:before|after|when|whenever) (?:using|calling|invoking|you (?:use|call|invoke))\b.{0,80}"
                r"\b(?:tool|read|send|call|include|first)\b"
            ),
            r"<\s*/?\s*(?:important|system|instructions?|secret|hidden|assistant|admin)\s*>",
            r"\b(?:system prompt|as an ai|chain of thought|side ?note)\b",
            rf"(?:{_SECRETS}).{{0,60}}\b(?:pass|include|send|append|provide|as (?:the|a)|in (?:the|this))\b",
            rf"\b(?:pass|include|send|append|read)\b.{{0,60}}(?:{_SECRETS})",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
_COMMENT: Final = re.compile(
    r"<!--.{0,400}|\[//\]:\s*#|<\s*(?:span|div|p)[^>]{0,400}?(?:display\s*:\s*none|font-size\s*:\s*0)[^>]{0,400}>",
    re.IGNORECASE | re.DOTALL,
)
_ENCODED: Final = re.compile(r"(?<![\w/])[A-Za-z0-9+/]{60,}={0,2}(?![\w/])")
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tabs and ends of lines
_INVISIBLE: Final = frozenset({"Cf", "Co", "Cn"})
_ALLOWED_FORMAT: Final = frozenset("\u00ad\u200d")  # soft hyphens, and the joiner in compound emoji
_JOINER: Final = "\u200d"


class Severity(StrEnum):
    """How bad a finding is. `high` must be acknowledged in so many words before the operation is reviewed."""

    LOW = "low"
    HIGH = "high"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a reviewer must see. `code` is stable; `place` is `description`, `title`, `name` or a path in a schema."""

    operation: str
    code: str
    severity: Severity
    place: str
    excerpt: str


def scan(operation: str, tool: ListedTool, others: Collection[str] = ()) -> tuple[Finding, ...]:
    """Everything suspicious in one listed tool. `others` are the names of other tools, of this and other servers."""
    found: list[Finding] = []

    def add(code: str, severity: Severity, place: str, excerpt: str) -> None:
        if len(found) < MAX_FINDINGS:
            found.append(
                Finding(operation=operation, code=code, severity=severity, place=place, excerpt=plain(excerpt, _EXCERPT_CHARS))
            )

    for place, text in _texts(tool):
        if hidden := _hidden(text):
            add("invisible", Severity.HIGH, place, f"{len(hidden)} invisible characters: {_spelled(hidden)}")
        if match := _ADDRESSED.search(_seen(text)):
            add("instruction", Severity.HIGH, place, match.group())
        if match := _COMMENT.search(text):
            add("comment", Severity.HIGH, place, match.group())
        if match := _ENCODED.search(text):
            add("encoded", Severity.HIGH, place, match.group())
        for other in others:
            if other != tool.name and _names(text, other):
                add("other-tool", Severity.HIGH, place, f"speaks of the tool {other}")
    if len(tool.description) > LONG_DESCRIPTION_CHARS:
        add("long", Severity.LOW, "description", f"{len(tool.description)} characters")
    for other in others if tool.kind is Kind.TOOL else ():
        if other != tool.name and _alike(tool.name, other):
            add("look-alike", Severity.HIGH, "name", f"{tool.name} reads like {other}")
    return tuple(found)


def tools_in(listing: Iterable[ListedTool]) -> set[str]:
    """The names of the tools in a listing: what texts may speak of, and names be made to look like."""
    return {tool.name for tool in listing if tool.kind is Kind.TOOL}


def plain(text: str, max_chars: int) -> str:
    """A text that may be shown in a terminal or a file: what is invisible or controls the screen is spelled out, and cut."""
    shown = "".join(
        char if char == "\n" or (char.isprintable() and not _is_hidden(char)) else f"\\u{{{ord(char):x}}}" for char in text
    )
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"


def _texts(tool: ListedTool) -> Iterator[tuple[str, str]]:
    yield "name", tool.name
    yield "title", tool.title
    yield "description", tool.description
    for kind, schema in (("input", tool.input_schema), ("output", tool.output_schema)):
        if schema is not None:
            yield from _in_schema(kind, msgspec.json.decode(schema))
    for key, value in tool.hints.items():
        if isinstance(value, str):
            yield f"annotations.{key}", value


def _in_schema(kind: str, schema: Any) -> Iterator[tuple[str, str]]:
    pending: list[tuple[str, Any]] = [(kind, schema)]
    places = 0
    while pending and places < MAX_PLACES:
        path, value = pending.pop()
        places += 1
        match value:
            case dict():
                for key, inside in value.items():
                    yield f"{path}.<name>", str(key)
                    pending.append((f"{path}.{plain(str(key), 40)}", inside))
            case list():
                pending.extend((f"{path}[]", inside) for inside in value)
            case str():
                yield path, value
            case _:
                continue
    if pending:
        yield f"{kind}", "<important> more than can be looked at"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _INVISIBLE and char not in _ALLOWED_FORMAT


def _hidden(text: str) -> str:
    controls = "".join(_CONTROL.findall(text))
    if text.isascii():
        return controls
    joiners = text.count(_JOINER)
    hidden = "".join(char for char in text if _is_hidden(char))
    # Between letters a joiner hides text; between symbols it makes one symbol of two.
    return controls + hidden + _JOINER * (joiners if re.search(r"\w\u200d\w", text) else 0)


def _seen(text: str) -> str:
    """What a model reads: invisible characters gone, tag characters as what they spell."""
    if _ANSI.search(text):
        text = f"{_ANSI.sub('', text)} {_ANSI.sub(' ', text)}"
    return text if text.isascii() else f"{loose(text)} {tags_in(text)}"


def _spelled(hidden: str) -> str:
    return tags_in(hidden) or ", ".join(dict.fromkeys(f"U+{ord(char):04X}" for char in hidden))


def _names(text: str, other: str) -> bool:
    """Whether a text speaks of another tool by a name that is more than a word of the language."""
    return ("_" in other or "-" in other or "." in other or any(char.isupper() for char in other[1:])) and bool(
        re.search(rf"(?<![\w-]){re.escape(other)}(?![\w-])", text)
    )


def _alike(name: str, other: str) -> bool:
    one, two = _skeleton(name), _skeleton(other)
    return one == two or (min(len(one), len(two)) > 5 and _one_step(one, two))  # noqa: PLR2004  # short names differ by one letter


def _skeleton(name: str) -> str:
    letters = "".join(char for char in loose(name).translate(_DIGITS) if char.isalnum())
    return letters.replace("rn", "m").replace("vv", "w")


_DIGITS: Final = str.maketrans("0135", "oles")


def _one_step(one: str, two: str) -> bool:
    """Whether two names differ by one letter: another, one more, one less, or two swapped."""
    if abs(len(one) - len(two)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    rest_one, rest_two = one[start:], two[start:]
    return (
        rest_one[1:] == rest_two[1:]
        or rest_one[1:] == rest_two
        or rest_one == rest_two[1:]
        or (rest_one[:2] == rest_two[1::-1] and rest_one[2:] == rest_two[2:])
    )
