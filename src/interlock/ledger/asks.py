"""Events about what a tool asks of its caller while a call is under way."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class CallAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.asked"):
    """A tool asked something of its caller while it ran; `refused` says why it was not passed on."""

    operation: str
    method: str
    asked: object = None
    digest: str = ""
    refused: str = ""


class CallAnswered(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="call.answered"):
    """What the caller's client answered to a tool; `refused` says why the tool did not get it."""

    operation: str
    method: str
    answer: object = None
    digest: str = ""
    refused: str = ""


class ClaimContinued(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="claim.continued"):
    """A write whose tool had asked something before it went on was taken up again with the answers, by another call."""

    claim_id: str
    operation: str
    attempt: int
    by_call: str


AskBody: TypeAlias = CallAsked | CallAnswered | ClaimContinued
