"""Why a request was not answered.

ApprovalError
├── UnknownApprovalError   there is none, or not in this person's tenant
├── RequesterError         nobody approves what is done in their own name
├── WrongApproverError     the rule names another role
└── NotOpenError           it was answered, used, withdrawn, has expired, or the release has changed since
"""

from __future__ import annotations


class ApprovalError(Exception):
    """The root of the errors of approvals."""


class UnknownApprovalError(ApprovalError):
    """There is no such request, as far as this person may know."""


class RequesterError(ApprovalError):
    """The person is the one in whose name the call would run."""


class WrongApproverError(ApprovalError):
    """The person does not hold the role that the rule names."""


class NotOpenError(ApprovalError):
    """The request can no longer be answered; `state` says why."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


def refused(reason: str, role: str) -> ApprovalError:
    """The error for the reason that the database gave."""
    match reason:
        case "unknown":
            return UnknownApprovalError("there is no such request")
        case "requester":
            return RequesterError("nobody approves what is done in their own name; somebody else has to look at it")
        case "role":
            return WrongApproverError(f"this is answered by people with the role {role}")
        case "outdated":
            return NotOpenError(
                "the release or the object has changed since; when the agent asks again, a new request is made", reason
            )
        case _:
            return NotOpenError(f"it can no longer be answered: it is {reason}", reason)
