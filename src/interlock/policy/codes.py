"""The stable codes a caller may build on. They are only ever added to; each has one meaning."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from interlock.core.terms import Layer


class Code(StrEnum):
    """Why a call was not simply allowed."""

    NO_RELEASE = "no_release"
    UNKNOWN_OPERATION = "unknown_operation"
    OPERATION_INTERNAL = "operation_internal"
    OPERATION_NOT_REVIEWED = "operation_not_reviewed"
    INVALID_FACTS = "invalid_facts"
    INVALID_ARGUMENTS = "invalid_arguments"
    AGENT_NOT_PERMITTED = "agent_not_permitted"
    TASK_UNKNOWN = "task_unknown"
    USER_NOT_PERMITTED = "user_not_permitted"
    ARGUMENTS_NOT_PERMITTED = "arguments_not_permitted"
    DATA_NOT_PERMITTED = "data_not_permitted"
    APPROVAL_REQUIRED = "approval_required"
    FORBIDDEN = "forbidden"
    CANARY = "canary"
    HALTED = "halted"
    READ_ONLY = "read_only"
    RESOURCE_UNKNOWN = "resource_unknown"
    EVALUATION_ERROR = "evaluation_error"
    UNKNOWN_OBLIGATION = "unknown_obligation"
    UNKNOWN_APPROVAL_RULE = "unknown_approval_rule"


LAYER_CODE: Final = {
    Layer.IDENTITY: Code.AGENT_NOT_PERMITTED,
    Layer.DELEGATION: Code.USER_NOT_PERMITTED,
    Layer.CAPABILITY: Code.ARGUMENTS_NOT_PERMITTED,
    Layer.DATA: Code.DATA_NOT_PERMITTED,
    Layer.GUARD: Code.FORBIDDEN,
}

# INVARIANT: identity and delegation reveal only the code, so that nobody can map out other people's rights.
SPEAKING_LAYERS: Final = frozenset({Layer.CAPABILITY, Layer.DATA, Layer.GUARD})
