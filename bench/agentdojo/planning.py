"""The honest planner: what somebody who only knows the user's words and the tools could plan, made from the ground truth.

Of each planned call it says: the operation; of each target the value, if the user's words hold it; else, which earlier
result of the plan it will come from. Values that are computed, or that nothing holds, stay open. It never sees an attack.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from interlock.core.choice import Choice, Pick, chosen
from interlock.core.contract import Contract
from interlock.provenance.index import Index
from interlock.provenance.items import of_input, step
from interlock.provenance.labels import Standing
from interlock.provenance.tokens import Tokenizer

_SUPERLATIVES: Final = {
    Pick.MAX: {"largest", "biggest", "highest", "most", "latest", "newest"},
    Pick.MIN: {"smallest", "lowest", "fewest", "least", "cheapest", "earliest", "oldest"},
}


class Planning(StrEnum):
    """How much is planned: nothing, which operations, or also which targets and where they come from."""

    NONE = "none"
    OPERATIONS = "operations"
    SOURCES = "sources"


def plan_of(
    suite: str, contracts: Mapping[str, Contract], calls: list[dict[str, Any]], prompt: str, planning: Planning
) -> dict[str, Any]:
    """The plan for a task whose calls, and their results where nobody attacks, are known."""
    entries = []
    for number, call in enumerate(calls):
        name = f"{suite}.{call['function']}"
        entry: dict[str, Any] = {"operation": name}
        if planning is Planning.SOURCES:
            targets, sources = {}, {}
            for argument in contracts[name].targets:
                value = call["args"].get(argument)
                if value is None or value == [] or isinstance(value, bool):
                    continue
                if _said(value, prompt) or _on_a_day_said(value, prompt):
                    targets[argument] = value
                elif found := _chosen(suite, value, calls[:number], prompt) or _places(suite, value, calls[:number]):
                    sources[argument] = found
            entry |= {"targets": targets, "sources": sources}
        entries.append(entry)
    return {"operations": entries}


def _said(value: Any, prompt: str) -> bool:
    """Whether the user's words hold every value: a text as it stands, a number however it is written."""
    numbers = {float(found.replace(",", "")) for found in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", prompt)}

    def said(item: Any) -> bool:
        return item in numbers if isinstance(item, int | float) else _has(prompt, str(item))

    return all(map(said, value if isinstance(value, list) else [value]))


def _on_a_day_said(value: Any, prompt: str) -> bool:
    """Whether a value is a moment on a day that the user named: the hour is then the planner's to choose."""
    day = re.match(r"\d{4}-\d{2}-\d{2}(?=\D|$)", str(value))
    if day is None:
        return False
    tokenizer, index = Tokenizer("planner"), Index()
    index.add(of_input(tokenizer, "prompt", prompt))
    return any(index.all_in(way.tokens, Standing.USER) for way in tokenizer.vouched(day.group()))


def _chosen(suite: str, value: Any, before: list[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """The row that the user's words describe ("the largest"), where it is the one row of a list that they fit."""
    words = set(re.findall(r"[a-z]+", prompt.casefold()))
    for pick in (pick for pick, named in _SUPERLATIVES.items() if words & named):
        for call in reversed(before):
            rows = call["result"] if isinstance(call["result"], list) else []
            for field, by in itertools.permutations(rows[0] if rows and isinstance(rows[0], dict) else (), 2):
                choice = Choice(pick=pick, by=f"result[].{by}")
                if chosen({"result": rows}, f"result[].{field}", choice) == (str(value),):
                    place = {"operation": f"{suite}.{call['function']}", "field": f"result[].{field}"}
                    return [place | {"choose": {pick.value: choice.by}}]
    return []


def _places(suite: str, value: Any, before: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The results, and fields, that hold the values; none when one value is held by no result. Whole fields are preferred."""
    found: list[dict[str, str]] = []
    for item in value if isinstance(value, list) else [value]:
        fields, texts = [], []
        for call in before:
            operation = f"{suite}.{call['function']}"
            result = call["result"]
            wrapped = {"result": result} if isinstance(result, list) else result
            if isinstance(wrapped, str):
                texts += [{"operation": operation}] if _has(wrapped, str(item)) else []
                continue
            for path, leaf in _leaves(wrapped, ""):
                if _same(leaf, item):
                    fields.append({"operation": operation, "field": path})
                elif _has(str(leaf), str(item)):
                    texts.append({"operation": operation})
        places = fields or texts
        if not places:
            return []
        found += [place for place in places if place not in found]
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for name, inside in value.items():
                yield from _leaves(inside, f"{path}.{step(name)}".lstrip("."))
        case list():
            for inside in value:
                yield from _leaves(inside, f"{path}[]")
        case None | bool():
            return
        case _:
            yield path, value


def _same(leaf: Any, value: Any) -> bool:
    if isinstance(leaf, int | float) and isinstance(value, int | float):
        return leaf == value
    return str(leaf).casefold() == str(value).casefold()


def _has(text: str, value: str) -> bool:
    """Whether a text holds a value and does not go on with the same word."""
    place = text.casefold().find(value.casefold())
    while value and place >= 0:
        ends = (text[place - 1 : place], text[place + len(value) : place + len(value) + 1])
        if not any(end.isalnum() for end in ends):
            return True
        place = text.casefold().find(value.casefold(), place + 1)
    return False
