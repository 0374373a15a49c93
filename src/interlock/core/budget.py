"""Budgets as a release declares them, and charges as a claim carries them.

Everything is counted in whole units: one for a call, a write, an entity, a token or a millisecond, and a ten-thousandth for
the numbers that a `sum` adds up. Nothing here is ever a float.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from interlock.core.canonical import JsonValue

UNITS_PER_ONE: Final = 10_000
MAX_UNITS: Final = 9 * 10**17
MAX_WINDOW_S: Final = 31 * 24 * 3600
WINDOW_PARTS: Final = 60
"""A sliding window moves on in steps of a sixtieth of its length (a second at least): what was used counts up to one step
longer than the window, and never shorter. The store cuts in the same way."""

CEILING_CALLS_PER_RUN: Final = 5_000
CEILING_CALLS_PER_SESSION: Final = 20_000
CEILING_LOOKUPS_PER_SESSION: Final = 40_000
CEILING_WRITES_PER_SESSION: Final = 2_000
CEILING_ENTITIES_PER_CALL: Final = 1_000
CEILING_ENTITIES_PER_DAY: Final = 20_000
DAY_S: Final = 24 * 3600

_DECIMAL: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,4})?", re.ASCII)


class Counted(StrEnum):
    """What a budget counts. `writes` and `entities` are those of calls that may change or send something.

    `lookups` are what the gateway reads for itself to learn about the object of a call, also of one that is then refused.
    """

    CALLS = "calls"
    LOOKUPS = "lookups"
    WRITES = "writes"
    ENTITIES = "entities"
    TOKENS = "tokens"
    WALL_MS = "wall_ms"
    SUM = "sum"


class Per(StrEnum):
    """Who shares a budget. None crosses a tenant or an environment; `run` and `session` include all sub-agents."""

    CALL = "call"
    RUN = "run"
    SESSION = "session"
    LINEAGE = "lineage"
    USER = "user"
    AGENT = "agent"
    TENANT = "tenant"
    OPERATION = "operation"


SHARED: Final = frozenset({Per.USER, Per.AGENT, Per.TENANT, Per.OPERATION})
"""Scopes that span lineages: their budgets are handed out in slices, so that no row is hot."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` units in any `window_s` seconds (0: in the life of the run or session).

    `on` are the operations counted, all when empty; a `sum` adds up `argument` of its one operation. On a hit the call
    is refused, and with a `rule` of approvals.yaml it is put to people first.
    """

    name: str
    counted: Counted
    per: Per
    limit: int
    window_s: int = 0
    on: tuple[str, ...] = ()
    argument: str = ""
    rule: str = ""

    def shown(self, units: int) -> str:
        """Units as a person writes them."""
        if self.counted is not Counted.SUM:
            return str(units)
        return f"{Decimal(units) / UNITS_PER_ONE:.4f}".rstrip("0").rstrip(".")


CEILINGS: Final = (
    Budget(name="calls-per-run", counted=Counted.CALLS, per=Per.RUN, limit=CEILING_CALLS_PER_RUN),
    Budget(name="calls-per-session", counted=Counted.CALLS, per=Per.SESSION, limit=CEILING_CALLS_PER_SESSION),
    Budget(name="writes-per-session", counted=Counted.WRITES, per=Per.SESSION, limit=CEILING_WRITES_PER_SESSION),
    Budget(name="lookups-per-session", counted=Counted.LOOKUPS, per=Per.SESSION, limit=CEILING_LOOKUPS_PER_SESSION),
    Budget(name="entities-per-call", counted=Counted.ENTITIES, per=Per.CALL, limit=CEILING_ENTITIES_PER_CALL),
    Budget(name="entities-per-day", counted=Counted.ENTITIES, per=Per.LINEAGE, limit=CEILING_ENTITIES_PER_DAY, window_s=DAY_S),
)
"""What holds when a release says nothing. A budget of the same name, count and scope takes the place of one of these."""


HANDED_DOWN: Final = "handed-down"
"""The name of the budget of calls that one agent gives another; no release may take it."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What one call takes from one budget. `account` names the counter: the budget, and who it is counted for.

    `lifted` is set when a person has approved that this very call goes beyond the limit: it is counted all the same.
    A budget per call has no counter: `account` is empty, and the charge is there because it is over the limit.
    """

    budget: str
    account: str
    amount: int
    limit: int
    window_s: int = 0
    shared: bool = False
    about: str = ""
    lifted: bool = False


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim reserved, as it is recorded: the amount as a person writes it."""

    budget: str
    amount: str


def units_of(value: JsonValue) -> int | None:
    """A number, or the text of a decimal, in ten-thousandths; None when it is not one that can be counted exactly.

    What is larger than any limit can be is `MAX_UNITS`. Negative numbers are given as such: whoever counts refuses them.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    # `parse_strict` accepts a fraction only when its shortest form is what was written, so this is the exact text.
    text = value if isinstance(value, str) else repr(value)
    if not _DECIMAL.fullmatch(text):
        return None
    return int(max(min(Decimal(text) * UNITS_PER_ONE, Decimal(MAX_UNITS)), Decimal(-MAX_UNITS)))
