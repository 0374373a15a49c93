"""YAML read into plain values that remember where they stood."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarfloat import ScalarFloat

from interlock.release.errors import Problem

MAX_FILE_CHARS: Final = 512 * 1024
MAX_NODES: Final = 100_000
MAX_FILES_KEPT: Final = 64
_UNKNOWN = re.compile(r"unknown field `(.+?)`")
T = TypeVar("T")


class Node(msgspec.Struct, frozen=True):
    """A plain value, the file it came from, and the line of every part by its path (`$.a[0].b`)."""

    value: Any
    file: str
    lines: Mapping[str, int]
    path: str = "$"

    @property
    def line(self) -> int:
        """Where this value stands."""
        return line_of(self.lines, self.path)

    def items(self) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping; none for anything else."""
        if isinstance(self.value, dict):
            for key, inside in self.value.items():
                yield key, Node(inside, self.file, self.lines, f"{self.path}.{key}")

    def each(self) -> Iterator[Node]:
        """The items of a list; none for anything else."""
        if isinstance(self.value, list):
            for index, inside in enumerate(self.value):
                yield Node(inside, self.file, self.lines, f"{self.path}[{index}]")

    def at(self, key: str) -> Node:
        """The value under a key, None when there is none."""
        inside = self.value.get(key) if isinstance(self.value, dict) else None
        return Node(inside, self.file, self.lines, f"{self.path}.{key}")


class Problems:
    """Collects problems while loading goes on as far as it can."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, node: Node, message: str) -> None:
        """Note a problem where a node stands."""
        self.found.append(Problem(node.file, node.line, message))

    def convert(self, node: Node, kind: type[T]) -> T | None:
        """The node as a struct; None, and a problem noted, when it does not fit."""
        try:
            return msgspec.convert(node.value, kind)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `")
            path = place.rstrip("`").removeprefix("$").removeprefix("key in ")
            unknown = _UNKNOWN.search(message)
            hint = ""
            if unknown:
                fields = _fields_at(kind, [step for step in path.split(".") if step])
                path = f"{path}.{unknown.group(1)}"
                close = difflib.get_close_matches(unknown.group(1), fields, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(fields)}"
            where = f" at {path.lstrip('.')}" if path else ""
            line = line_of(node.lines, node.path + path)
            self.found.append(Problem(node.file, line, f"{message[:1].lower()}{message[1:]}{where}{hint}"))
            return None


def _fields_at(kind: Any, steps: list[str]) -> list[str]:
    """The names that may stand at a place inside a struct; none when the place is not inside structs alone."""
    for step in steps:
        known = {field.encode_name: field.type for field in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
        inner = known.get(step)
        choices = inner.types if isinstance(inner, msgspec.inspect.UnionType) else (inner,)
        found = [choice.cls for choice in choices if isinstance(choice, msgspec.inspect.StructType)]
        if not found:
            return []
        kind = found[0]
    return list(kind.__struct_encode_fields__)


def line_of(lines: Mapping[str, int], path: str) -> int:
    """The line of a path, or of the nearest part around it."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["))] if max(path.rfind("."), path.rfind("[")) > 0 else ""
    return lines.get(path, 0)


def read_yaml(file: str, text: str, problems: Problems) -> Node | None:
    """Parse one file; None, and a problem noted, when it is not plain YAML. Nobody changes what a node holds: it is shared."""
    node, found = _read(file, text)
    problems.found.extend(found)
    return node


# Several rooms read the same files, and a diff reads those of two releases that differ in one; parsing is most of loading.
@lru_cache(maxsize=MAX_FILES_KEPT)
def _read(file: str, text: str) -> tuple[Node | None, tuple[Problem, ...]]:
    if len(text) > MAX_FILE_CHARS:
        return None, (Problem(file, 0, f"longer than {MAX_FILE_CHARS} characters"),)
    yaml = YAML(typ="rt", pure=True)
    try:
        loaded = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(str(error.problem or error.context or "not valid YAML").split())
        return None, (Problem(file, mark.line + 1 if mark else 0, words),)
    except (YAMLError, ValueError, RecursionError) as error:
        return None, (Problem(file, 0, f"not valid YAML: {' '.join(str(error).split())[:200]}"),)
    lines: dict[str, int] = {"$": 1}
    try:
        value = _Plain(lines).of(loaded, "$")
    except _RefusedError as refused:
        return None, (Problem(file, refused.line, str(refused)),)
    return Node(value, file, lines), ()


class _RefusedError(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Plain:
    """Copies a parsed tree into plain values. Aliases are copied out, so their number is bounded."""

    def __init__(self, lines: dict[str, int]) -> None:
        self._lines = lines
        self._nodes = 0

    def of(self, value: Any, path: str) -> Any:
        self._nodes += 1
        line = self._lines.get(path, 0)
        if self._nodes > MAX_NODES:
            raise _RefusedError(f"more than {MAX_NODES} values, aliases counted out", line)
        tag = getattr(value, "tag", None)
        if tag is not None and tag.value is not None:
            raise _RefusedError(f"the tag {tag.value} is not allowed; write plain YAML", line)
        if isinstance(value, CommentedMap):
            return self._mapping(value, path)
        if isinstance(value, CommentedSeq):
            for index in range(len(value)):
                self._lines[f"{path}[{index}]"] = value.lc.item(index)[0] + 1 if value.lc.data else line
            return [self.of(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, (float, ScalarFloat)):
            # A float has already lost what was written; a limit must mean exactly what it says.
            raise _RefusedError(f'write the number in quotes: "{value}"', line)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return int(value)
        return str(value)

    def _mapping(self, value: CommentedMap, path: str) -> dict[str, Any]:
        for key in value:
            name = f"{path}.{key}"
            self._lines[name] = value.lc.key(key)[0] + 1 if key in (value.lc.data or {}) else self._lines.get(path, 0)
        return {str(key): self.of(inside, f"{path}.{key}") for key, inside in value.items()}
