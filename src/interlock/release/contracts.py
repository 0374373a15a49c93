"""`tools/<tool>.yaml`: where a tool runs, and the contract of each of its operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs
import msgspec

from interlock.core.contract import (
    DEFAULT_ONCE_WINDOW_S,
    Contract,
    EntitiesOf,
    Evidence,
    LongShape,
    OpaqueShape,
    Passes,
    RecordShape,
    Repeat,
    ResourceRule,
)
from interlock.core.stability import Breaker, Bulkhead, Degrade, Retry, out_of_range
from interlock.core.terms import Classification, Effect
from interlock.release.documents import Node, Problems
from interlock.release.evidence import VerifySpec, read_evidence
from interlock.release.kinds import AtServer, KindError, at_its_server
from interlock.release.model import Tool, ToolSource
from interlock.release.shapes import ShortFormError, arguments_shape, expand

_SOURCE_KEYS: Final = ("url", "command", "python", "credential")
_TOOL_KEYS: Final = {*_SOURCE_KEYS, "stateless", "protocol", "operations", "bulkhead", "breaker"}
_NAME: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_ATTRIBUTE_KINDS: Final = ("string", "long", "bool", "decimal", "datetime", "set")
_ENTITY: Final = re.compile(r"^[A-Z][A-Za-z0-9]*$")
_LENGTH: Final = re.compile(r"len\((\w+)\)")
_RESERVED_ENTITIES: Final = {"Agent", "User", "Role", "Tool", "Action"}


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a tool runs in one environment."""

    url: str = ""
    command: list[str] = []
    python: str = ""
    credential: str = ""


class ResourceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The object an operation is about."""

    type: str
    id: str
    read: str
    attributes: dict[str, str]


class ReviewSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who reviewed the contract."""

    by: str
    digest: str = ""
    on: str = ""
    acknowledged: list[str] = []


class OperationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operation as written."""

    effects: set[Effect]
    reviewed: ReviewSpec | None = None
    draft: bool = False
    pin: str = ""
    findings: list[str] = []
    upstream: str = ""
    uri: str = ""
    prompt: str = ""
    completes: str = ""
    mime_type: str = ""
    passes: set[Passes] = set()
    asks_before_acting: bool = False
    title: str = ""
    description: str = ""
    input: Any = None
    input_schema: dict[str, Any] | str | None = None
    output: Any = None
    output_schema: dict[str, Any] | str | None = None
    targets: list[str] = []
    content: list[str] = []
    egress_to: list[str] = []
    entities: int | str = 1
    once_per: list[str] = []
    window_s: int = DEFAULT_ONCE_WINDOW_S
    repeat: Repeat = Repeat.ONCE
    idempotency_argument: str = ""
    honours_key: bool = False
    verify: str | VerifySpec = ""
    undo: str = ""
    dry_run: bool = False
    resource: ResourceSpec | None = None
    classification: Classification = Classification.INTERNAL
    fields: dict[str, list[str]] = {}
    trusted: list[str] = []
    changes: dict[str, list[str]] | None = None
    internal: bool = False
    timeout_ms: int = 30_000
    settles_within_s: int = 60
    bulkhead: Bulkhead | None = None
    breaker: Breaker | None = None
    retry: Retry = Retry()
    degrade: Degrade = Degrade()


class _Offered(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation is reached, and the JSON schemas of what goes in and, where it says, what comes out."""

    place: AtServer
    schema: dict[str, Any]
    output: dict[str, Any] | None


def read_tool(
    name: str, node: Node, environments: tuple[str, ...], variables: Mapping[str, str] | None, problems: Problems
) -> tuple[Tool, list[Contract]] | None:
    """A tool and its reviewed contracts. Drafts are left out: they cannot be called."""
    if not isinstance(node.value, dict):
        problems.add(node, "a tool file is a mapping with url, command or python, and operations")
        return None
    if not _NAME.match(name):
        problems.add(node, f"{name!r} cannot be a tool's name; use letters, digits, `_` and `-`, 64 at most")
        return None
    for key, inside in node.items():
        if key not in _TOOL_KEYS and key not in environments:
            problems.add(inside, f"unknown key {key!r}: neither a setting nor an environment of any agent")
    sources = _sources(node, environments, variables, problems)
    contracts = []
    if not isinstance(node.at("operations").value, dict) or not node.at("operations").value:
        problems.add(node, "a tool has at least one operation")
    steadiness = _steadiness(node, problems)
    for operation, inside in node.at("operations").items():
        contract = _contract(name, operation, inside, problems, steadiness, dict(node.at("operations").value))
        if contract is not None:
            contracts.append(contract)
    stateless = node.value.get("stateless", True)
    protocol = node.value.get("protocol", "")
    if not isinstance(stateless, bool) or not isinstance(protocol, str):
        problems.add(node, "stateless is true or false, and protocol a revision such as 2026-07-28")
        return None
    return Tool(name=name, sources=sources, stateless=stateless, protocol=protocol), contracts


def _sources(
    node: Node, environments: tuple[str, ...], variables: Mapping[str, str] | None, problems: Problems
) -> dict[str, ToolSource]:
    common = {key: node.value[key] for key in _SOURCE_KEYS if key in node.value}
    found: dict[str, ToolSource] = {}
    for environment in environments:
        own = node.at(environment)
        if own.value is None and not common:
            continue
        chosen = own if own.value is not None else Node(common, node.file, node.lines, node.path)
        spec = problems.convert(chosen, SourceSpec)
        if spec is None:
            continue
        if sum(map(bool, (spec.url, spec.command, spec.python))) != 1:
            problems.add(chosen, "say exactly one of url, command, python")
            continue
        if spec.credential and not re.match(r"^(env|file):.+", spec.credential):
            # INVARIANT: a release names secrets and never holds one.
            problems.add(chosen, "credential names a secret, `env:NAME` or `file:PATH`; it never is one")
            continue
        texts = [_filled(text, variables, chosen, problems) for text in (spec.url, spec.python, *spec.command)]
        found[environment] = ToolSource(
            url=texts[0],
            python=texts[1],
            command=tuple(texts[2:]),
            credential=_filled(spec.credential, variables, chosen, problems),
        )
    if not found and not problems.found:
        problems.add(node, "the tool has no source: say url, command or python, for all environments or for each")
    return found


def _filled(text: str, variables: Mapping[str, str] | None, node: Node, problems: Problems) -> str:
    if variables is None:
        return text
    for name in _VARIABLE.findall(text):
        if name not in variables:
            problems.add(node, f"${{{name}}} is not set; give it with --variables")
    return _VARIABLE.sub(lambda match: variables.get(match.group(1), ""), text)


def _steadiness(node: Node, problems: Problems) -> tuple[Bulkhead, Breaker]:
    """What the tool says for each of its operations that does not say its own."""
    bulkhead = problems.convert(node.at("bulkhead"), Bulkhead) if node.at("bulkhead").value is not None else Bulkhead()
    breaker = problems.convert(node.at("breaker"), Breaker) if node.at("breaker").value is not None else Breaker()
    for key, spec in (("bulkhead", bulkhead), ("breaker", breaker)):
        if spec is not None and (wrong := out_of_range(key, spec)):
            problems.add(node.at(key), wrong)
    return bulkhead or Bulkhead(), breaker or Breaker()


def _check_steadiness(tool: str, name: str, spec: OperationSpec, node: Node, problems: Problems) -> None:
    for key in ("bulkhead", "breaker", "retry", "degrade"):
        written = getattr(spec, key)
        if written is not None and (wrong := out_of_range(key, written)):
            problems.add(node.at(key), f"{tool}.{name}: {wrong}")
    only_reads = spec.effects == {Effect.READ}
    if spec.retry.attempts > 1 and not only_reads and not spec.idempotency_argument:
        problems.add(
            node.at("retry"),
            f"{tool}.{name}: only a read, or a write with the tool's own idempotency_argument, is sent again; leave retry out",
        )
    if spec.degrade.cache_s and not only_reads:
        problems.add(
            node.at("degrade"), f"{tool}.{name}: only a read may answer with what it answered before; leave degrade out"
        )


def _contract(
    tool: str,
    name: str,
    node: Node,
    problems: Problems,
    steadiness: tuple[Bulkhead, Breaker],
    siblings: Mapping[str, Any],
) -> Contract | None:
    if not _NAME.match(name):
        problems.add(node, f"{name!r} cannot be an operation's name; use letters, digits, `_` and `-`, 64 at most")
        return None
    spec = problems.convert(node, OperationSpec)
    if spec is None or spec.draft:
        return None
    if not spec.effects:
        problems.add(node, f"{tool}.{name}: say what it may do: effects [read, write, destructive, egress]")
    if spec.reviewed is None:
        problems.add(node, f"{tool}.{name} was not reviewed: say `reviewed: {{by: NAME}}`, or `draft: true` to leave it out")
    offered = _offered(tool, name, spec, node, problems, siblings)
    if offered is None:
        return None
    arguments = arguments_shape(offered.schema)
    _check_arguments(tool, name, spec, arguments, node, problems)
    _check_steadiness(tool, name, spec, node, problems)
    entities = _entities(spec.entities, arguments, offered.schema)
    if entities is None:
        problems.add(
            node.at("entities"),
            f"{tool}.{name}: entities is a number, `len(ARGUMENT)` of a list, or the name of an integer argument; "
            f"{spec.entities!r} is none of them",
        )
        return None
    evidence = _evidence(spec, f"{tool}.{name}", arguments, node, problems)
    resource = _resource(spec.resource, node.at("resource"), problems)
    if resource is not None and resource.id_argument not in arguments.fields:
        problems.add(node.at("resource"), f"resource.id names {resource.id_argument!r}, which is no argument")
    return _put_together(tool, name, spec, offered, arguments, entities, evidence, resource, steadiness)


def _offered(
    tool: str, name: str, spec: OperationSpec, node: Node, problems: Problems, siblings: Mapping[str, Any]
) -> _Offered | None:
    try:
        place = at_its_server(name, spec.upstream, spec.uri, spec.prompt, spec.completes, siblings)
        schema = written_schema(spec.input_schema) or _optional(spec.input) or place.schema or expand({})
        output = written_schema(spec.output_schema) or _optional(spec.output)
        jsonschema_rs.validator_for(schema)
        if output is not None:
            jsonschema_rs.validator_for(output)
        place.check(schema)
    except (KindError, ShortFormError, jsonschema_rs.ValidationError, msgspec.MsgspecError, ValueError) as error:
        problems.add(node, f"{tool}.{name}: {str(error).splitlines()[0]}")
        return None
    return _Offered(place=place, schema=schema, output=output)


def _check_arguments(tool: str, name: str, spec: OperationSpec, arguments: RecordShape, node: Node, problems: Problems) -> None:
    """What the contract says of arguments is said of such as there are, in shapes that policy can see."""
    for kind in ("targets", "content", "once_per"):
        for argument in getattr(spec, kind):
            if argument not in arguments.fields:
                problems.add(node.at(kind), f"{tool}.{name}: {kind} names {argument!r}, which is no argument")
    for kind in ("targets", "once_per"):
        for argument in getattr(spec, kind):
            if isinstance(arguments.fields.get(argument), OpaqueShape):
                problems.add(node.at(kind), f"{tool}.{name}: policy cannot see the argument {argument!r}; give it a plain type")
    if spec.egress_to and (Effect.EGRESS not in spec.effects or not set(spec.egress_to) <= set(spec.targets)):
        problems.add(node.at("egress_to"), f"{tool}.{name}: egress_to names targets of an operation whose effects hold egress")


def _put_together(
    tool: str,
    name: str,
    spec: OperationSpec,
    offered: _Offered,
    arguments: RecordShape,
    entities: int | EntitiesOf,
    evidence: Evidence | None,
    resource: ResourceRule | None,
    steadiness: tuple[Bulkhead, Breaker],
) -> Contract:
    place, output = offered.place, offered.output
    return Contract(
        operation=f"{tool}.{name}",
        tool=tool,
        upstream_name=place.upstream_name,
        kind=place.kind,
        completes=place.completes,
        mime_type=spec.mime_type,
        passes=frozenset(spec.passes),
        asks_before_acting=spec.asks_before_acting,
        title=spec.title,
        description=spec.description,
        effects=frozenset(spec.effects),
        input_schema=msgspec.json.encode(offered.schema).decode(),
        output_schema=None if output is None else msgspec.json.encode(output).decode(),
        arguments=arguments,
        targets=tuple(spec.targets),
        content=tuple(spec.content),
        egress_to=tuple(spec.egress_to),
        entities=entities,
        once_per=tuple(spec.once_per),
        once_window_s=spec.window_s,
        repeat=spec.repeat,
        idempotency_argument=spec.idempotency_argument or None,
        verify=(spec.verify if isinstance(spec.verify, str) else spec.verify.read) or None,
        evidence=evidence,
        honours_key=spec.honours_key,
        undo=spec.undo or None,
        dry_run=spec.dry_run,
        resource=resource,
        classification=spec.classification,
        fields={path: frozenset(tags) for path, tags in spec.fields.items()},
        trusted=tuple(spec.trusted),
        changes=None
        if spec.changes is None
        else {_full_name(tool, named): tuple(paths) for named, paths in spec.changes.items()},
        internal=spec.internal,
        timeout_ms=spec.timeout_ms,
        settles_within_s=spec.settles_within_s,
        bulkhead=spec.bulkhead or steadiness[0],
        breaker=spec.breaker or steadiness[1],
        retry=spec.retry,
        degrade=spec.degrade,
        reviewed_by="" if spec.reviewed is None else spec.reviewed.by,
        reviewed_digest="" if spec.reviewed is None else spec.reviewed.digest,
    )


def _full_name(tool: str, named: str) -> str:
    """An operation of the same tool may go without the tool's name."""
    return named if "." in named else f"{tool}.{named}"


def _entities(written: int | str, arguments: RecordShape, schema: Mapping[str, Any]) -> int | EntitiesOf | None:
    if isinstance(written, int):
        return written if written >= 0 else None
    listed = _LENGTH.fullmatch(written)
    if listed is None:
        return EntitiesOf(argument=written) if isinstance(arguments.fields.get(written), LongShape) else None
    # A list may hold what policy cannot see and still be counted.
    inside = schema.get("properties", {}).get(listed.group(1))
    is_list = isinstance(inside, dict) and inside.get("type") == "array"
    return EntitiesOf(argument=listed.group(1), length=True) if is_list else None


def written_schema(written: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """A JSON Schema, written as YAML or as JSON text (which keeps numbers with fractions as they are)."""
    return msgspec.json.decode(written, type=dict[str, Any]) if isinstance(written, str) else written


def _evidence(spec: OperationSpec, operation: str, arguments: RecordShape, node: Node, problems: Problems) -> Evidence | None:
    own = spec.idempotency_argument
    if own and own not in arguments.required:
        problems.add(node, f"{operation}: idempotency_argument names {own!r}, which must be an argument that is always there")
    if isinstance(spec.verify, str):
        return None
    found = read_evidence(spec.verify, arguments, own)
    for complaint in found.complaints:
        problems.add(node.at("verify"), f"{operation}: {complaint}")
    return found.evidence


def _optional(output: Any) -> dict[str, Any] | None:
    return None if output is None else expand(output)


def _resource(spec: ResourceSpec | None, node: Node, problems: Problems) -> ResourceRule | None:
    if spec is None:
        return None
    if not _ENTITY.match(spec.type) or spec.type in _RESERVED_ENTITIES:
        problems.add(
            node, f"resource.type {spec.type!r} must be a capitalised word and none of {', '.join(_RESERVED_ENTITIES)}"
        )
        return None
    for name, kind in spec.attributes.items():
        if kind not in _ATTRIBUTE_KINDS:
            problems.add(node, f"resource.attributes.{name} is one of {', '.join(_ATTRIBUTE_KINDS)}, not {kind!r}")
            return None
    return ResourceRule(type=spec.type, id_argument=spec.id, read=spec.read, attributes=spec.attributes)
