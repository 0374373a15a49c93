"""Grants: the common case without Cedar. One grant compiles to a permit in each layer and to forbids that oblige or ask.

A grant is a unit. Whom it is for stands in every layer that is asked per call, its argument limits in capability and data:
whoever passes capability by one grant passes delegation by the same one, and passes data only by a grant that would allow
this very call by itself. So two grants can never be combined into more than either of them gives.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import msgspec

from interlock.core.contract import BoolShape, Contract, DecimalShape, LongShape, SetShape, Shape, StringShape
from interlock.core.terms import Classification, Layer
from interlock.release.cedar import pattern_literal, text_literal
from interlock.release.model import Limit

OneOrMore: TypeAlias = str | list[str]
_RATE: Final = re.compile(r"^([1-9]\d{0,5})/([1-9]\d{0,5})s$")
_DATE: Final = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_DECIMAL: Final = re.compile(r"^-?\d{1,14}(\.\d{1,4})?$")
_COMPARISONS: Final = {
    "max": ("<=", "lessThanOrEqual"),
    "under": ("<", "lessThan"),
    "min": (">=", "greaterThanOrEqual"),
    "over": (">", "greaterThan"),
}


class ForSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom a grant is for."""

    roles: list[str]
    task: OneOrMore = []
    tenant: str = "same"
    where: dict[str, Any] = {}


class DataSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which data a grant opens, and what is taken out of it."""

    max: Classification = Classification.INTERNAL
    redact: list[str] = []
    columns: dict[str, list[str]] = {}
    rows: dict[str, str] = {}


class AskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a person must approve, by which rule."""

    rule: str
    when: dict[str, Any] = {}


class GrantSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `grants:`."""

    on: OneOrMore
    to: ForSpec = msgspec.field(name="for")
    where: dict[str, Any] = {}
    data: DataSpec = DataSpec()
    ask: AskSpec | None = None
    rate: str = ""
    until: str = ""
    environments: list[str] = []


class GrantError(ValueError):
    """A grant that cannot be compiled; the message says which part."""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """One policy text made from a grant."""

    layer: Layer
    text: str
    limits: tuple[Limit, ...] = ()


class Grantee(msgspec.Struct, frozen=True, kw_only=True):
    """Who a grant is given to, and the number it has in the file."""

    agent: str
    number: int
    environments: tuple[str, ...]


def compile_grant(grant: GrantSpec, grantee: Grantee, contract: Contract) -> list[Compiled]:
    """The policies of one grant for one operation. Raises `GrantError`."""
    if grant.to.tenant not in {"same", "any"}:
        raise GrantError("for.tenant is `same` or `any`")
    if not grant.to.roles:
        raise GrantError("for.roles names at least one role")
    environments = tuple(grant.environments) or grantee.environments
    if unknown := set(environments) - set(grantee.environments):
        raise GrantError(f"the agent has no identity in {', '.join(sorted(unknown))}")
    return _Compiler(grant, grantee, contract, environments).policies()


class _Compiler:
    def __init__(self, grant: GrantSpec, grantee: Grantee, contract: Contract, environments: tuple[str, ...]) -> None:
        self._grant = grant
        self._grantee = grantee
        self._contract = contract
        self._environments = environments
        self._agent = f"Agent::{text_literal(grantee.agent)}"
        self._action = f"Action::{text_literal(contract.operation)}"

    def policies(self) -> list[Compiled]:
        grant, contract = self._grant, self._contract
        if contract.classification.rank > grant.data.max.rank:
            raise GrantError(
                f"{contract.operation} returns {contract.classification.value} data, "
                f"and the grant opens {grant.data.max.value} at most; say `data: {{max: {contract.classification.value}}}`"
            )
        where = [argument_condition(contract, name, rule) for name, rule in grant.where.items()]
        call = [*self._who(), *where]
        as_agent = f"principal == {self._agent}"
        data = [*call, f"context.data.rank <= {grant.data.max.rank}"]
        made = [
            self._made(Layer.IDENTITY, "permit", as_agent, [self._in_environment()]),
            self._made(Layer.DELEGATION, "permit", "principal", [self._is_in_role(), *self._who()]),
            msgspec.structs.replace(self._made(Layer.CAPABILITY, "permit", as_agent, call), limits=limits_of(grant)),
            self._made(Layer.DATA, "permit", "principal", data),
        ]
        made += [self._duty(Layer.DATA, "principal", call, f"redact:{tag}") for tag in grant.data.redact]
        for path, names in grant.data.columns.items():
            made.append(self._duty(Layer.DATA, "principal", call, f"columns:{path}:{','.join(names)}"))
        for place, value in grant.data.rows.items():
            path, _, field = place.rpartition(".")
            made.append(self._duty(Layer.DATA, "principal", call, f"rows:{path}:{field}={value}"))
        if grant.rate:
            if not _RATE.match(grant.rate):
                raise GrantError('rate is written "10/60s": ten calls in sixty seconds')
            made.append(self._duty(Layer.GUARD, as_agent, call, f"rate:{grant.rate}"))
        if grant.ask is not None:
            # An argument that is not there cannot be compared, and what cannot be compared is asked about.
            asked = [argument_condition(contract, name, rule, absent=True) for name, rule in grant.ask.when.items()]
            annotations = {"approval": grant.ask.rule}
            made.append(self._made(Layer.GUARD, "forbid", as_agent, [*call, *asked], "ask", annotations))
        return made

    def _duty(self, layer: Layer, principal: str, conditions: list[str], obligation: str) -> Compiled:
        return self._made(layer, "forbid", principal, conditions, obligation, {"obligation": obligation})

    def _made(
        self,
        layer: Layer,
        effect: str,
        principal: str,
        conditions: list[str],
        suffix: str = "",
        annotations: dict[str, str] | None = None,
    ) -> Compiled:
        grantee = self._grantee
        name = f"grant:{grantee.agent}:{grantee.number}:{self._contract.operation}:{layer.value}"
        notes = {"id": f"{name}:{suffix}" if suffix else name, "owner": "product", **(annotations or {})}
        head = "\n".join(f"@{key}({text_literal(value)})" for key, value in notes.items())
        body = " &&\n  ".join(conditions)
        return Compiled(
            layer=layer,
            text=f"{head}\n{effect} ({principal}, action == {self._action}, resource)\nwhen {{\n  {body}\n}};",
        )

    def _in_environment(self) -> str:
        return f"{_set(self._environments)}.contains(context.session.environment)"

    def _is_in_role(self) -> str:
        roles = " || ".join(f"principal in Role::{text_literal(role)}" for role in self._grant.to.roles)
        return f"({roles})"

    def _who(self) -> list[str]:
        to, contract = self._grant.to, self._contract
        conditions = [
            f"context.agent.id == {text_literal(self._grantee.agent)}",
            self._in_environment(),
            f"{_set(to.roles)}.containsAny(context.user.roles)",
            "context.user.tenant == context.session.tenant",
        ]
        if to.tenant == "same" and contract.resource is not None and "tenant" in contract.resource.attributes:
            conditions.append("resource has tenant && resource.tenant == context.session.tenant")
        tasks = [to.task] if isinstance(to.task, str) else list(to.task)
        if tasks:
            conditions.append(f"{_set(tasks)}.contains(context.session.task)")
        conditions += [resource_condition(contract, name, rule) for name, rule in to.where.items()]
        if self._grant.until:
            if not _DATE.match(self._grant.until):
                raise GrantError("until is a date such as 2027-01-31; the grant ends as that day begins, UTC")
            conditions.append(f"context.now < datetime({text_literal(self._grant.until)})")
        return conditions


def limits_of(grant: GrantSpec) -> tuple[Limit, ...]:
    """What the grant demands of arguments, in its own order."""
    found = []
    for name, rule in grant.where.items():
        for verb, value in ({"in": rule} if isinstance(rule, list) else rule).items():
            found.append(Limit(argument=name, verb=verb, value=msgspec.json.encode(value).decode()))
    return tuple(found)


def resource_condition(contract: Contract, name: str, rule: Any) -> str:
    """A condition on an attribute of the object: `resource.team: {in: user.teams}`. Unknown attributes fail it."""
    attribute = name.removeprefix("resource.")
    if contract.resource is None or name == attribute or attribute not in contract.resource.attributes:
        raise GrantError(f"for.where names `resource.<attribute>` of {contract.operation}'s resource, not {name!r}")
    kind = contract.resource.attributes[attribute]
    if not isinstance(rule, dict) or len(rule) != 1:
        raise GrantError(f"for.where.{name} is one of {{is: ...}}, {{in: ...}}, {{contains: ...}}")
    verb, value = next(iter(rule.items()))
    left = f"resource.{attribute}"
    guard, right = _operand(value, kind)
    known = f"resource has {attribute}"
    if verb == "is":
        return f"{known} && {guard}{left} == {right}"
    if verb == "in" and (isinstance(value, list) or guard):
        return f"{known} && {guard}{right}.contains({left})"
    if verb == "contains" and kind == "set":
        return f"{known} && {guard}{left}.contains({right})"
    raise GrantError(f"for.where.{name}: {verb!r} is not understood here")


def _operand(value: Any, kind: str) -> tuple[str, str]:
    if isinstance(value, str) and re.fullmatch(r"user\.\w+", value):
        name = value.removeprefix("user.")
        return (
            ("", f"context.user.{name}") if name in {"id", "tenant"} else (f"context.user has {name} && ", f"context.{value}")
        )
    if value == "session.tenant":
        return "", "context.session.tenant"
    if isinstance(value, list):
        return "", f"[{', '.join(_literal(item, kind) for item in value)}]"
    return "", _literal(value, kind)


def _literal(value: Any, kind: str) -> str:
    if kind == "bool" and isinstance(value, bool):
        return "true" if value else "false"
    if kind == "long" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if kind == "decimal":
        return _decimal(value)
    if kind in {"string", "set"} and isinstance(value, str):
        return text_literal(value)
    raise GrantError(f"{value!r} is no {kind}")


def argument_condition(contract: Contract, name: str, rule: Any, *, absent: bool = False) -> str:
    """A condition on an argument. An argument that is not there fails it, or meets it when `absent` is set."""
    shape = contract.arguments.fields.get(name)
    if shape is None:
        raise GrantError(f"{contract.operation} has no argument {name!r}; it has {', '.join(contract.arguments.fields)}")
    left = f"context.args.{name}" if re.fullmatch(r"[A-Za-z_]\w*", name) else f"context.args[{text_literal(name)}]"
    rules = {"in": rule} if isinstance(rule, list) else rule
    if not isinstance(rules, dict) or not rules:
        raise GrantError(f"the limit on {name!r} is a list of values or {{max, min, over, under, in, is, like}}")
    tests = " && ".join(_test(shape, left, name, verb, value) for verb, value in rules.items())
    if name in contract.arguments.required:
        return f"({tests})"
    has = f"context.args has {name if re.fullmatch(r'[A-Za-z_][A-Za-z0-9_]*', name) else text_literal(name)}"
    return f"(!({has}) || ({tests}))" if absent else f"({has} && {tests})"


def _test(shape: Shape, left: str, name: str, verb: str, value: Any) -> str:
    if verb in _COMPARISONS and isinstance(shape, LongShape) and isinstance(value, int) and not isinstance(value, bool):
        return f"{left} {_COMPARISONS[verb][0]} {value}"
    if verb in _COMPARISONS and isinstance(shape, DecimalShape):
        return f"{left}.{_COMPARISONS[verb][1]}({_decimal(value)})"
    if verb == "in" and isinstance(value, list) and value:
        if isinstance(shape, SetShape):
            return f"[{', '.join(_of_shape(shape.item, item, name) for item in value)}].containsAll({left})"
        return f"[{', '.join(_of_shape(shape, item, name) for item in value)}].contains({left})"
    if verb == "is":
        return f"{left} == {_of_shape(shape, value, name)}"
    if verb == "like" and isinstance(shape, StringShape) and isinstance(value, str):
        return f"{left} like {pattern_literal(value)}"
    raise GrantError(f"the limit {verb!r} does not fit the argument {name!r}")


def _of_shape(shape: Shape, value: Any, name: str) -> str:
    kinds = ((LongShape, "long"), (DecimalShape, "decimal"), (BoolShape, "bool"), (StringShape, "string"))
    for known, kind in kinds:
        if isinstance(shape, known):
            return _literal(value, kind)
    raise GrantError(f"the argument {name!r} is not visible to policy, so it cannot be limited")


def _decimal(value: Any) -> str:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not _DECIMAL.match(text):
        raise GrantError(f'{value!r} is no decimal with at most four fraction digits; write it in quotes: "200.00"')
    return f"decimal({text_literal(text if '.' in text else text + '.0')})"


def _set(values: list[str] | tuple[str, ...]) -> str:
    return f"[{', '.join(text_literal(value) for value in values)}]"
