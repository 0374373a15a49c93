"""What docs/how-to/deploy.md says, for the trial to do: its statements and its manifests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy.md"


def blocks(language: str) -> list[str]:
    """Every block of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def manifests() -> dict[str, Any]:
    """The manifests by their kind; each stands on the page once."""
    read = [YAML(typ="safe").load(text) for text in blocks("yaml")]
    found = {item["kind"]: item for item in read}
    if len(found) != len(read):
        raise ValueError("a kind of manifest stands on the page twice")
    return found


def pod(kind: str) -> dict[str, Any]:
    """What a manifest's pods are."""
    found: dict[str, Any] = manifests()[kind]["spec"]["template"]["spec"]
    return found


def variables(container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container."""
    return {item["name"]: item["value"] for item in container.get("env", ())}


def mounts(container: dict[str, Any], sources: dict[str, str]) -> dict[str, str]:
    """Where what stands in for each volume is mounted."""
    return {
        sources[item["name"]]: item["mountPath"] + (":ro" if item.get("readOnly") else "") for item in container["volumeMounts"]
    }
