"""From raw bytes to arguments that were read once, checked, and will be sent as they were hashed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.core.canonical import AmbiguousJsonError, JsonValue, canonical, parse_strict
from interlock.core.contract import Contract, EntitiesOf
from interlock.core.mirrored import mismatch
from interlock.core.who import Session
from interlock.gateway.asking import ASKABLE, answers_hash, read_answers
from interlock.gateway.governed import ArgumentError, Governed
from interlock.gateway.keys import Sameness, call_hash, sameness
from interlock.gateway.limits import MAX_ARGUMENT_BYTES, MAX_IDEMPOTENCY_KEY_CHARS
from interlock.gateway.messages import Proposal
from interlock.gateway.sealing import Sealed, Seals

_RUN: Final = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)


class ReadProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal whose arguments fit the contract. `raw` are the canonical bytes: hashed, decided on, and sent.

    `answers` are those to what the tool asked before, and `state` what it said then for itself; the call's hash covers both.
    `continues` is the claim that they belong to, where the call has one already.
    """

    contract: Contract
    arguments: dict[str, JsonValue]
    raw: bytes
    call_hash: str
    same: Sameness
    entities: int
    answers: Mapping[str, JsonValue] | None = None
    state: str | None = None
    continues: Sealed | None = None

    def more(self) -> dict[str, Any]:
        """What is sent beside the arguments."""
        found: dict[str, Any] = {} if self.answers is None else {"inputResponses": self.answers}
        return found if self.state is None else {**found, "requestState": self.state}


class UnreadableProposalError(Exception):
    """The proposal cannot become a call. `code` is a refusal code; `field` names the argument where it is known."""

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def read_proposal(
    governed: Governed, contract: Contract, session: Session, proposal: Proposal, seals: Seals | None
) -> ReadProposal:
    """Read, validate and canonicalise; raises `UnreadableProposalError`."""
    lineage = session.lineage
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
    differs = "" if proposal.mirrored is None else mismatch(governed.mirrored(contract), arguments, proposal.mirrored)
    if differs:
        raise UnreadableProposalError(
            "header_mismatch", f"the header of {differs} does not say what the argument says", differs
        )
    entities = contract.entities_in(arguments)
    if entities is None:
        named = contract.entities.argument if isinstance(contract.entities, EntitiesOf) else ""
        raise UnreadableProposalError("invalid_arguments", "the arguments do not say how much this call would affect", named)
    raw = canonical(arguments)
    hashed = call_hash(contract.operation, raw)
    same = sameness(
        contract,
        lineage,
        arguments,
        raw,
        caller_key=proposal.idempotency_key,
        repeat_of=proposal.repeat_of,
        hashed=hashed,
    )
    answers, sealed = _answers(contract, session, proposal, raw, seals)
    state = None if sealed is None else sealed.state
    if answers is not None or state is not None:
        hashed = answers_hash(hashed, answers or {}, state or "")
    return ReadProposal(
        contract=contract,
        arguments=arguments,
        raw=raw,
        call_hash=hashed,
        same=same,
        entities=entities,
        answers=answers,
        state=state,
        continues=sealed if sealed is not None and sealed.claim_id else None,
    )


def _answers(
    contract: Contract, session: Session, proposal: Proposal, raw: bytes, seals: Seals | None
) -> tuple[dict[str, JsonValue] | None, Sealed | None]:
    """What the caller answers to what the tool asked, and the tool's own state."""
    if not proposal.answers and not proposal.state:
        return None, None
    if not contract.passes & ASKABLE:
        raise UnreadableProposalError("invalid_arguments", "this tool may not ask for anything", "inputResponses")
    try:
        answers = read_answers(proposal.answers) if proposal.answers else None
    except AmbiguousJsonError as error:
        raise UnreadableProposalError("invalid_arguments", str(error), error.field) from error
    if not proposal.state:
        return answers, None
    sealed = None if seals is None else seals.open(session, contract.operation, raw, proposal.state)
    if sealed is None:
        raise UnreadableProposalError("state_unknown", "the state is not of this call", "requestState")
    if sealed.held:
        # INVARIANT: the tool was called already; were these taken for a new call, it would be called twice.
        raise UnreadableProposalError("answers_elsewhere", "the call that asked does not wait in this process", "requestState")
    return answers, sealed
