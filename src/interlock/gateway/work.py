"""A claimed call, ready to be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from interlock.core.claim import Claimed, Labels, OfWork
from interlock.core.contract import Contract
from interlock.core.who import Session
from interlock.gateway.earlier import Earlier
from interlock.policy.permit import Permit
from interlock.tools.port import Line


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One claimed call, ready to be made. `timed` are the accounts that count the milliseconds it takes.

    With `calls_the_tool` false its tool is unstable: `earlier` is then the answer, and without one it fails unsent.
    `sent_before`: an earlier attempt may have arrived, so only the tool's own good answer says what became of the call.
    `asked_in` is the attempt in which the tool asked what is answered now, `first_call` the call that made the claim then.
    """

    call_id: str
    session: Session
    contract: Contract
    arguments: bytes
    call_hash: str
    claimed: Claimed
    permit: Permit
    labels: Labels
    extra_log: bool = False
    may_be_repeated: bool = False
    timed: tuple[str, ...] = ()
    calls_the_tool: bool = True
    earlier: Earlier | None = None
    sent_before: bool = False
    line: Line = Line()
    more: Mapping[str, Any] = {}
    of_work: OfWork | None = None
    asked_in: int = 0
    first_call: str = ""

    @property
    def is_undone_when_it_asks(self) -> bool:
        """Whether a question of the tool means that nothing has happened: by its contract, and while no attempt is in doubt."""
        return self.contract.is_undone_when_it_asks and not self.asked_in
