"""A release around the suite's server: a reviewed contract for each thing it offers, and one agent that may use them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bench.conformance.offered import PROMPTS, RESOURCES, TEMPLATE, TOOLS

TOOL: Final = "everything"
AGENT, USER, TASK = "suite-bot", "ana", "work"
_REVIEWED: Final = {"by": "bench"}
_MEDIA: Final = {
    "test_image_content": ["image"],
    "test_audio_content": ["audio"],
    "test_multiple_content_types": ["image"],
    "test_tool_with_logging": ["log"],
    "test_logging_tool": ["log"],
    "test_prompt_with_image": ["image"],
}
_ASKS: Final = ["sampling", "elicitation", "roots"]


def _passes(name: str) -> list[str]:
    asks = any(word in name for word in ("sampling", "elicitation", "input_required", "missing_capability"))
    return [*_MEDIA.get(name, []), *(_ASKS if asks else [])]


def contracts() -> dict[str, Any]:
    """The operations of `tools/everything.yaml`."""
    found: dict[str, Any] = {}
    for name, schema in TOOLS.items():
        found[name] = {"input_schema": json.dumps(schema), "description": f"The suite's {name}.", "passes": _passes(name)}
    for name, arguments in PROMPTS.items():
        described = {argument: {"type": "string", "description": argument} for argument in arguments}
        schema = {"type": "object", "properties": described, "required": list(arguments), "additionalProperties": False}
        found[name] = {"prompt": name, "input_schema": json.dumps(schema), "description": f"The suite's {name}."}
        found[name]["passes"] = _passes(name)
    for uri, content in RESOURCES.items():
        found[uri.rpartition("/")[2]] = {"uri": uri, "mime_type": content.mime_type, "description": uri, "passes": ["blob"]}
    found["template"] = {"uri": TEMPLATE, "mime_type": "application/json", "description": "Data by id."}
    found["completing"] = {"completes": "test_prompt_with_arguments"}
    return {name: {"effects": ["read"], **operation, "reviewed": _REVIEWED} for name, operation in found.items()}


def write(folder: Path, *, url: str, protocol: str) -> None:
    """Write release and directory. YAML takes JSON as it is."""
    operations = contracts()
    files: dict[str, Any] = {
        "release.yaml": {"name": "conformance"},
        "tasks.yaml": {TASK: {"purpose": "measure", "open_to": ["User"], "agents": [AGENT]}},
        "agents.yaml": {
            AGENT: {
                "prod": {"issuer": "interlock-dev", "subject": f"agent:{AGENT}@prod"},
                "grants": [
                    {
                        "on": [f"{TOOL}.{name}" for name in operations],
                        "for": {"roles": ["User"], "task": TASK},
                        "data": {"max": "pii"},
                    }
                ],
            }
        },
        f"tools/{TOOL}.yaml": {"url": url, "protocol": protocol, "operations": operations},
    }
    for name, content in files.items():
        path = folder / "release" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))
    people = {USER: {"tenant": "acme", "roles": ["User"]}}
    agents = {AGENT: {"subjects": {"prod": f"agent:{AGENT}@prod"}}}
    (folder / "directory.yaml").write_text(json.dumps({"users": people, "agents": agents}))
