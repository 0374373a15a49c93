"""Cedar text: escaped, split into statements with their lines, parsed, and checked against the schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import cedarpy
import msgspec

from interlock.core.contract import (
    BoolShape,
    Contract,
    DecimalShape,
    LongShape,
    OpaqueShape,
    RecordShape,
    SetShape,
    Shape,
    StringShape,
)
from interlock.core.history import Form, HistoryFact
from interlock.core.terms import Effect

GROUPS: Final = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.DESTRUCTIVE: "destructive",
    Effect.EGRESS: "egress",
}
_TOKENS: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;', re.DOTALL)
_ATTRIBUTES: Final[dict[str, Any]] = {
    "string": {"type": "String"},
    "long": {"type": "Long"},
    "bool": {"type": "Boolean"},
    "decimal": {"type": "Extension", "name": "decimal"},
    "datetime": {"type": "Extension", "name": "datetime"},
    "set": {"type": "Set", "element": {"type": "String"}},
}


def text_literal(text: str) -> str:
    """A Cedar string literal. Everything but plain ASCII is escaped, so nothing in it can end the literal."""
    # INVARIANT: whatever the text, parsing the literal gives the text back and nothing else.
    return '"' + "".join(_escaped(char) for char in text) + '"'


def pattern_literal(pattern: str) -> str:
    """A Cedar `like` pattern in which `*` matches anything and everything else stands for itself."""
    return '"' + "".join("*" if char == "*" else _escaped(char) for char in pattern) + '"'


def _escaped(char: str) -> str:
    plain = char.isascii() and char.isprintable() and char not in '"\\*'
    return char if plain or char == "*" else f"\\u{{{ord(char):x}}}"


class Statement(msgspec.Struct, frozen=True):
    """One policy as written: its text, the line it begins on, its annotations and its syntax tree; or why it is none."""

    text: str
    line: int
    est: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations by name."""
        found = (self.est or {}).get("annotations", {})
        return {name: value or "" for name, value in found.items()}


def statements(text: str) -> Iterator[Statement]:
    """The policies of a file, one by one, so that an error in one has a line and hides no other."""
    start = 0
    for token in _TOKENS.finditer(text):
        if token.group() != ";":
            continue
        yield _statement(text, start, token.end())
        start = token.end()
    rest = re.sub(r"//[^\n]*", "", text[start:])
    if rest.strip():
        yield Statement(text[start:], _line(text, start), error="the policy does not end with `;`")


def _statement(text: str, start: int, end: int) -> Statement:
    piece = text[start:end]
    begin = start + _leading(piece)
    line = _line(text, begin)
    try:
        parsed = msgspec.json.decode(cedarpy.policies_to_json_str(piece))["staticPolicies"]
    except ValueError as error:
        return Statement(text[begin:end], line, error=f"not valid Cedar: {error}")
    if len(parsed) != 1:
        return Statement(text[begin:end], line, error="templates are not used here; write a policy without slots")
    return Statement(text[begin:end], line, est=next(iter(parsed.values())))


def _leading(piece: str) -> int:
    found = re.match(r"(?:\s+|//[^\n]*\n?)*", piece)
    return found.end() if found else 0


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def actions_of(est: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The operations and groups a policy's scope names; None for every action."""
    action = est["action"]
    if action["op"] == "All":
        return None
    entities = action["entities"] if "entities" in action else [action["entity"]]
    return tuple(str(entity["id"]) for entity in entities)


def schema_of(
    contracts: Iterable[Contract], user_attributes: Mapping[str, str], history: Iterable[HistoryFact] = ()
) -> dict[str, Any]:
    """The Cedar schema (JSON form) generated from the contracts: what policies may name and read."""
    kinds: dict[str, Any] = {
        "Agent": {},
        "Role": {},
        "User": {"memberOfTypes": ["Role"]},
        "Tool": {},
    }
    actions: dict[str, Any] = {name: {} for name in GROUPS.values()}
    past = _record({fact.name: _ATTRIBUTES[_SAYS[fact.form]] for fact in history})
    for contract in contracts:
        actions.setdefault(f"tool:{contract.tool}", {})
        groups = [f"tool:{contract.tool}", *(GROUPS[effect] for effect in sorted(contract.effects))]
        resource = "Tool" if contract.resource is None else contract.resource.type
        if contract.resource is not None:
            shape = kinds.setdefault(resource, {"shape": {"type": "Record", "attributes": {}}})["shape"]["attributes"]
            for name, kind in contract.resource.attributes.items():
                shape[name] = {**_ATTRIBUTES[kind], "required": False}
        actions[contract.operation] = {
            "memberOf": [{"id": group} for group in groups],
            "appliesTo": {
                "principalTypes": ["Agent", "User"],
                "resourceTypes": [resource],
                "context": _context(contract, user_attributes, past),
            },
        }
    return {"": {"entityTypes": kinds, "actions": actions}}


_SAYS: Final = {
    Form.FORMERLY: "bool",
    Form.ONCE: "bool",
    Form.COUNT: "long",
    Form.DISTINCT: "long",
    Form.SUM: "decimal",
}


def _context(contract: Contract, user_attributes: Mapping[str, str], past: Mapping[str, Any]) -> dict[str, Any]:
    text, number, flag = _ATTRIBUTES["string"], _ATTRIBUTES["long"], _ATTRIBUTES["bool"]
    user = {"id": text, "tenant": text, "roles": _ATTRIBUTES["set"]}
    user |= {name: {**_ATTRIBUTES[kind], "required": False} for name, kind in user_attributes.items()}
    traced = _record({"origin": text, "active": _ATTRIBUTES["set"], "pointed": flag})
    session = dict.fromkeys(("id", "tenant", "environment", "task", "purpose", "posture"), text)
    return _record(
        {
            "args": _type(contract.arguments) or _record({}),
            "agent": _record({"id": text}),
            "user": _record(user),
            "session": _record({**session, "tainted": flag, "confidentiality": number}),
            "data": _record({"classification": text, "rank": number}),
            "call": _record({"entities": number, "sends": flag}),
            "origins": _record(
                {
                    **dict.fromkeys(("targets", "recipients", "content"), text),
                    "active": _ATTRIBUTES["set"],
                    **dict.fromkeys(("anchored", "pointed"), flag),
                }
            ),
            "provenance": _record({name: {**traced, "required": False} for name in (*contract.targets, *contract.content)}),
            "plan": _record(dict.fromkeys(("sealed", "operation", "agrees", "fixed"), flag)),
            "history": dict(past),
            "now": {"type": "Extension", "name": "datetime"},
        }
    )


def _record(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Record", "attributes": dict(attributes)}


def _type(shape: Shape) -> dict[str, Any] | None:
    match shape:
        case LongShape():
            return dict(_ATTRIBUTES["long"])
        case DecimalShape():
            return dict(_ATTRIBUTES["decimal"])
        case BoolShape():
            return dict(_ATTRIBUTES["bool"])
        case StringShape():
            return dict(_ATTRIBUTES["string"])
        case SetShape():
            item = _type(shape.item)
            return None if item is None else {"type": "Set", "element": item}
        case RecordShape():
            known = {name: found for name, inside in shape.fields.items() if (found := _type(inside)) is not None}
            return _record({name: {**kind, "required": name in shape.required} for name, kind in known.items()})
        case OpaqueShape():
            return None


def check(texts: list[str], schema: str) -> dict[int, list[str]]:
    """What Cedar's validator says of each policy text, by its index."""
    if not texts:
        return {}
    result = cedarpy.validate_policies("\n".join(texts), schema)
    found: dict[int, list[str]] = {}
    for error in result.errors:
        index = int(error.policy_id.removeprefix("policy")) if error.policy_id.removeprefix("policy").isdigit() else 0
        found.setdefault(index, []).append(re.sub(r"^for policy `policy\d+`, ", "", error.error))
    if not result.validation_passed and not found:
        found[0] = ["Cedar refuses these policies without saying why"]
    return found
