"""What the gateway learns by itself about the object a call names: an id says nothing (DESIGN section 4, Resource facts)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from interlock.core.budget import Budget
from interlock.core.canonical import JsonValue, canonical
from interlock.core.contract import Contract, ResourceRule
from interlock.core.decision import ResourceFacts
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.who import AttributeValue, Session
from interlock.gateway.limits import MAX_CACHED_RESOURCES, RESOURCE_CACHE_S
from interlock.gateway.refusals import StoppedError
from interlock.gateway.released import RawOutput
from interlock.ledger.drafts import draft
from interlock.ledger.events import ResourceRead


class InternalCall(Protocol):
    """A call of the gateway's own: claimed, executed and settled like any other, but decided by the contract alone."""

    async def __call__(
        self,
        session: Session,
        contract: Contract,
        arguments: bytes,
        call_id: str,
        more_events: Any,
        budgets: tuple[Budget, ...] = (),
    ) -> RawOutput | None:
        """The raw output, or None when there was none for whatever reason. Raises `HaltedError` when execution is stopped."""
        ...


class _Remembered(msgspec.Struct, frozen=True):
    attributes: Mapping[str, AttributeValue]
    until_s: float


class Resources:
    """Reads attributes of objects; for calls that only read, an answer a few seconds old will do."""

    def __init__(self, *, call: InternalCall, clock: Clock, ids: Ids) -> None:
        self._call = call
        self._clock = clock
        self._ids = ids
        self._remembered: OrderedDict[tuple[str, str, str, str], _Remembered] = OrderedDict()

    async def of(
        self,
        session: Session,
        contract: Contract,
        contracts: Mapping[str, Contract],
        arguments: Mapping[str, JsonValue],
        call_id: str,
        release_digest: str,
        budgets: tuple[Budget, ...],
    ) -> ResourceFacts | None:
        """The object the call is about; None when the contract names none, attributes None when they could not be learnt."""
        rule = contract.resource
        if rule is None:
            return None
        identifier = arguments.get(rule.id_argument)
        if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
            return ResourceFacts(type=rule.type, id="", attributes=None)
        name = str(identifier)
        # The reading contract decides what the attributes mean, so a remembered answer belongs to one release.
        key = (release_digest, session.lineage.id, rule.read, name)
        remembered = self._remembered.get(key)
        if contract.is_read_only and remembered is not None and remembered.until_s > self._clock.monotonic_s():
            return ResourceFacts(type=rule.type, id=name, attributes=remembered.attributes)
        attributes = await self._read(session, rule, contracts.get(rule.read), identifier, call_id, budgets)
        if attributes is not None:
            now_s = self._clock.monotonic_s()
            self._remembered[key] = _Remembered(attributes, now_s + RESOURCE_CACHE_S)
            self._remembered.move_to_end(key)
            # All hold for the same time, so those that are over stand first.
            while next(iter(self._remembered.values())).until_s <= now_s:
                self._remembered.popitem(last=False)
            while len(self._remembered) > MAX_CACHED_RESOURCES:
                self._remembered.popitem(last=False)
        return ResourceFacts(type=rule.type, id=name, attributes=attributes)

    async def _read(
        self,
        session: Session,
        rule: ResourceRule,
        reader: Contract | None,
        identifier: str | int,
        call_id: str,
        budgets: tuple[Budget, ...],
    ) -> Mapping[str, AttributeValue] | None:
        if reader is None or not reader.is_read_only:
            return None
        argument = next(iter(reader.arguments.fields), rule.id_argument)

        def recorded(raw: RawOutput | None) -> list[EventDraft]:
            body = ResourceRead(
                operation=rule.read, type=rule.type, id=str(identifier), attributes=_attributes(rule, raw), for_call=call_id
            )
            return [draft(body, ids=self._ids, call_id=call_id)]

        raw = await self._call(session, reader, canonical({argument: identifier}), call_id, recorded, budgets)
        if raw is None:
            raise StoppedError("tool_unavailable")
        return _attributes(rule, raw)


def _attributes(rule: ResourceRule, raw: RawOutput | None) -> Mapping[str, AttributeValue] | None:
    if raw is None or raw.is_error or raw.structured is None:
        return None
    found: dict[str, AttributeValue] = {}
    for name in rule.attributes:
        value = raw.structured.get(name)
        if isinstance(value, (str, bool, int)):
            found[name] = value
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            found[name] = tuple(value)
    return found
