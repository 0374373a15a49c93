"""What an operation is, as reviewed by a person: the contract the gate holds every call against."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from interlock.core.stability import Breaker, Bulkhead, Degrade, Retry
from interlock.core.terms import Classification, Effect

DEFAULT_ONCE_WINDOW_S = 600
_NOBODY: tuple[object, ...] = (None, "", [])
_READS = frozenset({Effect.READ})


class LongShape(msgspec.Struct, frozen=True, tag="long"):
    """JSON integer, Cedar Long."""


class DecimalShape(msgspec.Struct, frozen=True, tag="decimal"):
    """JSON number, or string with `format: decimal`; Cedar decimal with at most four fraction digits."""


class BoolShape(msgspec.Struct, frozen=True, tag="bool"):
    """JSON boolean, Cedar Bool."""


class StringShape(msgspec.Struct, frozen=True, tag="string"):
    """JSON string, Cedar String."""


class SetShape(msgspec.Struct, frozen=True, tag="set"):
    """JSON array whose items have one shape, Cedar Set."""

    item: Shape


class RecordShape(msgspec.Struct, frozen=True, tag="record"):
    """JSON object with declared properties, Cedar Record. Those not in `required` are optional attributes."""

    fields: Mapping[str, Shape]
    required: frozenset[str] = frozenset()


class OpaqueShape(msgspec.Struct, frozen=True, tag="opaque"):
    """A value whose schema has no Cedar counterpart: hashed and sent, never shown to policy."""


Shape: TypeAlias = LongShape | DecimalShape | BoolShape | StringShape | SetShape | RecordShape | OpaqueShape


class Repeat(StrEnum):
    """What a second identical write without a key of its own means."""

    ONCE = "once"
    ALLOW = "allow"


class Kind(StrEnum):
    """What an operation is at its server: which MCP method reaches it."""

    TOOL = "tool"
    RESOURCE = "resource"
    PROMPT = "prompt"
    COMPLETION = "completion"


class Passes(StrEnum):
    """What no filter can look into, or what asks something back: it passes only where a contract says so."""

    IMAGE = "image"
    AUDIO = "audio"
    BLOB = "blob"
    LOG = "log"
    SAMPLING = "sampling"
    ELICITATION = "elicitation"
    ROOTS = "roots"


class ResourceRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which argument names the object acted on, and which operation tells its attributes.

    `read` is an operation that is called with `{id_argument: id}` by the gateway itself; `attributes` maps each
    attribute policy may read to its shape (`string`, `long`, `bool`, `decimal`, `set`).
    """

    type: str
    id_argument: str
    read: str
    attributes: Mapping[str, str]


class EntitiesOf(msgspec.Struct, frozen=True, kw_only=True):
    """How many entities a call affects, by one of its arguments: its value, or with `length` the number of its items."""

    argument: str
    length: bool = False


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a reading that tells of a call: the value at an output path (`refunds[].reference`, any item of it).

    `argument` is an argument of the call, or `KEY` for the idempotency key that the tool was sent. Without `at_least` it is
    the value itself, which no other call has; with it, a number that only grows, by at least the argument.
    """

    path: str
    argument: str
    at_least: bool = False


KEY = "$key"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """How a reading tells whether a call was done: `read` is called with `arguments` (its argument: ours, or `KEY`)."""

    read: str
    arguments: Mapping[str, str]
    signs: tuple[Sign, ...]


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """One reviewed operation. `operation` is `tool.operation`; times carry their unit in the name.

    `egress_to` names the targets that say who something goes to; where all of them are left out or empty, a call sends nothing.

    `upstream_name` is a tool's or prompt's name at its server, a resource's URI or URI template, and for a completion the name
    or template of what it completes, which is a `completes`.

    `asks_before_acting`: a person has seen that the tool has done nothing yet when it answers `input_required`. Of a write that
    is not believed on the tool's word.
    """

    operation: str
    tool: str
    upstream_name: str
    title: str = ""
    description: str = ""
    effects: frozenset[Effect]
    input_schema: str
    output_schema: str | None = None
    arguments: RecordShape
    targets: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    egress_to: tuple[str, ...] = ()
    entities: int | EntitiesOf = 1
    once_per: tuple[str, ...] = ()
    once_window_s: int = DEFAULT_ONCE_WINDOW_S
    repeat: Repeat = Repeat.ONCE
    idempotency_argument: str | None = None
    verify: str | None = None
    undo: str | None = None
    dry_run: bool = False
    resource: ResourceRule | None = None
    classification: Classification = Classification.INTERNAL
    fields: Mapping[str, frozenset[str]] = {}
    trusted: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] | None = None
    evidence: Evidence | None = None
    honours_key: bool = False
    internal: bool = False
    timeout_ms: int = 30_000
    settles_within_s: int = 60
    bulkhead: Bulkhead = Bulkhead()
    breaker: Breaker = Breaker()
    retry: Retry = Retry()
    degrade: Degrade = Degrade()
    reviewed_by: str = ""
    reviewed_digest: str = ""
    kind: Kind = Kind.TOOL
    completes: Kind | None = None
    mime_type: str = ""
    passes: frozenset[Passes] = frozenset()
    asks_before_acting: bool = False

    @property
    def is_undone_when_it_asks(self) -> bool:
        """Whether nothing has happened when the tool asks something before it goes on: it reads, or was reviewed for that."""
        return self.asks_before_acting or self.is_read_only

    @property
    def is_read_only(self) -> bool:
        """Whether the operation changes nothing and sends nothing out."""
        return self.effects == _READS

    @property
    def may_be_sent_again(self) -> bool:
        """Whether the tool takes a second sending for the first: by the key in `_meta`, or by an argument of its own."""
        return self.honours_key or self.idempotency_argument is not None

    def sends(self, arguments: Mapping[str, object]) -> bool:
        """Whether a call with these arguments may send something out. Whatever is there and not empty counts as somebody."""
        if Effect.EGRESS not in self.effects:
            return False
        return not self.egress_to or any(arguments.get(name) not in _NOBODY for name in self.egress_to)

    def entities_in(self, arguments: Mapping[str, object]) -> int | None:
        """How many entities a call with these arguments affects; None when they do not say: the call is then refused."""
        if isinstance(self.entities, int):
            return self.entities
        value = arguments.get(self.entities.argument)
        if self.entities.length:
            return len(value) if isinstance(value, list) else None
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if value >= 0 else None
