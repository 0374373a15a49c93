"""What a tool asks of its caller: sampling, elicitation, roots. Passed on only where the contract says so, labelled, recorded.

INVARIANT: nothing that a client answers here is ever an approval: it goes to the tool, and to nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec

from interlock.core.canonical import AmbiguousJsonError, JsonValue, canonical, digest, parse_strict
from interlock.core.claim import LineageState, Recorded, RecordRequest
from interlock.core.contract import Contract, Passes
from interlock.core.ports import Ids
from interlock.core.who import Session
from interlock.gateway.contexts import Contexts
from interlock.gateway.limits import MAX_ANSWER_BYTES, MAX_ANSWERS, MAX_ASK_BYTES, MAX_RELEASED_IN_LEDGER_BYTES
from interlock.gateway.messages import Asked, Caller
from interlock.gateway.ports import ClaimDesk, Watch
from interlock.gateway.released import Released
from interlock.ledger.asks import CallAnswered, CallAsked
from interlock.ledger.drafts import draft
from interlock.risk.canaries import Canaries
from interlock.tools.port import AskRefusedError, Line

KINDS: Final[Mapping[str, Passes]] = {
    "sampling/createMessage": Passes.SAMPLING,
    "elicitation/create": Passes.ELICITATION,
    "roots/list": Passes.ROOTS,
}
ASKABLE: Final = frozenset(KINDS.values())


def offered(contract: Contract, offers: frozenset[str]) -> frozenset[str]:
    """What the tool may ask of this caller: what the caller offers and the contract lets pass."""
    return frozenset(item.value for item in contract.passes & ASKABLE) & offers


def why_not(contract: Contract, method: str, params: Mapping[str, Any], offers: frozenset[str]) -> str:
    """Why something that a tool asks is not put to its caller; empty when it is."""
    kind = KINDS.get(method)
    if kind is None or kind not in contract.passes:
        return f"the contract of {contract.operation} does not let it ask for {kind.value if kind else 'that'}"
    if kind.value not in offers:
        return f"the client offers no {kind.value}"
    if kind is Passes.ELICITATION and params.get("mode", "form") != "form":
        # A link that a tool chose, shown by the user's own client, is the shape of a fishing mail.
        return "only forms are put to people, no links"
    if len(msgspec.json.encode(params)) > MAX_ASK_BYTES:
        return f"what is asked is longer than {MAX_ASK_BYTES} bytes"
    return ""


def labelled(contract: Contract, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the caller gets them: they say that a tool is asking, to programs and to people."""
    labels = {"source": contract.operation, "integrity": "untrusted"}
    meta = params.get("_meta")
    found = {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), "interlock/labels": labels}}
    if method == "elicitation/create":
        found["message"] = f"[asked by the tool {contract.operation}] {params.get('message', '')}"
    return found


def texts_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything in a request that somebody may read, as one text: what enters a context."""
    return (msgspec.json.encode({name: value for name, value in params.items() if name != "_meta"}).decode(),)


def read_answers(raw: bytes) -> dict[str, JsonValue]:
    """What a caller answers to what a tool asked, by key. Raises `AmbiguousJsonError`."""
    found = parse_strict(raw, max_bytes=MAX_ANSWER_BYTES)
    if not isinstance(found, dict) or len(found) > MAX_ANSWERS:
        raise AmbiguousJsonError(f"inputResponses is an object of {MAX_ANSWERS} answers at most", "inputResponses")
    return found


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf a tool would be asking: one call and who made it."""

    call_id: str
    session: Session
    state: LineageState
    contract: Contract
    caller: Caller
    canaries: Canaries

    @classmethod
    def of(
        cls,
        call_id: str,
        session: Session,
        state: LineageState,
        contract: Contract,
        caller: Caller,
        canaries: Canaries,
    ) -> Asker:
        """One of these; `state` is how the lineage stood when the call was claimed."""
        return cls(call_id=call_id, session=session, state=state, contract=contract, caller=caller, canaries=canaries)


class Asking:
    """Puts what a tool asks while it runs (2025-11-25) to its caller."""

    def __init__(self, *, desk: ClaimDesk, contexts: Contexts, watch: Watch, ids: Ids) -> None:
        self._desk = desk
        self._contexts = contexts
        self._watch = watch
        self._ids = ids

    def line(self, asker: Asker) -> Line:
        """What may come and go between the tool and the caller while this call is under way."""
        caller, contract = asker.caller, asker.contract
        return Line(
            offers=offered(contract, caller.offers),
            ask=None if caller.ask is None else partial(self.put, asker),
            progress=caller.progress,
            log_level=caller.log_level if Passes.LOG in contract.passes else None,
        )

    async def put(self, asker: Asker, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The caller's answer. Raises `AskRefusedError`; `StoreUnavailableError` when it could not be recorded."""
        contract, caller = asker.contract, asker.caller
        operation = contract.operation
        why = why_not(contract, method, params, caller.offers)
        if why or caller.ask is None:
            await self._record(asker, CallAsked(operation=operation, method=method[:100], refused=why or "nobody to ask"))
            raise AskRefusedError(why or "nobody can be asked")
        text = msgspec.json.encode(params)
        kept = msgspec.Raw(text) if len(text) <= MAX_RELEASED_IN_LEDGER_BYTES else None
        # INVARIANT: what a tool asks is on record, and known to have entered the context, and labelled, before anybody sees it.
        await self._record(asker, CallAsked(operation=operation, method=method, asked=kept, digest=digest(text)))
        blocks = tuple({"type": "text", "text": item} for item in texts_of(params))
        await self._contexts.asked(asker.session, asker.state, contract, asker.call_id, Released(content=blocks))
        answer = await caller.ask(method, labelled(contract, method, params))
        if answer is None:
            await self._record(asker, CallAnswered(operation=operation, method=method, refused="the client did not answer"))
            raise AskRefusedError("the client did not answer")
        return await self._answered(asker, method, answer)

    async def _answered(self, asker: Asker, method: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        operation, text = asker.contract.operation, msgspec.json.encode(answer)
        if len(text) > MAX_ANSWER_BYTES:
            await self._record(asker, CallAnswered(operation=operation, method=method, refused="the answer is too long"))
            raise AskRefusedError("the answer is too long")
        planted = asker.canaries.seen({"answer": msgspec.json.decode(text)})
        if planted:
            said = CallAnswered(operation=operation, method=method, refused="the answer carries a planted secret")
            await self._record(asker, said)
            await self._watch.sent_off(asker.session, asker.call_id, operation, planted)
            raise AskRefusedError("the answer may not be sent")
        kept = msgspec.Raw(text) if len(text) <= MAX_RELEASED_IN_LEDGER_BYTES else None
        await self._record(asker, CallAnswered(operation=operation, method=method, answer=kept, digest=digest(text)))
        return answer

    async def _record(self, asker: Asker, body: CallAsked | CallAnswered) -> None:
        request = RecordRequest(
            call_id=asker.call_id,
            session_id=asker.session.session_id,
            lineage_id=asker.session.lineage.id,
            epochs=None,
            facts_version=None,
            events=(draft(body, ids=self._ids, call_id=asker.call_id),),
        )
        if not isinstance(await self._desk.record(request), Recorded):
            raise AskRefusedError("the session has ended")


def released_asks(contract: Contract, asks: Asked, offers: frozenset[str]) -> Asked | str:
    """What a tool asks before it goes on (2026-07-28), as its caller gets it; or why it is not passed on."""
    for request in asks.requests.values():
        method, params = request.get("method"), request.get("params", {})
        if not isinstance(method, str) or not isinstance(params, dict):
            return "the tool asked for something that cannot be read"
        if why := why_not(contract, method, params, offers):
            return why
    passed = {
        key: {"method": request["method"], "params": labelled(contract, request["method"], request.get("params", {}))}
        for key, request in asks.requests.items()
    }
    return Asked(requests=passed, state=asks.state)


def answers_hash(base: str, answers: Mapping[str, JsonValue], state: str) -> str:
    """The hash of a call that answers what its tool asked: bound to the answers too."""
    return digest(b"answers:" + base.encode() + canonical(dict(answers)) + b"\x00" + state.encode())
