"""What a person answers about drafts, written into the tool file so that all else in it stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from ruamel.yaml.comments import CommentedMap

from interlock.core.contract import OpaqueShape, Passes
from interlock.core.terms import Effect
from interlock.release.contracts import written_schema
from interlock.release.review.draft import ListingError, flow, load_yaml, write_yaml
from interlock.release.shapes import arguments_shape


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A draft that waits for a review: what was suggested, the arguments to choose from, and what must be acknowledged.

    A finding is `code in place: excerpt`.
    """

    operation: str
    description: str
    effects: tuple[Effect, ...]
    targets: tuple[str, ...]
    content: tuple[str, ...]
    arguments: tuple[str, ...]
    pin: str
    findings: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reviewer says of one operation. `acknowledged` are the codes of findings they have looked at and accept.

    `passes` is what no filter looks into or what asks back; `asks_before_acting`, of what writes and asks, that it has done
    nothing yet when it asks.
    """

    effects: tuple[Effect, ...]
    targets: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    once_per: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    passes: tuple[Passes, ...] = ()
    asks_before_acting: bool = False


def pending(text: str) -> tuple[Pending, ...]:
    """The drafts in a tool file, in their order. Raises `ListingError` for a file that is none."""
    found = []
    for name, entry in _operations(load_yaml(text)).items():
        if isinstance(entry, CommentedMap) and entry.get("draft") is True:
            schema = written_schema(_plain(entry.get("input_schema"))) or {}
            fields = arguments_shape(schema).fields
            found.append(
                Pending(
                    operation=str(name),
                    description=str(entry.get("description", "")),
                    effects=tuple(effect for effect in Effect if effect.value in entry.get("effects", ())),
                    targets=tuple(map(str, entry.get("targets", ()))),
                    content=tuple(map(str, entry.get("content", ()))),
                    arguments=tuple(name for name, shape in fields.items() if not isinstance(shape, OpaqueShape)),
                    pin=str(entry.get("pin", "")),
                    findings=tuple(map(str, entry.get("findings", ()))),
                )
            )
    return tuple(found)


def reviewed(text: str, answers: Mapping[str, Answer], *, by: str, on: str) -> str:
    """The tool file with these drafts reviewed by a person on a day (`2027-01-31`).

    Raises:
        ListingError: an answer is about no draft, or names what is no argument.
    """
    document = load_yaml(text)
    operations = _operations(document)
    waiting = {item.operation: item for item in pending(text)}
    for name, answer in answers.items():
        if name not in waiting:
            raise ListingError(f"{name} is no draft of this file; drafts are {', '.join(waiting) or 'none'}")
        _check(waiting[name], answer)
        entry = operations[name]
        entry.pop("draft")
        entry.pop("findings", None)
        entry.ca.items.pop("effects", None)  # what was suggested, and why
        pin = entry.pop("pin", "")
        entry["effects"] = flow(effect.value for effect in Effect if effect in answer.effects)
        for key in ("targets", "content", "once_per"):
            values = getattr(answer, key)
            entry.pop(key, None)
            if values:
                entry[key] = flow(values)
        if answer.passes:
            entry["passes"] = flow(item.value for item in answer.passes)
        if answer.asks_before_acting:
            entry["asks_before_acting"] = True
        review = CommentedMap({"by": by, "on": on, "digest": str(pin)})
        if answer.acknowledged:
            review["acknowledged"] = flow(answer.acknowledged)
        review.fa.set_flow_style()
        entry["reviewed"] = review
    return write_yaml(document)


def _check(waiting: Pending, answer: Answer) -> None:
    codes = {finding.partition(" ")[0] for finding in waiting.findings}
    missing = ", ".join(sorted(codes - set(answer.acknowledged)))
    if missing:
        raise ListingError(f"{waiting.operation}: {'; '.join(waiting.findings)}: acknowledge {missing}, or leave it a draft")
    if not answer.effects:
        raise ListingError(f"{waiting.operation}: say what it does to the world: read, write, destructive, egress")
    for key in ("targets", "content", "once_per"):
        for name in getattr(answer, key):
            if name not in waiting.arguments:
                known = ", ".join(waiting.arguments) or "none"
                raise ListingError(f"{waiting.operation}: {key} names {name!r}; its arguments are {known}")


def _operations(document: Any) -> CommentedMap:
    operations = document.get("operations") if isinstance(document, CommentedMap) else None
    if not isinstance(operations, CommentedMap):
        raise ListingError("the file has no operations; is it a tool file?")
    return operations


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(inside) for key, inside in value.items()}
        case list():
            return [_plain(inside) for inside in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return str(value)
