"""Drafts: a tool file as a listing suggests it. A draft cannot be called until a person has reviewed it."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.terms import Effect
from interlock.release.review.cautious import suggest
from interlock.release.review.scan import Severity, plain, scan, tools_in

MAX_IMPORTED_TOOLS: Final = 500
MAX_IMPORTED_RESOURCES: Final = 100
MAX_DESCRIPTION_CHARS: Final = 4_000
MAX_SCHEMA_CHARS: Final = 64_000
_LINE_CHARS: Final = 128
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_CHARS: Final = 64


class ListingError(ValueError):
    """A listing that cannot be drafted from; the message says what is wrong with it."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tool runs: `url` or `command`, and the name of its secret if it has one."""

    url: str = ""
    command: tuple[str, ...] = ()
    credential: str = ""


def named(tools: Iterable[ListedTool]) -> dict[str, ListedTool]:
    """The tools of a listing by the names they get here. Raises `ListingError` for listings with two tools of one name."""
    found: dict[str, ListedTool] = {}
    resources = 0
    # Tools first: they have their names for themselves.
    for tool in sorted(tools, key=lambda item: item.kind is not Kind.TOOL):
        resources += tool.kind is Kind.RESOURCE
        if resources > MAX_IMPORTED_RESOURCES and tool.kind is Kind.RESOURCE:
            continue
        name = _UNFIT.sub("_", _label(tool)).strip("_")[:_NAME_CHARS]
        if tool.kind is not Kind.TOOL:
            name = _free(name or tool.kind.value, tool.kind, found)
        if not name:
            raise ListingError(f"the server lists a tool whose name {plain(tool.name, 60)!r} has no letter or digit")
        if name in found:
            raise ListingError(f"the server lists two tools that would be called {name!r}; which one is meant cannot be told")
        if len(tool.input_schema) + len(tool.output_schema or "") > MAX_SCHEMA_CHARS:
            raise ListingError(f"the schemas of {name} are longer than {MAX_SCHEMA_CHARS} characters; write it by hand")
        found[name] = tool
        if len(found) > MAX_IMPORTED_TOOLS:
            raise ListingError(f"the server lists more than {MAX_IMPORTED_TOOLS} tools; write contracts for those you need")
    if not found:
        raise ListingError("the server lists no tools")
    return found


def _label(tool: ListedTool) -> str:
    return str(tool.hints.get("name") or tool.name) if tool.kind is Kind.RESOURCE else tool.name


def _free(name: str, kind: Kind, taken: Collection[str]) -> str:
    """A name for a prompt or resource that nothing else has."""
    tries = itertools.chain(
        (name, f"{name[: _NAME_CHARS - 9]}_{kind}"), (f"{name[: _NAME_CHARS - 5]}_{n}" for n in itertools.count(2))
    )
    return next(item for item in tries if item not in taken)


def _key(name: str, operation: Mapping[str, Any]) -> tuple[Kind, str]:
    """What an operation of a file is at its server."""
    if operation.get("uri"):
        return Kind.RESOURCE, str(operation["uri"])
    if operation.get("prompt"):
        return Kind.PROMPT, str(operation["prompt"])
    return Kind.TOOL, str(operation.get("upstream") or name)


def drafted(source: Source, tools: Mapping[str, ListedTool], *, others: Collection[str] = ()) -> str:
    """The text of `tools/<name>.yaml` with a draft of every tool. `others` are names of other servers' tools."""
    document = CommentedMap()
    if source.url:
        document["url"] = source.url
    else:
        document["command"] = flow(source.command)
    if source.credential:
        document["credential"] = source.credential
    document["operations"] = CommentedMap()
    for name, tool in tools.items():
        _add(document["operations"], name, tool, {*others, *tools_in(tools.values())})
    return write_yaml(document)


def extended(text: str, tools: Mapping[str, ListedTool], *, others: Collection[str] = ()) -> tuple[str, tuple[str, ...]]:
    """A tool file with drafts of the tools that it does not have yet, and their names. What is there stays as it is."""
    document = load_yaml(text)
    operations = document.get("operations") if isinstance(document, CommentedMap) else None
    if not isinstance(operations, CommentedMap):
        raise ListingError("the file has no operations to add to; is it a tool file?")
    known = {_key(str(name), operation) for name, operation in operations.items()}
    new = {name: tool for name, tool in tools.items() if (tool.kind, tool.name) not in known and name not in operations}
    for name, tool in new.items():
        _add(operations, name, tool, {*others, *tools_in(tools.values())})
    return write_yaml(document), tuple(new)


def _add(operations: CommentedMap, name: str, tool: ListedTool, others: Collection[str]) -> None:
    suggestion = suggest(tool)
    entry = CommentedMap()
    entry["draft"] = True
    entry["pin"] = tool.pin
    if tool.kind is Kind.RESOURCE:
        entry["uri"] = tool.name
        if tool.hints.get("mimeType"):
            entry["mime_type"] = plain(str(tool.hints["mimeType"]), 200)
    elif tool.kind is Kind.PROMPT:
        entry["prompt"] = tool.name
    elif tool.name != name:
        entry["upstream"] = tool.name
    if tool.title:
        entry["title"] = plain(tool.title, 200)
    if tool.description:
        entry["description"] = plain(tool.description, MAX_DESCRIPTION_CHARS)
    entry["effects"] = flow(effect.value for effect in Effect if effect in suggestion.effects)
    entry["targets"] = flow(suggestion.targets)
    entry["content"] = flow(suggestion.content)
    found = [item for item in scan(name, tool, others) if item.severity is Severity.HIGH]
    if found:
        entry["findings"] = [f"{item.code} in {item.place}: {item.excerpt}" for item in found]
    entry["input_schema"] = _schema(tool.input_schema)
    if tool.output_schema is not None:
        entry["output_schema"] = _schema(tool.output_schema)
    entry.yaml_set_comment_before_after_key("effects", before=plain(f"suggested: {suggestion.why}", _LINE_CHARS), indent=4)
    operations[name] = entry
    if tool.hints and tool.kind is Kind.TOOL:
        claims = ", ".join(f"{key} {value}" for key, value in sorted(tool.hints.items()))
        note = plain(f"the server claims: {claims}", _LINE_CHARS)
        operations.yaml_set_comment_before_after_key(name, before=note, indent=2)


def _schema(text: str) -> Any:
    """A schema as YAML; as JSON text where it holds numbers with fractions, which YAML readers would round."""
    value = msgspec.json.decode(text)
    if _has_fraction(value):
        return LiteralScalarString(msgspec.json.format(text, indent=2) + "\n")
    return _plain(value)


def _has_fraction(value: Any) -> bool:
    match value:
        case float():
            return True
        case dict():
            return any(map(_has_fraction, value.values()))
        case list():
            return any(map(_has_fraction, value))
        case _:
            return False


def _plain(value: Any) -> Any:
    match value:
        case dict():
            made = CommentedMap((str(key), _plain(inside)) for key, inside in value.items())
            if len(msgspec.json.encode(value)) < _LINE_CHARS:
                made.fa.set_flow_style()
            return made
        case list():
            return flow(map(_plain, value))
        case _:
            return value


def flow(values: Iterable[Any]) -> CommentedSeq:
    """A list that is written on one line."""
    made = CommentedSeq(values)
    made.fa.set_flow_style()
    return made


def load_yaml(text: str) -> Any:
    """A tool file as it is written, comments and all. Raises `ListingError`."""
    try:
        return _yaml().load(text)
    except YAMLError as error:
        raise ListingError(f"not valid YAML: {' '.join(str(error).split())[:200]}") from error


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4_096  # a line that was not broken stays so; what people wrote is not wrapped anew
    return yaml


def write_yaml(document: CommentedMap) -> str:
    """The text of a file that was loaded and changed."""
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()
