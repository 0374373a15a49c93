"""Pictures, sounds and files in results: no filter can look into them, so they pass only where a contract says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from interlock.core.contract import Contract, Kind, Passes

_MEDIA: Final = {"image": Passes.IMAGE, "audio": Passes.AUDIO}
_KNOWN: Final = frozenset({"text", "resource", "resource_link", *_MEDIA})

Block = Mapping[str, Any]


def passing(contract: Contract, content: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks as they may leave: what the contract does not let pass is named instead."""
    return tuple(_passing(contract, block) for block in content)


def beside_structure(contract: Contract, content: tuple[Block, ...]) -> tuple[Block, ...]:
    """Of the blocks that came beside structured content those that are no text of it again."""
    return tuple(_passing(contract, block) for block in content if block.get("type") != "text")


def passing_result(contract: Contract, result: Mapping[str, Any], *, filtering: bool) -> dict[str, Any]:
    """The result of a resource or prompt as it may leave. With `filtering` nothing passes that cannot be filtered."""
    if contract.kind is Kind.RESOURCE:
        contents = [_content(contract, item, filtering=filtering) for item in _objects(result.get("contents"))]
        return {**result, "contents": contents}
    if contract.kind is Kind.PROMPT:
        messages = [
            {**message, "content": _passing(contract, _object(message.get("content")), filtering=filtering)}
            for message in _objects(result.get("messages"))
        ]
        return {**result, "messages": messages}
    return dict(result)


def _passing(contract: Contract, block: Block, *, filtering: bool = False) -> Block:
    kind = str(block.get("type"))
    if kind not in _KNOWN:
        return _withheld(f"content of the kind {kind[:40]!r}")
    if kind in _MEDIA:
        return block if _MEDIA[kind] in contract.passes and not filtering else _withheld(f"{kind} content")
    if kind == "resource":
        return {**block, "resource": _content(contract, _object(block.get("resource")), filtering=filtering)}
    return block


def _content(contract: Contract, item: Block, *, filtering: bool) -> Block:
    if "blob" not in item or (Passes.BLOB in contract.passes and not filtering):
        return item
    kept = {name: value for name, value in item.items() if name not in {"blob", "mimeType"}}
    return {**kept, "mimeType": "text/plain", "text": _withheld("a file")["text"]}


def _withheld(what: str) -> Block:
    return {"type": "text", "text": f"[{what} was withheld: the contract of this operation does not let it pass]"}


def _objects(value: object) -> list[Block]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def _object(value: object) -> Block:
    return value if isinstance(value, dict) else {}
