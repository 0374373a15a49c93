"""A tool, prompt or resource as its server lists it, and the digest that pins what a person has reviewed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from interlock.core.canonical import JsonValue, canonical, digest
from interlock.core.contract import Kind


class ListedTool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool as an upstream lists it; schemas are JSON text. Hints are the upstream's own claims.

    A prompt or resource is one of these as well: a resource's `name` is its URI or template, and its own name is a hint; the
    arguments of a prompt, and the names in a template, make the input schema.
    """

    name: str
    kind: Kind = Kind.TOOL
    title: str = ""
    description: str = ""
    input_schema: str = "{}"
    output_schema: str | None = None
    hints: Mapping[str, object] = {}

    @property
    def pin(self) -> str:
        """The digest of all that a reviewer is shown: name, title, description, schemas and hints, in canonical JSON.

        Whatever of it changes upstream, the pin changes.
        """
        shown: dict[str, JsonValue] = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": msgspec.json.decode(self.input_schema),
            "outputSchema": None if self.output_schema is None else msgspec.json.decode(self.output_schema),
            "annotations": msgspec.json.decode(msgspec.json.encode(self.hints)),
        }
        if self.kind is not Kind.TOOL:
            shown["kind"] = self.kind.value
        return digest(canonical(shown))
