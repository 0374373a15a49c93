"""A release as text: every policy by layer, and the schema in Cedar's own notation."""

from __future__ import annotations

import json
from typing import Any

from interlock.core.terms import Layer
from interlock.release.model import Release


def cedar_text(release: Release) -> str:
    """All policies, those compiled from grants included, grouped by layer."""
    parts = []
    for layer in Layer:
        of_layer = [policy for policy in release.policies if policy.layer is layer]
        parts.append(f"// ---- {layer.value}: {len(of_layer)} policies ----")
        parts += [f"// {policy.file}:{policy.line}\n{policy.cedar.strip()}" for policy in of_layer]
    return "\n\n".join(parts)


def schema_text(release: Release) -> str:
    """The generated Cedar schema, readable."""
    schema: dict[str, Any] = json.loads(release.cedar_schema)[""]
    lines = []
    for name, kind in sorted(schema["entityTypes"].items()):
        within = f" in [{', '.join(kind['memberOfTypes'])}]" if kind.get("memberOfTypes") else ""
        shape = f" {_type(kind['shape'], 0)}" if "shape" in kind else ""
        lines.append(f"entity {name}{within}{shape};")
    for name, action in sorted(schema["actions"].items()):
        groups = ", ".join(json.dumps(group["id"]) for group in action.get("memberOf", ()))
        within = f" in [{groups}]" if groups else ""
        applies = action.get("appliesTo")
        if applies is None:
            lines.append(f"action {json.dumps(name)}{within};")
            continue
        lines.append(
            f"action {json.dumps(name)}{within} appliesTo {{\n"
            f"  principal: [{', '.join(applies['principalTypes'])}],\n"
            f"  resource: [{', '.join(applies['resourceTypes'])}],\n"
            f"  context: {_type(applies['context'], 1)}\n}};"
        )
    return "\n".join(lines)


def _type(kind: dict[str, Any], depth: int) -> str:
    match kind["type"]:
        case "Record":
            pad = "  " * (depth + 1)
            inside = [
                f"{pad}{json.dumps(name)}{'' if item.get('required', True) else '?'}: {_type(item, depth + 1)}"
                for name, item in kind["attributes"].items()
            ]
            return "{\n" + ",\n".join(inside) + "\n" + "  " * depth + "}" if inside else "{}"
        case "Set":
            return f"Set<{_type(kind['element'], depth)}>"
        case "Extension":
            return str(kind["name"])
        case other:
            return {"Boolean": "Bool"}.get(other, str(other))
