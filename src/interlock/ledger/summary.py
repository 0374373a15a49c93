"""A call in one line: what was asked, how it stands, and which of the seven questions stopped it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

import msgspec

from interlock.store.live import StepRow


class Standing(StrEnum):
    """How a call stands."""

    RUNNING = "running"
    DONE = "done"
    REPLAYED = "replayed"
    WAITING = "waiting"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    DENIED = "denied"
    INVALID = "invalid"
    STOPPED = "stopped"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    UNKNOWN = "unknown"


UNFINISHED: Final = frozenset({Standing.RUNNING, Standing.WAITING, Standing.APPROVED, Standing.IN_DOUBT})
"""From here a call may still move."""
_REFUSED: Final = {
    "denied": Standing.DENIED,
    "needs_approval": Standing.WAITING,
    "invalid": Standing.INVALID,
    "unavailable": Standing.UNAVAILABLE,
    "in_doubt": Standing.IN_DOUBT,
    "halted": Standing.STOPPED,
}
_SETTLED: Final = {"succeeded": Standing.DONE, "failed": Standing.FAILED, "in_doubt": Standing.IN_DOUBT}
_ANSWERED: Final = {"approved": Standing.APPROVED, "denied": Standing.DENIED, "withdrawn": Standing.WITHDRAWN}


class CallSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `question` is 1 to 7, 0 when none stopped it; `arguments` is JSON text, cut; times are microseconds.

    `why` is what policy or people said, else empty. `approval_id` is the request the call waits for, or waited.
    """

    call_id: str
    session_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    asked_us: int
    moved_us: int
    last_seq: int
    operation: str
    arguments: str
    standing: Standing
    question: int = 0
    code: str = ""
    why: str = ""
    took_us: int = 0
    approval_id: str = ""
    uses: tuple[str, ...] = ()
    release_digest: str = ""


def summaries(steps: Iterable[StepRow]) -> tuple[CallSummary, ...]:
    """The calls of these steps, which come call by call and in order.

    What the gateway only read for itself so far is no call of anybody's yet, and is left out.
    """
    found = (_summary(list(group)) for _, group in groupby(steps, key=lambda step: (step.call_id, step.session_id)))
    return tuple(call for call in found if call is not None)


def _summary(steps: list[StepRow]) -> CallSummary | None:
    asked = max((place for place, step in enumerate(steps) if step.kind == "call.proposed"), default=None)
    if asked is None:
        return None
    told = steps[asked:]
    if not {step.kind for step in told} & {"call.decided", "call.refused", "call.replayed"}:
        return None
    first, last = steps[asked], steps[-1]
    proposed = _json(first)
    known: dict[str, Any] = {"standing": Standing.RUNNING}
    # People are asked before the caller is told so, and that is when what was proposed is recorded.
    for step in (*told, *(step for step in steps[:asked] if step.kind == "approval.requested")):
        known |= _learnt(step, known)
    return CallSummary(
        call_id=first.call_id,
        session_id=first.session_id,
        tenant=first.tenant,
        environment=first.environment,
        agent=first.agent,
        user=first.user_id,
        task=first.task,
        asked_us=steps[0].at_us,
        moved_us=last.at_us,
        last_seq=last.seq,
        operation=_text(proposed.get("operation")) or "(forgotten)",
        arguments=_text(proposed.get("arguments")).removeprefix("null"),
        **known,
    )


def _learnt(step: StepRow, known: dict[str, Any]) -> dict[str, Any]:  # one branch an event kind
    said = _json(step)
    match step.kind:
        case "call.decided":
            return _decided(said)
        case "call.claimed":
            return {"standing": Standing.RUNNING, "uses": tuple(said.get("approvals", ()))}
        case "call.refused":
            standing = _REFUSED.get(_text(said.get("outcome")), Standing.UNKNOWN)
            found: dict[str, Any] = {"standing": standing, "code": _text(said.get("code"))}
            question = said.get("question")
            if isinstance(question, int) and question:
                found["question"] = question
            return found
        case "call.settled":
            standing = _SETTLED.get(_text(said.get("state")), Standing.UNKNOWN)
            took, detail = said.get("took_us", 0), _text(said.get("detail"))
            return {
                "standing": standing,
                "took_us": took,
                "code": _text(said.get("code")),
                "why": detail or known.get("why", ""),
            }
        case "call.replayed":
            return {"standing": Standing.REPLAYED}
        case "claim.continued":
            return {"standing": Standing.FAILED, "why": f"it went on with the answers as {_text(said.get('by_call'))}"}
        case "claim.orphaned":
            return {"standing": Standing.IN_DOUBT, "why": _text(said.get("reason"))}
        case "approval.requested":
            asked_of = f"put to people with the role {_text(said.get('role'))}, by the rule {_text(said.get('rule'))}"
            return {"approval_id": _text(said.get("approval_id")), "why": known.get("why") or asked_of}
        case "approval.answered":
            if known["standing"] not in {Standing.WAITING, Standing.APPROVED}:
                return {}
            standing = _ANSWERED.get(_text(said.get("to")), known["standing"])
            note = _text(said.get("note"))
            by = f"{standing.value} by {_text(said.get('by'))}"
            return {"standing": standing, "why": f"{by}: {note}" if note else by}
        case "approval.ended":
            if known["standing"] not in {Standing.WAITING, Standing.APPROVED}:
                return {}
            # What was asked about anew has a request, and a row, of its own.
            return {"standing": Standing.EXPIRED if said.get("to") == "expired" else Standing.WITHDRAWN}
        case _:
            return {}


def _decided(decision: dict[str, Any]) -> dict[str, Any]:
    digest = _text(decision.get("release_digest"))
    if decision.get("type") == "allow":
        return {"release_digest": digest}
    question = decision.get("question", 6 if decision.get("type") == "require_approval" else 0)
    reasons = [reason for reason in decision.get("reasons", ()) if isinstance(reason, dict)]
    said = dict.fromkeys(_text(reason.get("say")) or _text(reason.get("detail")) for reason in reasons)
    return {
        "release_digest": digest,
        "question": question if isinstance(question, int) else 0,
        "why": "; ".join(text for text in said if text),
    }


def _json(step: StepRow) -> dict[str, Any]:
    try:
        return msgspec.json.decode(step.said or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
