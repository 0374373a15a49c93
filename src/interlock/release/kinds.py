"""What an operation is at its server, as `tools/<tool>.yaml` says it: a tool, resource, prompt or completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.uris import MAX_URI_CHARS, TemplateError, variables

_TEXT: Final = {"type": "string"}
COMPLETION_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "argument": {
            "type": "object",
            "properties": {"name": _TEXT, "value": _TEXT},
            "required": ["name", "value"],
            "additionalProperties": False,
        },
        "context": {
            "type": "object",
            "properties": {"arguments": {"type": "object", "additionalProperties": _TEXT}},
            "additionalProperties": False,
        },
    },
    "required": ["argument"],
    "additionalProperties": False,
}


class KindError(ValueError):
    """What an operation is cannot be told from what is written; the message says what to write."""


class AtServer(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation is reached. `schema` is the input when the kind fixes it, else None."""

    kind: Kind
    upstream_name: str
    completes: Kind | None = None
    schema: dict[str, Any] | None = None

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raise `KindError` when the input does not fit the kind."""
        properties = schema.get("properties", {})
        if self.kind is Kind.COMPLETION and schema != self.schema:
            raise KindError("the input of a completion is fixed: leave it out")
        if self.kind is Kind.RESOURCE and set(properties) != set(variables(self.upstream_name)):
            raise KindError("the input of a resource is the names in its URI template, and nothing else")
        if self.kind is Kind.RESOURCE and set(schema.get("required", ())) != set(properties):
            raise KindError("every name in a URI template is needed: leave the question marks out")
        if self.kind in {Kind.RESOURCE, Kind.PROMPT} and any(
            not isinstance(inside, dict) or inside.get("type") != "string" for inside in properties.values()
        ):
            raise KindError("arguments of resources and prompts are strings")


def at_its_server(name: str, upstream: str, uri: str, prompt: str, completes: str, siblings: Mapping[str, Any]) -> AtServer:
    """Read the keys that say what an operation is; without any it is a tool. Raises `KindError`."""
    if sum(map(bool, (upstream, uri, prompt, completes))) > 1:
        raise KindError("say one of upstream (a tool), uri, prompt and completes")
    if uri:
        return _resource(uri)
    if prompt:
        return AtServer(kind=Kind.PROMPT, upstream_name=prompt)
    if not completes:
        return AtServer(kind=Kind.TOOL, upstream_name=upstream or name)
    written = siblings.get(completes)
    written = written if isinstance(written, dict) else {}
    if isinstance(written.get("prompt"), str):
        kind, of = Kind.PROMPT, written["prompt"]
    elif isinstance(written.get("uri"), str) and "{" in written["uri"]:
        kind, of = Kind.RESOURCE, written["uri"]
    else:
        raise KindError(f"completes names {completes!r}, which is no prompt and no resource template of this file")
    return AtServer(kind=Kind.COMPLETION, upstream_name=of, completes=kind, schema=dict(COMPLETION_SCHEMA))


def _resource(uri: str) -> AtServer:
    if ("://" not in uri and ":" not in uri) or len(uri) > MAX_URI_CHARS or not uri.isprintable() or " " in uri:
        raise KindError(f"uri is an absolute URI or a URI template of {MAX_URI_CHARS} characters at most, without spaces")
    try:
        names = variables(uri)
    except TemplateError as error:
        raise KindError(f"uri: {error}") from error
    schema = {
        "type": "object",
        "properties": dict.fromkeys(names, _TEXT),
        "required": list(names),
        "additionalProperties": False,
    }
    return AtServer(kind=Kind.RESOURCE, upstream_name=uri, schema=schema)
