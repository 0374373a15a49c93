"""Facts as Cedar sees them: a typed and total encoding, so that nothing a model writes can become more than a value.

Each argument is written by the shape that its contract declares, never passed through. What does not fit is refused by
name. A float, a null or an `{"__entity": …}` therefore cannot reach the engine, where one of them anywhere in the
context would yield no decision, or an entity that nobody made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, assert_never

import msgspec

from interlock.core.canonical import MAX_SAFE_INTEGER, AmbiguousJsonError, canonical, parse_strict
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
from interlock.core.decision import Facts, ResourceFacts
from interlock.core.history import FactValue
from interlock.core.plan import UNPLANNED
from interlock.core.terms import Origin
from interlock.policy.errors import FactsRefusedError, UnusableReleaseError

MAX_ARGUMENT_BYTES: Final = 1_048_576
MAX_NAME_CHARS: Final = 80
USER_ATTRIBUTE_TYPES: Final = frozenset({"string", "set", "long", "bool"})
FIXED_USER_ATTRIBUTES: Final = frozenset({"id", "tenant", "roles"})
RESERVED_ENTITY_TYPES: Final = frozenset({"Agent", "User", "Role", "Tool", "Action"})

_SUSPICIOUS: Final = re.compile(r'\\u0000|"__|[0-9]{16}|\.0[,}\]]')
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,4})?")
_DECIMAL_LIMIT_E4: Final = 2**63
_WORST: Final = ("targets", "recipients", "content")
ANCHORS: Final = frozenset({Origin.USER, Origin.DERIVED, Origin.TRUSTED, Origin.PLANNED})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US: Final = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_MISSING: Final = object()

Encoder: TypeAlias = Callable[[Any, str], Any]
Section: TypeAlias = Mapping[str, Any]


class ArgumentEncoder:
    """Writes the arguments of one operation as a Cedar record. Built once per contract."""

    def __init__(self, contract: Contract) -> None:
        self._encode = _record(contract.arguments)

    def encode(self, arguments: str) -> dict[str, Any]:
        """The record for `context.args`.

        Args:
            arguments: canonical JSON text of the arguments, the bytes that are hashed and sent.

        Raises:
            FactsRefusedError: the text is not canonical, or a value does not fit its declared shape.
        """
        encoded: dict[str, Any] = self._encode(_parse(arguments), "")
        return encoded


def _parse(arguments: str) -> Any:
    """The value of a canonical text. The quick way covers texts that only have one reading; any doubt takes the strict way."""
    if _SUSPICIOUS.search(arguments) is None:
        try:
            value = msgspec.json.decode(arguments)
            if msgspec.json.encode(value, order="sorted") == arguments.encode():
                return value
        except (ValueError, RecursionError):
            pass  # the strict way says what is wrong with it
    try:
        strict = parse_strict(arguments, max_bytes=MAX_ARGUMENT_BYTES)
        if canonical(strict) != arguments.encode():
            raise FactsRefusedError("", "the arguments are not in canonical form; hash and send canonical bytes")
    except AmbiguousJsonError as error:
        raise FactsRefusedError(error.field[:MAX_NAME_CHARS], str(error)) from error
    return strict


def _encoder(shape: Shape) -> Encoder | None:
    """How a value of this shape is written; None for one that policy never sees."""
    match shape:
        case LongShape():
            return _long
        case DecimalShape():
            return _decimal
        case BoolShape():
            return _bool
        case StringShape():
            return _string
        case SetShape(item):
            return _set(item)
        case RecordShape():
            return _record(shape)
        case OpaqueShape():
            return None
        case _:
            assert_never(shape)


def _long(value: Any, field: str) -> int:
    if type(value) is not int or not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        raise FactsRefusedError(field, "send an integer between -(2^53 - 1) and 2^53 - 1")
    return value


def _decimal(value: Any, field: str) -> dict[str, Any]:
    if type(value) is str:
        text = value
    elif type(value) is int or type(value) is float:
        text = repr(value)
    else:
        raise FactsRefusedError(field, "send a number")
    if _DECIMAL.fullmatch(text) is None:
        raise FactsRefusedError(field, "send a plain decimal number with at most four digits after the point")
    whole, _, fraction = text.partition(".")
    scaled = abs(int(whole)) * 10_000 + int(fraction.ljust(4, "0") or "0")
    if scaled >= _DECIMAL_LIMIT_E4:
        raise FactsRefusedError(field, "send a number between -922337203685477.5807 and 922337203685477.5807")
    return {"__extn": {"fn": "decimal", "arg": text if fraction else text + ".0"}}


def _bool(value: Any, field: str) -> bool:
    if type(value) is not bool:
        raise FactsRefusedError(field, "send true or false")
    return value


def _string(value: Any, field: str) -> str:
    if type(value) is not str or "\x00" in value:
        raise FactsRefusedError(field, "send a string without NUL characters")
    return value


def _set(item: Shape) -> Encoder | None:
    encode_item = _encoder(item)
    if encode_item is None:
        return None

    def encode(value: Any, field: str) -> list[Any]:
        if type(value) is not list:
            raise FactsRefusedError(field, "send an array")
        return [encode_item(member, f"{field}[{index}]") for index, member in enumerate(value)]

    return encode


def _record(shape: RecordShape) -> Encoder:
    fields: list[tuple[str, Encoder | None, bool]] = []
    for name, inner in shape.fields.items():
        if name.startswith("__"):
            raise UnusableReleaseError(f"the argument {name!r} begins with two underscores; rename it in the contract")
        fields.append((name, _encoder(inner), name in shape.required))

    def encode(value: Any, field: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise FactsRefusedError(field, "send an object")
        encoded: dict[str, Any] = {}
        declared = 0
        for name, encode_item, required in fields:
            item = value.get(name, _MISSING)
            if item is _MISSING:
                if required:
                    raise FactsRefusedError(_join(field, name), "is required")
                continue
            declared += 1
            if encode_item is None:
                continue
            if item is None:
                if required:
                    raise FactsRefusedError(_join(field, name), "is required and may not be null")
                continue
            encoded[name] = encode_item(item, _join(field, name))
        if declared != len(value):
            undeclared = min(name for name in value if name not in shape.fields)
            raise FactsRefusedError(_join(field, undeclared[:MAX_NAME_CHARS]), "is not a declared argument; leave it out")
        return encoded

    return encode


def _join(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def check_user_attributes(declared: Mapping[str, str]) -> None:
    """Refuse, with `UnusableReleaseError`, declared attributes that could stand in for who the user is."""
    for name, kind in declared.items():
        if name in FIXED_USER_ATTRIBUTES or name.startswith("__"):
            raise UnusableReleaseError(f"the user attribute {name!r} is reserved; rename it")
        if kind not in USER_ATTRIBUTE_TYPES:
            raise UnusableReleaseError(f"the user attribute {name!r} has the unknown type {kind!r}")


def user_section(facts: Facts, declared: Mapping[str, str]) -> Section:
    """`context.user`. Attributes that the release does not declare are not shown; one of the wrong type is refused."""
    section: dict[str, Any] = {"id": facts.user, "tenant": facts.tenant, "roles": list(facts.roles)}
    for name, value in facts.attributes.items():
        kind = declared.get(name)
        if kind is None:
            continue
        encoded = _attribute(kind, value)
        if encoded is None:
            raise FactsRefusedError(f"user.{name}", f"the token carries a value that is not a {kind}")
        section[name] = encoded
    return section


def standing_sections(facts: Facts, user_attributes: Mapping[str, str]) -> dict[str, Section]:
    """What is the same for every call of a session to an operation while nothing about the session changes.

    INVARIANT: it is a function of what `standing_key` holds.
    """
    return {
        "agent": {"id": facts.agent},
        "user": user_section(facts, user_attributes),
        "session": {
            "id": facts.session_id,
            "tenant": facts.tenant,
            "environment": facts.environment,
            "task": facts.task,
            "purpose": facts.purpose,
            "posture": facts.posture.value,
            "tainted": facts.tainted,
            "confidentiality": facts.confidentiality,
        },
        "data": {"classification": facts.classification.value, "rank": facts.classification.rank},
    }


def standing_key(facts: Facts) -> Hashable:
    """Everything that `standing_sections` reads of the facts."""
    return (
        facts.agent,
        facts.user,
        facts.tenant,
        facts.roles,
        tuple((name, type(value), value) for name, value in facts.attributes.items()),
        facts.session_id,
        facts.environment,
        facts.task,
        facts.purpose,
        facts.posture,
        facts.tainted,
        facts.confidentiality,
        facts.classification,
    )


def moving_sections(facts: Facts, contract: Contract) -> dict[str, Section]:
    """What may differ from call to call, but for the arguments and `now`."""
    return {
        "call": {"entities": facts.entities, "sends": _sends(facts, contract)},
        "origins": origins_section(facts, contract),
        "plan": plan_section(facts),
        "history": history_section(facts),
        "provenance": {
            name: {"origin": traced.origin, "active": list(traced.active), "pointed": traced.pointed}
            for name, traced in (facts.provenance or {}).items()
        },
    }


def sections(facts: Facts, contract: Contract, user_attributes: Mapping[str, str]) -> dict[str, Section]:
    """Everything of the context but the arguments and `now`, by the name policies read it under."""
    return {**standing_sections(facts, user_attributes), **moving_sections(facts, contract)}


def origins_section(facts: Facts, contract: Contract) -> Section:
    """`context.origins`: the worst origin among targets, the worst among what acts in texts, and the kinds of what acts.

    `recipients`: the worst among the targets that the contract says something goes to; among all, where it says none.
    `anchored`: at least one target is the user's own, trusted or planned. `pointed`: some are doubtful, and all of those
    stand in something that the user named.
    """
    if facts.provenance is None:
        unknown = Origin.UNTRUSTED.value
        return {**dict.fromkeys(_WORST, unknown), "active": [], "anchored": False, "pointed": False}
    worst = dict.fromkeys(_WORST, Origin.USER)
    active: set[str] = set()
    anchored = False
    doubtful: list[bool] = []
    for name, traced in facts.provenance.items():
        kind = "content" if name in contract.content else "targets"
        worst[kind] = max(worst[kind], traced.origin, key=lambda item: item.rank)
        if kind == "targets" and name in (contract.egress_to or (name,)):
            worst["recipients"] = max(worst["recipients"], traced.origin, key=lambda item: item.rank)
        anchored = anchored or (kind == "targets" and traced.origin in ANCHORS)
        active.update(traced.active)
        if kind == "targets" and traced.origin.is_doubtful:
            doubtful.append(traced.pointed)
    return {
        **{kind: origin.value for kind, origin in worst.items()},
        "active": sorted(active),
        "anchored": anchored,
        "pointed": bool(doubtful) and all(doubtful),
    }


def _sends(facts: Facts, contract: Contract) -> bool:
    if not contract.egress_to:
        return contract.sends({})
    return contract.sends(_parse(facts.arguments))


def plan_section(facts: Facts) -> Section:
    """`context.plan`: whether there is one, and how this call stands to it."""
    plan = facts.plan or UNPLANNED
    return {"sealed": plan.sealed, "operation": plan.operation, "agrees": plan.agrees, "fixed": plan.fixed}


def history_section(facts: Facts) -> Section:
    """`context.history`: what was recalled. A fact that was not is not there, so that what reads it fails closed."""
    return {name: _remembered(recalled.value) for name, recalled in facts.history.items()}


def _remembered(value: FactValue) -> Any:
    return _decimal(value, "history") if isinstance(value, str) else value


def is_a_time(now_us: int) -> bool:
    """Whether `now_section` can write it."""
    return _FIRST_US <= now_us <= _LAST_US


def now_section(now_us: int) -> Section:
    """`context.now`, a Cedar datetime of millisecond precision, rounded down.

    Raises:
        FactsRefusedError: the time lies outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + timedelta(milliseconds=now_us // 1000)
    except OverflowError as error:
        raise FactsRefusedError("now", "the time lies outside the years 1 to 9999") from error
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return {"__extn": {"fn": "datetime", "arg": text}}


def resource_attributes(contract: Contract, resource: ResourceFacts | None) -> dict[str, Any]:
    """The attributes of the resource entity. One of the wrong type is left out: unknown, so policies fail closed."""
    if contract.resource is None or resource is None or resource.attributes is None:
        return {}
    encoded: dict[str, Any] = {}
    for name, kind in contract.resource.attributes.items():
        value = resource.attributes.get(name)
        shown = None if value is None else _attribute(kind, value)
        if shown is not None:
            encoded[name] = shown
    return encoded


def _attribute(kind: str, value: Any) -> Any:
    """A claim or resource attribute as Cedar JSON; None when it does not have the declared type."""
    if kind == "set":
        if isinstance(value, list | tuple) and all(type(member) is str and "\x00" not in member for member in value):
            return list(value)
        return None
    encode = _ATTRIBUTE_ENCODERS.get(kind)
    if encode is None:
        return None
    try:
        return encode(value, "")
    except FactsRefusedError:
        return None


def _moment(value: Any, field: str) -> dict[str, Any]:
    """A date (its midnight, UTC) or a time with its offset, as ISO 8601 writes them; a time of nowhere is none."""
    try:
        moment = datetime.fromisoformat(value)
        if "T" not in value and " " not in value:
            moment = moment.replace(tzinfo=UTC)
        if moment.tzinfo is None:
            raise FactsRefusedError(field, "send a time with its offset from UTC")
        text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    except (TypeError, ValueError, OverflowError) as error:
        raise FactsRefusedError(field, "send a date, or a time with its offset from UTC") from error
    return {"__extn": {"fn": "datetime", "arg": f"{text}Z"}}


_ATTRIBUTE_ENCODERS: Final[dict[str, Encoder]] = {
    "string": _string,
    "long": _long,
    "bool": _bool,
    "decimal": _decimal,
    "datetime": _moment,
}


def json_text(value: Any) -> str:
    """The JSON text of an encoded value.

    Raises:
        FactsRefusedError: a string in it is not Unicode text.
    """
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError as error:
        raise FactsRefusedError("", "a text holds a lone surrogate") from error
