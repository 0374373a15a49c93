"""The release for one suite: contracts drafted as `interlock tools import` drafts them, then reviewed, and a few policies.

Nothing here knows a task. The reviewer of `drafted` says yes to every suggestion; the reviewer of `reviewed` follows the
overlay, which was written from the tools' descriptions and schemas alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML

from interlock.core.listing import ListedTool
from interlock.release.review.answers import Answer, pending, reviewed
from interlock.release.review.draft import Source, drafted, load_yaml, named, write_yaml

HERE: Final = Path(__file__).parent
ENVIRONMENT: Final = "bench"
AGENT: Final = "assistant"
TENANT: Final = "home"
TASK: Final = "help"
_RELEASE: Final = """
name: agentdojo-{suite}
administration:
  operated_by: [home]
  traces: [Approver]
  approvals: [Approver]
"""
_AGENTS: Final = """
assistant:
  bench: {{issuer: interlock-dev, subject: assistant}}
  grants:
    - {{on: "{suite}.*", for: {{roles: [User], task: help}}}}
"""
_TASKS: Final = "help: {purpose: what the user asks for, open_to: [User], agents: [assistant]}\n"
_APPROVALS: Final = "confirm: {role: Approver, show: []}\n"
# Every call of this benchmark is judged by what it does, and not by whether it was done before.
_EXTRA: Final = {"repeat": "allow"}


def overlay_of(suite: str) -> Mapping[str, Any]:
    """What the reviewer says of the suite's operations, where it differs from the suggestion."""
    return YAML(typ="safe").load((HERE / "overlays" / f"{suite}.yaml").read_text())


def tool_file(suite: str, tools: list[Mapping[str, Any]], overlay: Mapping[str, Mapping[str, Any]]) -> str:
    """The reviewed contracts of a suite's tools."""
    listed = [
        ListedTool(name=tool["name"], description=tool["description"], input_schema=json.dumps(tool["schema"]))
        for tool in tools
    ]
    text = drafted(Source(command=("agentdojo",)), named(listed))
    answers: dict[str, Answer] = {}
    rest: dict[str, dict[str, Any]] = {}
    fields = {field.encode_name for field in msgspec.structs.fields(Answer)}
    for item in pending(text):
        said = dict(overlay.get(item.operation, {}))
        rest[item.operation] = {**_EXTRA, **{key: said.pop(key) for key in list(said) if key not in fields}}
        suggestion = {"effects": item.effects, "targets": item.targets, "content": item.content}
        codes = tuple(sorted({finding.partition(" ")[0] for finding in item.findings}))
        answers[item.operation] = msgspec.convert({**suggestion, "acknowledged": codes, **said}, Answer, strict=False)
    document = load_yaml(reviewed(text, answers, by="bench", on="2026-11-25"))
    del document["command"]
    document.insert(0, "python", f"{suite}:")
    for name, more in rest.items():
        document["operations"][name].update(more)
    return write_yaml(document)


def release_of(suite: str, tools: list[Mapping[str, Any]], *, with_overlay: bool, with_guard: bool) -> dict[str, str]:
    """The files of a release in front of a suite's tools. Without the guard everything is allowed: what the guard is worth."""
    overlay = overlay_of(suite) if with_overlay else {"operations": {}}
    exceptions = "".join(f" || ({condition})" for condition in overlay.get("exceptions", ()))
    policies = (HERE / "guard.cedar").read_text().replace("$EXCEPTIONS", exceptions)
    guard = {"policies/guard/provenance.cedar": policies} if with_guard else {}
    contracts = tool_file(suite, tools, overlay["operations"])
    if with_guard and "destructive" in contracts:  # a policy about operations that a release has not is refused
        guard["policies/guard/destructive.cedar"] = (HERE / "guard-destructive.cedar").read_text()
    return {
        "release.yaml": _RELEASE.format(suite=suite),
        "agents.yaml": _AGENTS.format(suite=suite),
        "tasks.yaml": _TASKS,
        "approvals.yaml": _APPROVALS,
        f"tools/{suite}.yaml": contracts,
    } | guard
