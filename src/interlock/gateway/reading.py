"""From raw bytes to arguments that were read once, checked, and will be sent as they were hashed."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from interlock.core.canonical import AmbiguousJsonError, JsonValue, canonical, parse_strict
from interlock.core.contract import Contract, EntitiesOf
from interlock.core.who import Lineage
from interlock.gateway.governed import ArgumentError, Governed
from interlock.gateway.keys import Sameness, call_hash, sameness
from interlock.gateway.limits import MAX_ARGUMENT_BYTES, MAX_IDEMPOTENCY_KEY_CHARS
from interlock.gateway.messages import Proposal

_RUN: Final = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)


class ReadProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal whose arguments fit the contract. `raw` are the canonical bytes: hashed, decided on, and sent."""

    contract: Contract
    arguments: dict[str, JsonValue]
    raw: bytes
    call_hash: str
    same: Sameness
    entities: int


class UnreadableProposalError(Exception):
    """The proposal cannot become a call. `code` is a refusal code; `field` names the argument where it is known."""

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def read_proposal(governed: Governed, contract: Contract, lineage: Lineage, proposal: Proposal) -> ReadProposal:
    """Read, validate and canonicalise; raises `UnreadableProposalError`."""
    for key in (proposal.idempotency_key, proposal.repeat_of):
        if len(key) > MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
            raise UnreadableProposalError("idempotency_key_invalid", "a key that is too long or not printable")
    if not _RUN.fullmatch(proposal.run):
        raise UnreadableProposalError("invalid_arguments", "a run is named with letters, digits, `.`, `_` and `-`, 64 at most")
    try:
        arguments = parse_strict(proposal.arguments or b"{}", max_bytes=MAX_ARGUMENT_BYTES)
    except AmbiguousJsonError as error:
        raise UnreadableProposalError("invalid_arguments", str(error), error.field) from error
    if not isinstance(arguments, dict):
        raise UnreadableProposalError("invalid_arguments", "the arguments are not an object")
    try:
        governed.check_arguments(contract, arguments)
    except ArgumentError as error:
        raise UnreadableProposalError("invalid_arguments", str(error), error.field) from error
    entities = contract.entities_in(arguments)
    if entities is None:
        named = contract.entities.argument if isinstance(contract.entities, EntitiesOf) else ""
        raise UnreadableProposalError("invalid_arguments", "the arguments do not say how much this call would affect", named)
    raw = canonical(arguments)
    same = sameness(contract, lineage, arguments, raw, caller_key=proposal.idempotency_key, repeat_of=proposal.repeat_of)
    return ReadProposal(
        contract=contract,
        arguments=arguments,
        raw=raw,
        call_hash=call_hash(contract.operation, raw),
        same=same,
        entities=entities,
    )
