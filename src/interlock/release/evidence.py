"""`verify` of a contract: which reading tells whether a call was done, and by what.

A sign has to be honest about other calls: a key is nobody else's, while a number that grew may have grown by another.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from interlock.core.contract import KEY, DecimalShape, Evidence, LongShape, RecordShape, Sign

_PATH: Final = re.compile(r"^\w+(\[\])?(\.\w+(\[\])?)*$")


class VerifySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`verify` as written. `with` gives arguments of the reading; those of the same name need not be said."""

    read: str
    with_: dict[str, str] = msgspec.field(name="with", default_factory=dict)
    done_when: dict[str, dict[str, str]]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence, or what is wrong with it."""

    evidence: Evidence | None
    complaints: tuple[str, ...]


def read_evidence(spec: VerifySpec, arguments: RecordShape, own: str) -> Found:
    """Check a `verify` against the arguments of its operation; `own` is its `idempotency_argument`, if any."""
    wrong: list[str] = []
    for name, source in spec.with_.items():
        if source != KEY and source not in arguments.required:
            wrong.append(f"verify.with.{name} names {source!r}: say an argument that is always there, or {KEY}")
    if not spec.done_when:
        wrong.append("verify.done_when says nothing; to have people look it up, write `verify: OPERATION`")
    signs = []
    for path, condition in spec.done_when.items():
        ((word, argument),) = condition.items() if len(condition) == 1 else (("", ""),)
        if not _PATH.match(path):
            wrong.append(f"verify.done_when: {path!r} is no output path, such as `refunds[].reference`")
        if word == "is" and argument not in {KEY, own or KEY}:
            wrong.append(
                f"verify.done_when.{path}: `is` takes {KEY} or the idempotency_argument; "
                f"another call could have left the same {argument!r}"
            )
        elif word == "at_least" and not isinstance(arguments.fields.get(argument), (LongShape, DecimalShape)):
            wrong.append(f"verify.done_when.{path}: at_least names {argument!r}, which is no argument that is a number")
        elif word not in {"is", "at_least"}:
            wrong.append(f"verify.done_when.{path}: say `is: {KEY}` or `at_least: ARGUMENT`")
        signs.append(Sign(path=path, argument=argument, at_least=word == "at_least"))
    evidence = Evidence(read=spec.read, arguments=spec.with_, signs=tuple(signs))
    return Found(evidence=None if wrong else evidence, complaints=tuple(wrong))
