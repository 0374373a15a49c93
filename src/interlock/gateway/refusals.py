"""The texts of refusals: one place, one golden file per code. Identity, delegation and risk reveal only the code."""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

import msgspec

from interlock.core.approval import Approval, Requested
from interlock.core.budget import SHARED, Budget, Counted, Per
from interlock.core.claim import OverBudget
from interlock.core.contract import Contract
from interlock.core.decision import Deny, RequireApproval
from interlock.core.terms import QUARANTINE, Question
from interlock.gateway.messages import Effected, Refusal, RefusalOutcome
from interlock.gateway.stability import UNSTABLE, Shut

NOTHING_CHANGED: Final = "Nothing was changed."
BEFORE_IT_ASKED: Final = "The answers were not given to the tool; what it did before it asked is not known."


class StoppedError(Exception):
    """The call this read was for must end: `code` is a refusal code, `after_ms` when to come back where that is known.

    `over` is the budget that had no room for the read.
    """

    def __init__(self, code: str, say: str = "", after_ms: int = 0, over: tuple[Budget, OverBudget] | None = None) -> None:
        super().__init__(code)
        self.over = over
        self.code = code
        self.say = say
        self.after_ms = after_ms


class _Wording(NamedTuple):
    outcome: RefusalOutcome
    text: str
    effect: Effected
    retry: str


_INVALID, _DENIED, _UNAVAILABLE = RefusalOutcome.INVALID, RefusalOutcome.DENIED, RefusalOutcome.UNAVAILABLE
_NONE, _DONE, _UNKNOWN = Effected.NONE, Effected.DONE, Effected.UNKNOWN

WORDINGS: Final[dict[str, _Wording]] = {
    "unknown_operation": _Wording(
        _INVALID, "There is no such tool in this session. List the tools again and choose one of them.", _NONE, "never"
    ),
    "invalid_arguments": _Wording(_INVALID, "The arguments do not fit this tool.", _NONE, "changed_args"),
    "idempotency_key_invalid": _Wording(
        _INVALID, "The idempotency key must be 1 to 255 printable characters.", _NONE, "changed_args"
    ),
    "idempotency_key_reused": _Wording(
        _INVALID,
        "This idempotency key belongs to an earlier call with other arguments. Use a new key for a new call.",
        _NONE,
        "changed_args",
    ),
    "agent_not_permitted": _Wording(_DENIED, "This agent may not use this tool.", _NONE, "never"),
    "user_not_permitted": _Wording(
        _DENIED, "The user may not do this, or has not let this agent do it for them.", _NONE, "never"
    ),
    "arguments_not_permitted": _Wording(_DENIED, "This tool may be used, but not with these arguments.", _NONE, "changed_args"),
    "data_not_permitted": _Wording(_DENIED, "This data may not be used for this purpose here.", _NONE, "never"),
    "forbidden": _Wording(_DENIED, "This is forbidden here.", _NONE, "never"),
    "evaluation_error": _Wording(
        _DENIED, "The policy could not be evaluated for this call, so it was refused.", _NONE, "changed_args"
    ),
    "resource_unknown": _Wording(
        _DENIED, "What this call is about could not be looked up, so it was refused.", _NONE, "changed_args"
    ),
    "unknown_obligation": _Wording(_DENIED, "A condition of this permission cannot be met here.", _NONE, "never"),
    "read_only": _Wording(_DENIED, "Only reading is allowed here.", _NONE, "never"),
    "needs_approval": _Wording(
        RefusalOutcome.NEEDS_APPROVAL,
        "This call waits for a person's approval. Once it is given, repeat it with the same arguments.",
        _NONE,
        "same_args_after_approval",
    ),
    "approval_denied": _Wording(_DENIED, "A person has looked at this call and said no. Do not send it again.", _NONE, "never"),
    "plan_refused": _Wording(_DENIED, "The plan that came with this call was not sealed.", _NONE, "never"),
    "approvals_waiting": _Wording(
        _DENIED, "Too many calls of this user's agent wait for people already. Wait until some are answered.", _NONE, "after_ms"
    ),
    "rate_limited": _Wording(_DENIED, "This tool has been used too often in a short time.", _NONE, "after_ms"),
    "over_budget": _Wording(_DENIED, "A budget has no room for this call.", _NONE, "after_ms"),
    "over_budget_asked": _Wording(
        RefusalOutcome.NEEDS_APPROVAL,
        "A budget has no room for this call, and a person has been asked to let it through. "
        "Once that is given, repeat it with the same arguments.",
        _NONE,
        "same_args_after_approval",
    ),
    "halted": _Wording(
        RefusalOutcome.HALTED, "A person has stopped execution here. Do not try again by yourself.", _NONE, "never"
    ),
    "restored": _Wording(
        RefusalOutcome.HALTED,
        "The record of what was done was restored to an earlier point, so only reading is allowed until a person has made it "
        "good. This call was not made now; whether it was made before is being found out. Repeat it later, with the same "
        "arguments and the same key.",
        _UNKNOWN,
        "after_ms",
    ),
    "quarantined": _Wording(
        RefusalOutcome.HALTED,
        "This tool has changed since a person reviewed it. It waits for them to look at it again; use another one.",
        _NONE,
        "never",
    ),
    "session_ended": _Wording(_DENIED, "This session has ended. A new session token is needed.", _NONE, "never"),
    "contended": _Wording(_UNAVAILABLE, "Too many calls of this session change what this one depends on.", _NONE, "after_ms"),
    "control_plane_unavailable": _Wording(
        _UNAVAILABLE, "The control plane cannot decide or record right now, so the call was not made.", _NONE, "after_ms"
    ),
    "overloaded": _Wording(_UNAVAILABLE, "Too many calls are under way.", _NONE, "after_ms"),
    "tool_unavailable": _Wording(_UNAVAILABLE, "The tool could not be reached.", _NONE, "after_ms"),
    "tool_busy": _Wording(
        _UNAVAILABLE, "This tool has as many calls under way as it may have, so this one was not sent.", _NONE, "after_ms"
    ),
    "tool_late": _Wording(_UNAVAILABLE, "The tool could not begin with this call in time, so it let it be.", _NONE, "after_ms"),
    "tool_failed": _Wording(_UNAVAILABLE, "The tool gave no usable answer.", _NONE, "after_ms"),
    "in_doubt": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The call was sent and its outcome is not known: it may or may not have taken effect. Do not send it in another form; "
        "the same call with the same arguments is safe to repeat and will not run twice.",
        _UNKNOWN,
        "after_ms",
    ),
    "not_recorded": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The tool answered, but the outcome could not be recorded, so it is not released. It will be looked into; "
        "do not send the call in another form.",
        _UNKNOWN,
        "after_ms",
    ),
    "still_running": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The same call is still under way. Repeat it with the same arguments to learn its outcome; it will not run twice.",
        _UNKNOWN,
        "after_ms",
    ),
    "done_unseen": _Wording(
        _DENIED,
        "The call was done: that was found out later, and what the tool answered is not known. Do not send it again.",
        _DONE,
        "never",
    ),
    "ask_refused": _Wording(
        _UNAVAILABLE, "The tool asked for something before going on that is not passed on here.", _NONE, "never"
    ),
    "asked_in_doubt": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The tool asked for something before going on that is not passed on here, and its contract does not say that it asks "
        "before it acts: it may or may not have taken effect. Do not send it in another form; the same call with the same "
        "arguments is safe to repeat and will not run twice.",
        _UNKNOWN,
        "after_ms",
    ),
    "answers_late": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The call that these answers belong to has ended without them. Repeat it without requestState and without the answers; "
        "it is not done twice.",
        _UNKNOWN,
        "after_ms",
    ),
    "answers_elsewhere": _Wording(
        RefusalOutcome.IN_DOUBT,
        "The call that asked waits in another process, or no longer, so its tool did not get these answers. It may still take "
        "effect. Repeat it without requestState and without the answers to learn what became of it; it is not done twice.",
        _UNKNOWN,
        "after_ms",
    ),
    "header_mismatch": _Wording(
        _INVALID, "A header that repeats an argument does not say what the argument says.", _NONE, "changed_args"
    ),
    "state_unknown": _Wording(
        _INVALID,
        "The requestState is not one that was given to this session for this very call. Make the call again without it.",
        _NONE,
        "changed_args",
    ),
    "result_withheld": _Wording(
        _DENIED, "The call was done, but its result may not be released in this session.", _DONE, "never"
    ),
    "result_not_kept": _Wording(
        _DENIED,
        "The call was done. What the tool answered cannot be kept here (it is too long, or not JSON), so it is not given. "
        "Do not send the call again.",
        _DONE,
        "never",
    ),
    "result_too_large": _Wording(
        _UNAVAILABLE, "The tool's answer is too long to be taken in here. Ask for less at a time.", _NONE, "changed_args"
    ),
    "result_unreadable": _Wording(
        _UNAVAILABLE,
        "What the tool answered is not JSON, so it cannot be taken in here. Whoever runs the tool has to mend that.",
        _NONE,
        "never",
    ),
}

_RETRY_AFTER_MS: Final = {
    "in_doubt": 5_000,
    "asked_in_doubt": 5_000,
    "not_recorded": 5_000,
    "still_running": 1_000,
    "approvals_waiting": 60_000,
    "restored": 60_000,
}
_DEFAULT_RETRY_AFTER_MS: Final = 1_000
# Why exactly is for operators; a caller learns nothing from the difference that it could act on.
_SAME_TO_CALLERS: Final = {
    "operation_internal": "unknown_operation",
    "operation_not_reviewed": "unknown_operation",
    "task_unknown": "user_not_permitted",
    "canary": "forbidden",
}
_SILENT: Final = {Question.MAY_THE_AGENT, Question.FOR_THIS_USER}


def refusal(call_id: str, code: str, *, say: str = "", field: str = "", retry_after_ms: int = 0, **details: object) -> Refusal:
    """The refusal for a code. `say` replaces the standard sentence; raises KeyError for a code without a wording."""
    wording = WORDINGS[code]
    text = say or wording.text
    if field:
        text = f"{text} Look at `{field}`." if not say else text
    if wording.effect is Effected.NONE:
        text = f"{text} {NOTHING_CHANGED}"
    return Refusal(
        call_id=call_id,
        outcome=wording.outcome,
        code=code,
        text=f"{text} (reference {call_id})",
        field=field,
        effect=wording.effect,
        retry=wording.retry,
        retry_after_ms=(retry_after_ms or _RETRY_AFTER_MS.get(code, _DEFAULT_RETRY_AFTER_MS))
        if wording.retry == "after_ms"
        else 0,
        details=details,
    )


def before_it_asked(told: Refusal) -> Refusal:
    """The refusal of answers that a call waits for which may have acted before."""
    if told.effect is not Effected.NONE:
        return told
    text = told.text.replace(NOTHING_CHANGED, BEFORE_IT_ASKED)
    return msgspec.structs.replace(told, effect=Effected.UNKNOWN, text=text)


def of_deny(call_id: str, decision: Deny) -> Refusal:
    """What the caller is told of a Deny: the first reason, in the policy's own words where it may be heard."""
    reason = decision.reasons[0]
    code = _SAME_TO_CALLERS.get(reason.code, reason.code)
    code = code if code in WORDINGS else "forbidden"
    silent = decision.question in _SILENT
    return refusal(
        call_id,
        code,
        say="" if silent else reason.say,
        field="" if silent else reason.field,
        question=int(decision.question),
    )


def of_halt(call_id: str, scope: str) -> Refusal:
    """What the caller is told when a control stops the call."""
    if scope.startswith(f"{QUARANTINE}:"):
        return refusal(call_id, "quarantined")
    return refusal(call_id, "halted", scope=scope)


def of_shut(call_id: str, shut: Shut) -> Refusal:
    """What the caller is told of a tool that lets no call through now."""
    return refusal(call_id, shut.code, say=say_of_shut(shut), retry_after_ms=shut.after_ms)


def say_of_shut(shut: Shut) -> str:
    """Why nothing is sent, where it is more than that the tool could not be reached."""
    return "The tool is unstable at the moment, so the call was not sent." if shut.code == UNSTABLE else ""


def of_doubt(call_id: str, contract: Contract, *, of: str = "") -> Refusal:
    """What the caller is told of a call in doubt: what is being done about it, and when to come back."""
    ways = []
    if contract.may_be_sent_again:
        ways.append("It is sent again with the key that the tool knows it by.")
    if contract.evidence is not None:
        ways.append(f"It is looked up, {contract.settles_within_s} s after it ended at the earliest.")
    ways.append("A person is asked if that does not tell." if ways else "A person has to find out.")
    earlier = {"of": of} if of else {}
    told = refusal(call_id, "in_doubt", say=f"{WORDINGS['in_doubt'].text} {' '.join(ways)}")
    after_ms = 5_000 if contract.may_be_sent_again else 1_000 * contract.settles_within_s if contract.evidence else 60_000
    return msgspec.structs.replace(told, details=earlier, retry_after_ms=min(max(after_ms, 1_000), 60_000))


def of_approval(call_id: str, decision: RequireApproval, asked: tuple[Requested, ...]) -> Refusal:
    """What the caller is told while people decide: which requests, who answers them, and until when."""
    return refusal(
        call_id,
        "needs_approval",
        say=_sentence(decision, asked),
        question=int(decision.question),
        approvals=_listed(asked),
    )


def of_budget(call_id: str, budget: Budget, over: OverBudget, asked: tuple[Requested, ...] = ()) -> Refusal:
    """What the caller is told of a hit: which budget, how much is used, when it frees, and who was asked.

    How much others have used is theirs: of budgets that lineages share, no numbers are told.
    """
    limit: dict[str, object] = {"name": budget.name, "per": budget.per.value, "counts": budget.counted.value}
    if budget.window_s:
        limit["window_s"] = budget.window_s
    window = f" in {budget.window_s} s" if budget.window_s else ""
    if budget.per in SHARED:
        said = [f"The budget {budget.name}, shared per {budget.per.value}, has no room for this call."]
    else:
        shown = {"limit": over.charge.limit, "used": over.used, "takes": over.charge.amount}
        limit |= {name: budget.shown(units) for name, units in shown.items()}
        used = "" if budget.per is Per.CALL else f"{limit['used']} are used and "
        allows = f"The budget {budget.name} allows {limit['limit']} per {budget.per.value}{window}"
        looks = budget.counted is Counted.LOOKUPS
        takes = "what this call is about would have to be looked up once more" if looks else f"this call takes {limit['takes']}"
        said = [f"{allows}: {used}{takes}."]
    if asked:
        waiting = " and ".join(f"{item.role} ({item.approval_id}, until {_at(item.expires_at_us)})" for item in asked)
        said.append(f"{waiting} may let it through; once that is given, repeat the call with the same arguments.")
        return refusal(call_id, "over_budget_asked", say=" ".join(said), budget=limit, approvals=_listed(asked))
    if budget.per is Per.CALL:
        retry, after_ms = "changed_args", 0
        said.append("Make it smaller.")
    elif over.after_ms is not None or over.may_free:
        retry, after_ms = "after_ms", over.after_ms or _DEFAULT_RETRY_AFTER_MS
        said.append(f"It may fit in about {-(-after_ms // 1000)} s.")
    else:
        retry, after_ms = "never", 0
        said.append(f"It does not free again in this {budget.per.value}. Stop, and tell the user.")
    told = refusal(call_id, "over_budget", say=" ".join(said), budget=limit)
    return msgspec.structs.replace(told, retry=retry, retry_after_ms=after_ms)


def of_denial(call_id: str, answer: Approval) -> Refusal:
    """What the caller is told when a person said no: that, and what they noted."""
    noted = f" They noted: {answer.note}" if answer.note else ""
    say = f"A person has looked at this call and said no.{noted} Do not send it again."
    return refusal(call_id, "approval_denied", say=say, approvals=[{"id": answer.approval_id, "rule": answer.rule}])


def _listed(asked: tuple[Requested, ...]) -> list[dict[str, object]]:
    return [
        {
            "id": item.approval_id,
            "rule": item.rule,
            "role": item.role,
            "until": _at(item.expires_at_us),
            "show": list(item.show),
        }
        for item in asked
    ]


def _sentence(decision: RequireApproval, asked: tuple[Requested, ...]) -> str:
    said = " ".join(reason.say for reason in decision.reasons if reason.say)
    waiting = " and ".join(f"{item.role} ({item.approval_id}, until {_at(item.expires_at_us)})" for item in asked)
    return (
        f"{said} This call waits for the approval of {waiting}. "
        "Once it is given, repeat the call with the same arguments; it will run once."
    ).strip()


def _at(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us // 1_000_000, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
