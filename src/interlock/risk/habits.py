"""What a session does against what its agent usually does: rate, order of operations, refusals, sizes of arguments.

The baseline counts features of calls that were made in a normal posture, by tenant and agent. Until it holds enough of them,
nothing is unusual: nobody knows yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from interlock.core.budget import units_of
from interlock.core.canonical import JsonValue, canonical, digest
from interlock.core.recent import Recent
from interlock.core.risk import Signal, SignalKind

WINDOW_CALLS: Final = 20
WINDOW_US: Final = 60_000_000
MIN_KNOWN_CALLS: Final = 200
MIN_TRIED: Final = 8
MANY_DENIED_PERCENT: Final = 60
MANY_MALFORMED: Final = 4
MANY_AIMS: Final = 3
MANY_CONTRARY: Final = 2
BUSY_TIMES: Final = 4
BUSY_LEAST: Final = 30
ALL: Final = "all"
START: Final = "-"
MAX_NUMBERS: Final = 20
MAX_COUNTED_A_MINUTE: Final = WINDOW_CALLS * BUSY_TIMES * 4
MAX_LINEAGES: Final = 4_000
# Calls and times of all windows that a process keeps; a call takes about 700 bytes.
MAX_WINDOWS_SIZE: Final = 10_000


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One call as far as it counts here.

    `outcome` is `made`, `denied`, `asked`, `malformed`, `contradiction` or `other`. `about` stands for what it would change,
    and `aim` for what it would do to it; both empty of a call that changes nothing that is known. `contrary`: it would change
    something that the agent's own sealed plan does not say.
    """

    at_us: int
    call_id: str
    operation: str
    outcome: str
    features: tuple[str, ...] = ()
    about: str = ""
    aim: str = ""
    contrary: bool = False


class Window:
    """The last calls of one lineage, in one process; of those before them only when they were, and for a minute."""

    __slots__ = ("_calls", "_times_us", "last")

    def __init__(self) -> None:
        self._calls: deque[Done] = deque(maxlen=WINDOW_CALLS)
        self._times_us: deque[int] = deque(maxlen=MAX_COUNTED_A_MINUTE)
        self.last = START

    def __len__(self) -> int:
        """How much it holds: calls and times."""
        return len(self._calls) + len(self._times_us)

    def add(self, done: Done) -> None:
        """Take up the next call."""
        while self._times_us and self._times_us[0] <= done.at_us - WINDOW_US:
            self._times_us.popleft()
        self._times_us.append(done.at_us)
        self._calls.append(done)
        if done.outcome == "made":
            self.last = done.operation

    def recent(self) -> tuple[Done, ...]:
        """The last `WINDOW_CALLS`."""
        return tuple(self._calls)

    def a_minute(self, now_us: int) -> int:
        """How many calls the last minute held."""
        return sum(at_us > now_us - WINDOW_US for at_us in self._times_us)


class Windows:
    """The windows of the lineages that have called last: bounded by their number, and by all that they hold."""

    def __init__(self) -> None:
        self._kept: Recent[str, Window] = Recent(MAX_LINEAGES, most_size=MAX_WINDOWS_SIZE, size=len)

    def __len__(self) -> int:
        """How many lineages are known."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Calls and times of all of them."""
        return self._kept.size

    def of(self, lineage_id: str) -> Window:
        """The window of a lineage that is calling now; take its call up by `add`."""
        window = self._kept.get(lineage_id)
        if window is None:
            window = Window()
            self._kept.put(lineage_id, window)
        return window

    def add(self, lineage_id: str, done: Done) -> None:
        """Take up a lineage's next call, and forget those that called longest ago when there is too much."""
        window = self.of(lineage_id)
        window.add(done)
        self._kept.put(lineage_id, window)


def features(before: str, operation: str, arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """What is counted of a call: itself, what it came after, and the size of its numbers."""
    return (ALL, f"op:{operation}", f"after:{before}>{operation}", *_sizes(operation, arguments))


def _sizes(operation: str, arguments: Mapping[str, JsonValue]) -> Iterator[str]:
    numbered = 0
    for name in sorted(arguments):
        value = arguments[name]
        units = None if isinstance(value, str) and not _is_decimal(value) else units_of(value)
        if units is not None and numbered < MAX_NUMBERS:
            numbered += 1
            yield f"size:{operation}.{name}:{Decimal(abs(units) or 1).adjusted()}"


def _is_decimal(text: str) -> bool:
    return "." in text


def aimed(operation: str, arguments: Mapping[str, JsonValue], names: str, targets: tuple[str, ...]) -> tuple[str, str]:
    """`about` and `aim` of a call: the object that the argument `names` says, and what its other targets say."""
    others: dict[str, JsonValue] = {target: arguments.get(target) for target in targets if target != names}
    if not others or arguments.get(names) is None:
        return "", ""
    return f"{operation} {digest(canonical(arguments[names]))}", digest(canonical(others))


def unusual(done: Done, window: Window, baseline: Mapping[str, int]) -> tuple[Signal, ...]:
    """What of this call, and of the calls before it, is unusual. `window` holds the call already."""
    found = [*_unsure(done, window)]
    if baseline.get(ALL, 0) >= MIN_KNOWN_CALLS:
        found += _new(done, baseline)
        found += _busy(done, window, baseline)
    return tuple(found)


def _unsure(done: Done, window: Window) -> Iterator[Signal]:
    recent = window.recent()
    denied = sum(item.outcome == "denied" for item in recent)
    malformed = sum(item.outcome == "malformed" for item in recent)
    if len(recent) >= MIN_TRIED and denied * 100 >= MANY_DENIED_PERCENT * len(recent):
        told = f"{denied} of the last {len(recent)} calls were denied"
        yield Signal(kind=SignalKind.DENIALS, subject="ratio", score=45, evidence=told, reference=done.call_id)
    if done.outcome == "contradiction":
        told = "its plan contradicts the one that is sealed, or came too late"
        yield Signal(kind=SignalKind.CONTRADICTION, subject="plan", score=30, evidence=told, reference=done.call_id)
    if malformed >= MANY_MALFORMED:
        told = f"{malformed} of the last {len(recent)} calls did not fit their tools"
        yield Signal(kind=SignalKind.MALFORMED, subject="ratio", score=25, evidence=told, reference=done.call_id)
    contrary = sum(item.contrary for item in recent)
    if done.contrary and contrary >= MANY_CONTRARY:
        told = f"{contrary} of the last {len(recent)} calls are not what its own plan says"
        score = min(20 + 5 * (contrary - MANY_CONTRARY), 60)
        yield Signal(kind=SignalKind.CONTRADICTION, subject="calls", score=score, evidence=told, reference=done.call_id)
    aims = {item.aim for item in recent if done.about and item.about == done.about}
    if len(aims) >= MANY_AIMS:
        told = f"of the last {len(recent)} calls, {done.operation} was asked for on one object in {len(aims)} different ways"
        # INVARIANT: more ways never score less.
        score = min(25 + 5 * (len(aims) - MANY_AIMS), 60)
        yield Signal(kind=SignalKind.DISAGREEMENT, subject=done.operation, score=score, evidence=told, reference=done.call_id)


def _new(done: Done, baseline: Mapping[str, int]) -> Iterator[Signal]:
    if done.outcome != "made":
        return
    for feature in done.features:
        if baseline.get(feature, 0):
            continue
        kind, _, what = feature.partition(":")
        if kind == "op":
            told = f"this agent never called {what} before"
            yield Signal(kind=SignalKind.NOVELTY, subject=feature, score=25, evidence=told, reference=done.call_id)
        elif kind == "after" and baseline.get(f"op:{done.operation}", 0):
            told = f"this agent never called {done.operation} after {what.partition('>')[0]}"
            yield Signal(kind=SignalKind.NOVELTY, subject=feature, score=15, evidence=told, reference=done.call_id)
        elif kind == "size" and _is_larger(what, baseline):
            told = f"{what.rpartition(':')[0]} is larger than this agent ever sent"
            yield Signal(
                kind=SignalKind.OUTLIER, subject=what.rpartition(":")[0], score=35, evidence=told, reference=done.call_id
            )


def _is_larger(what: str, baseline: Mapping[str, int]) -> bool:
    """Whether a size is beyond all that are known of its argument. Of an argument never sent, nobody knows."""
    name, _, size = what.rpartition(":")
    known = [int(feature.rpartition(":")[2]) for feature in baseline if feature.startswith(f"size:{name}:")]
    return bool(known) and int(size) > max(known)


def _busy(done: Done, window: Window, baseline: Mapping[str, int]) -> Iterator[Signal]:
    rate = window.a_minute(done.at_us)
    known = [int(feature.removeprefix("rate:")) for feature in baseline if feature.startswith("rate:")]
    usual = max(known, default=0)
    if usual and rate >= max(BUSY_LEAST, BUSY_TIMES * usual):
        told = f"{rate} calls in a minute; this agent made {usual} at most"
        yield Signal(kind=SignalKind.RATE, subject="minute", score=35, evidence=told, reference=done.call_id)


def rate_feature(window: Window, now_us: int) -> str:
    """How busy a lineage is, as it is counted in the baseline."""
    return f"rate:{window.a_minute(now_us)}"
