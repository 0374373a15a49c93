"""JSON schemas: the short form people write, the full form, and what of it policy can see."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

from interlock.core.contract import (
    BoolShape,
    DecimalShape,
    LongShape,
    OpaqueShape,
    RecordShape,
    SetShape,
    Shape,
    StringShape,
)

DECIMAL: Final = {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]{1,14}(\.[0-9]{1,4})?$"}
_WORDS: Final[dict[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "decimal": DECIMAL,
}
MAX_SHAPE_LEVELS: Final = 8
MAX_SHAPE_PLACES: Final = 2_000
_SCHEMA_KEYS: Final = frozenset({"type", "enum", "anyOf", "oneOf", "allOf", "$ref", "const", "format", "pattern"})


class ShortFormError(ValueError):
    """The short form of a schema is not understood."""


def expand(short: Any) -> dict[str, Any]:
    """A JSON schema from the short form: `{order_id: string, note?: string, rows: [{id: integer}]}`.

    A word is a type, a list of one is an array, a mapping is an object whose `name?` are optional and that has no other
    properties; a mapping with a JSON Schema keyword is taken as it is. Raises `ShortFormError`.
    """
    if isinstance(short, str):
        if short not in _WORDS:
            raise ShortFormError(f"{short!r} is no type; types are {', '.join(_WORDS)}")
        return dict(_WORDS[short])
    if isinstance(short, list) and len(short) == 1:
        return {"type": "array", "items": expand(short[0])}
    if isinstance(short, dict):
        if set(short) & _SCHEMA_KEYS and not any(isinstance(value, dict) for value in short.values()):
            return short
        properties = {name.removesuffix("?"): expand(inside) for name, inside in short.items()}
        required = [name for name in short if not name.endswith("?")]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    raise ShortFormError("a schema is a type, a list of one type, or a mapping of names to types")


def arguments_shape(schema: dict[str, Any]) -> RecordShape:
    """What policy sees of an input schema. Whatever has no Cedar counterpart is opaque: hashed and sent, never shown."""
    shape = _shape(schema, schema, 0, count(1))
    return shape if isinstance(shape, RecordShape) else RecordShape(fields={})


def _shape(schema: Any, root: dict[str, Any], depth: int, seen: count[int]) -> Shape:
    schema = _resolved(schema, root)
    # Deeper arguments stay opaque, and so does what is too much: a few references can stand for millions of places.
    if not isinstance(schema, dict) or depth > MAX_SHAPE_LEVELS or next(seen) > MAX_SHAPE_PLACES:
        return OpaqueShape()
    kind = _kind(schema)
    if kind is None:
        alternatives = [item for item in schema.get("anyOf", ()) if _resolved(item, root).get("type") != "null"]
        return _shape(alternatives[0], root, depth + 1, seen) if len(alternatives) == 1 else _enum(schema)
    simple: dict[str, Shape] = {"integer": LongShape(), "number": DecimalShape(), "boolean": BoolShape()}
    if kind in simple:
        return simple[kind]
    if kind == "string":
        return DecimalShape() if schema.get("format") == "decimal" else StringShape()
    if kind == "array":
        item = _shape(schema.get("items"), root, depth + 1, seen)
        return OpaqueShape() if isinstance(item, OpaqueShape) else SetShape(item=item)
    if kind == "object" and isinstance(schema.get("properties"), dict):
        fields = {str(name): _shape(inside, root, depth + 1, seen) for name, inside in schema["properties"].items()}
        required = frozenset(name for name in schema.get("required", ()) if name in fields)
        nullable = {name for name in required if _is_nullable(schema["properties"][name], root)}
        return RecordShape(fields=fields, required=required - nullable)
    return OpaqueShape()


def _kind(schema: dict[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [item for item in kind if item != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    return kind if isinstance(kind, str) else None


def _is_nullable(schema: Any, root: dict[str, Any]) -> bool:
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    listed = isinstance(kind, list) and "null" in kind
    return listed or any(_resolved(item, root).get("type") == "null" for item in schema.get("anyOf", ()))


def _enum(schema: dict[str, Any]) -> Shape:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return StringShape() if values and all(isinstance(value, str) for value in values) else OpaqueShape()


def _resolved(schema: Any, root: dict[str, Any]) -> Any:
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str):
        return schema
    target: Any = root
    for part in reference.removeprefix("#/").split("/"):
        target = target.get(part) if isinstance(target, dict) else None
    return target if isinstance(target, dict) else {}
