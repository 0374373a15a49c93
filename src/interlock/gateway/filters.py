"""Obligations on an output, applied to structured content by the contract's field paths (DESIGN section 4, Settle).

Paths are dotted names; `name[]` steps into every item of a list; the empty path is the result itself. What cannot be
filtered is withheld: a result without structured content, a path that meets another shape than the contract says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import Columns, Obligations, RowFilter


class FilteredOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A structured result after obligations, or None when it had to be withheld. `redacted` are the paths taken out."""

    structured: Mapping[str, Any] | None
    redacted: tuple[str, ...] = ()
    withheld: str = ""


def must_filter(contract: Contract, obligations: Obligations) -> bool:
    """Whether anything in this contract's output has to be taken out."""
    return bool(redacted_paths(contract, obligations) or obligations.columns or obligations.rows)


def redacted_paths(contract: Contract, obligations: Obligations) -> tuple[str, ...]:
    """The output paths whose tags are to be redacted. A tag that the contract does not know redacts every tagged field."""
    known = frozenset().union(*contract.fields.values()) if contract.fields else frozenset()
    if obligations.redact - known and contract.fields:
        return tuple(sorted(contract.fields))
    return tuple(sorted(path for path, tags in contract.fields.items() if tags & obligations.redact))


def apply(contract: Contract, obligations: Obligations, structured: Mapping[str, Any] | None) -> FilteredOutput:
    """Take out what may not be released. The input is not changed."""
    if structured is None:
        if obligations.redact or obligations.columns or obligations.rows:
            return FilteredOutput(structured=None, withheld="the result has no structured content to filter")
        return FilteredOutput(structured=None)
    if obligations.redact and not contract.fields:
        return FilteredOutput(structured=None, withheld="the contract does not say which fields to redact")
    paths = redacted_paths(contract, obligations)
    if not (paths or obligations.rows or obligations.columns):
        return FilteredOutput(structured=structured)
    value: Any = msgspec.json.decode(msgspec.json.encode(structured))
    try:
        for rule in obligations.rows:
            _keep_rows(value, rule)
        for column in obligations.columns:
            _keep_columns(value, column)
        for path in paths:
            _remove(value, path)
    except _ShapeMismatchError as mismatch:
        return FilteredOutput(structured=None, withheld=str(mismatch))
    return FilteredOutput(structured=value, redacted=paths)


def text_of(structured: Mapping[str, Any]) -> tuple[Mapping[str, object], ...]:
    """The text rendered again from what is left, as MCP content blocks."""
    return ({"type": "text", "text": msgspec.json.encode(structured).decode()},)


def schema_as_seen(contract: Contract, obligations: Obligations) -> str | None:
    """The output schema with every field that may be taken out made optional, as JSON text; None when there is none."""
    if contract.output_schema is None or not (obligations.redact or obligations.columns):
        return contract.output_schema
    schema: Any = msgspec.json.decode(contract.output_schema)
    for path in redacted_paths(contract, obligations):
        _make_optional(schema, path.split("."), schema)
    for column in obligations.columns:
        for target in _schemas_at(schema, column.path, schema):
            if isinstance(target.get("required"), list):
                target["required"] = [name for name in target["required"] if name in column.keep]
    return msgspec.json.encode(schema).decode()


class _ShapeMismatchError(Exception):
    """The output is not shaped as the obligation's path expects."""


def _walk(value: Any, steps: list[str], visit: Callable[[Any], None]) -> None:
    if not steps:
        visit(value)
        return
    step, rest = steps[0], steps[1:]
    name, each = (step[:-2], True) if step.endswith("[]") else (step, False)
    if not isinstance(value, dict):
        raise _ShapeMismatchError(f"expected an object around {step!r}")
    inside = value.get(name) if name else value
    if inside is None:
        return
    if not each:
        _walk(inside, rest, visit)
        return
    if not isinstance(inside, list):
        raise _ShapeMismatchError(f"expected a list at {name!r}")
    for item in inside:
        _walk(item, rest, visit)


def _steps(path: str) -> list[str]:
    return path.split(".") if path else []


def _remove(value: Any, path: str) -> None:
    steps = _steps(path)
    last = steps[-1]
    name = last.removesuffix("[]")

    def drop(parent: Any) -> None:
        if not isinstance(parent, dict):
            raise _ShapeMismatchError(f"expected an object around {name!r}")
        parent.pop(name, None)

    _walk(value, steps[:-1], drop)


def _keep_columns(value: Any, rule: Columns) -> None:
    def narrow(item: Any) -> None:
        if not isinstance(item, dict):
            raise _ShapeMismatchError(f"expected objects at {rule.path!r}")
        for name in [name for name in item if name not in rule.keep]:
            del item[name]

    _walk(value, _steps(rule.path), narrow)


def _keep_rows(value: Any, rule: RowFilter) -> None:
    steps = _steps(rule.path)
    if not steps or not steps[-1].endswith("[]"):
        raise _ShapeMismatchError(f"a row filter needs a list path, not {rule.path!r}")
    name = steps[-1].removesuffix("[]")

    def keep(parent: Any) -> None:
        if not isinstance(parent, dict):
            raise _ShapeMismatchError(f"expected an object around {name!r}")
        rows = parent.get(name)
        if rows is None:
            return
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _ShapeMismatchError(f"expected a list of objects at {name!r}")
        parent[name] = [row for row in rows if _as_text(row.get(rule.field)) == rule.value]

    _walk(value, steps[:-1], keep)


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value).lower()
    return str(value) if isinstance(value, (str, int)) else None


def _resolve(schema: Any, root: Any) -> Any:
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    target = root
    for part in reference[2:].split("/"):
        target = target.get(part) if isinstance(target, dict) else None
    return target


def _schemas_at(schema: Any, path: str, root: Any) -> list[dict[str, Any]]:
    current = _resolve(schema, root)
    for step in _steps(path):
        if not isinstance(current, dict):
            return []
        name = step.removesuffix("[]")
        current = _resolve(current.get("properties", {}).get(name), root)
        if step.endswith("[]") and isinstance(current, dict):
            current = _resolve(current.get("items"), root)
    return [current] if isinstance(current, dict) else []


def _make_optional(schema: Any, steps: list[str], root: Any) -> None:
    name = steps[-1].removesuffix("[]")
    for target in _schemas_at(schema, ".".join(steps[:-1]), root):
        if isinstance(target.get("required"), list):
            target["required"] = [item for item in target["required"] if item != name]
