"""Watches what enters contexts and how calls end; notes evidence, and raises postures. It never lowers one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from interlock.core.ports import Clock, Ids
from interlock.core.recent import Recent
from interlock.core.risk import RiskRules, Signal, SignalKind
from interlock.core.terms import Posture
from interlock.core.who import Session
from interlock.gateway.calls import is_ended
from interlock.gateway.ports import CalledAs
from interlock.ledger.drafts import draft
from interlock.ledger.events import PostureChanged, RiskNoted
from interlock.risk.combine import Assessment, assess, reason
from interlock.risk.detectors import SlowDetector, TextDetector
from interlock.risk.habits import Done, Windows, aimed, features, rate_feature, unusual
from interlock.store.errors import StoreError
from interlock.store.postures import Postures, SetPosture
from interlock.store.risk import RiskRows

_log = logging.getLogger(__name__)

BY: Final = "risk"
INLINE_CHARS: Final = 1_024
MAX_TEXT_CHARS: Final = 1_000_000
MAX_BEHIND: Final = 64
MAX_CALLS_QUEUED: Final = 2_000
MAX_LINEAGES: Final = 4_000
MAX_AGENTS: Final = 1_000
MAX_FEATURES: Final = 50_000
NOTED_AGAIN_US: Final = 60_000_000
FAILED_SCORE: Final = 20
# The user's own words are orders to a model by right: only the rules look at them.
USERS_OWN: Final = "input"
_ORDER: Final = tuple(Posture)


class RiskWatch:
    """Implements the gate's `Watch`. `start` before use, `close` at the end."""

    def __init__(
        self,
        *,
        rows: RiskRows,
        postures: Postures,
        rules: Callable[[], RiskRules],
        detectors: Sequence[TextDetector],
        slow: Callable[[RiskRules], Sequence[SlowDetector]],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._rows = rows
        self._postures = postures
        self.rules = rules
        self._detectors = tuple(detectors)
        self._slow = slow
        self._clock = clock
        self._ids = ids
        self._behind: set[asyncio.Task[None]] = set()
        self._calls: asyncio.Queue[tuple[Session, Done, CalledAs]] = asyncio.Queue(MAX_CALLS_QUEUED)
        self._windows = Windows()
        self._baselines: Recent[tuple[str, str], dict[str, int]] = Recent(MAX_AGENTS, most_size=MAX_FEATURES, size=len)
        self._learnt: Counter[tuple[str, str, str]] = Counter()
        self._noted: Recent[tuple[str, str, str], tuple[int, int]] = Recent(MAX_LINEAGES)
        self._overrun: dict[str, Session] = {}
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls and long texts that are not weighed yet."""
        return self._calls.qsize() + len(self._behind)

    def start(self) -> None:
        """Begin to look at how calls end."""
        self._worker = asyncio.create_task(self._work(), name="risk")

    async def close(self) -> None:
        """Stop; what was not looked at is lost, what was learnt is kept if the database answers."""
        for task in (*self._behind, *([self._worker] if self._worker else [])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        try:
            await self.tend()
        except StoreError:
            _log.warning("what was learnt about agents could not be kept", extra={"event": "risk.not_kept"})

    async def entered(self, session: Session, source: str, reference: str, texts: Callable[[], tuple[str, ...]]) -> None:
        """Look at what is about to enter a context; by the rules at a short text at once, else for `text_ms` at most.

        What a text says that took longer is noted when it is known. Raises `StoreUnavailableError`.
        """
        rules = self.rules()
        if not rules.thresholds:
            return
        text = "\n".join(texts())
        if not text.strip():
            return
        slow = () if source == USERS_OWN else tuple(self._slow(rules))
        at_once = len(text) <= INLINE_CHARS
        if at_once:
            await self._found(session, source, reference, self._look(text), rules)
        if at_once and not slow:
            return
        behind = self._look_behind(session, source, reference, text, rules, slow, in_thread=not at_once)
        looking = asyncio.create_task(behind, name="risk-text")
        if len(self._behind) >= MAX_BEHIND:
            looking.cancel()
            await self._found(session, source, reference, (_failed("texts", "too many texts at once"),), rules)
            return
        self._behind.add(looking)
        looking.add_done_callback(lambda done: self._looked(done, session))
        done, _ = await asyncio.wait({looking}, timeout=rules.text_ms / 1000)
        if done:
            looking.result()  # that it could not be noted is not swallowed

    async def sent_off(self, session: Session, call_id: str, operation: str, canaries: tuple[str, ...]) -> None:
        """Raise the lineage's posture, for it tried to send planted secrets off. Raises `StoreUnavailableError`."""
        known = {canary.name: canary.posture for canary in self.rules().canaries}
        to = max((known.get(name, Posture.HALTED) for name in canaries), key=_ORDER.index, default=Posture.HALTED)
        why = f"planted secret {', '.join(canaries)} in a call of {operation} ({call_id})"
        await self._ratchet(session, to, why, None)

    def called(self, session: Session, call: CalledAs) -> None:
        """Take up how a call ended. Never waits; when there is too much to look at, that is evidence too."""
        if not self.rules().thresholds or self._worker is None:
            return
        done = Done(at_us=self._clock.wall_us(), call_id=call.call_id, operation=call.operation, outcome=call.outcome)
        try:
            self._calls.put_nowait((session, done, call))
        except asyncio.QueueFull:
            self._not_weighed(session)

    async def tend(self) -> None:
        """Keep what was learnt, and note what could not be looked at. Raises `StoreUnavailableError`: nothing is lost then."""
        rules = self.rules()
        for lineage_id, session in list(self._overrun.items()):
            await self._found(session, "calls", "", (_failed("calls", "too many calls at once"),), rules)
            self._overrun.pop(lineage_id, None)
        learnt, self._learnt = self._learnt, Counter()
        if learnt:
            try:
                await self._rows.add_habits(learnt)
            except StoreError:
                self._learnt.update(learnt)
                raise

    async def caught_up(self) -> None:
        """Wait until everything that was taken up has been looked at."""
        await self._calls.join()
        if self._behind:
            await asyncio.wait(set(self._behind))

    def _look(self, text: str) -> tuple[Signal, ...]:
        """What every detector finds. One that fails is a signal itself."""
        found: list[Signal] = []
        for detector in self._detectors:
            try:
                found += detector.look(text[:MAX_TEXT_CHARS])
            except Exception as error:  # noqa: BLE001  # whatever breaks a detector must not look like a harmless text
                _log.exception("a detector failed", extra={"event": "risk.detector_failed", "detector": detector.name})
                found.append(_failed(detector.name, type(error).__name__))
        if len(text) > MAX_TEXT_CHARS:
            found.append(_failed("length", f"only {MAX_TEXT_CHARS} characters of {len(text)} were looked at"))
        return tuple(found)

    def _looked(self, looking: asyncio.Task[None], session: Session) -> None:
        """A long text was looked at; when that came to nothing, it is evidence that it could not be weighed."""
        self._behind.discard(looking)
        if not looking.cancelled() and looking.exception() is not None:
            _log.warning(
                "what entered a context could not be weighed", exc_info=looking.exception(), extra={"event": "risk.not_weighed"}
            )
            self._not_weighed(session)

    async def _look_behind(
        self,
        session: Session,
        source: str,
        reference: str,
        text: str,
        rules: RiskRules,
        slow: Sequence[SlowDetector],
        *,
        in_thread: bool,
    ) -> None:
        """By the rules in a thread if they have not looked yet, and by the slow ones; each is heard when it is done."""

        async def noted(looking: Awaitable[tuple[Signal, ...]]) -> None:
            await self._found(session, source, reference, await looking, rules)

        looks = [noted(_in_time(detector, text)) for detector in slow]
        if in_thread:
            looks.append(noted(asyncio.to_thread(self._look, text)))
        told = await asyncio.gather(*looks, return_exceptions=True)
        for failed in told:
            if failed is not None:
                raise failed

    async def _found(
        self, session: Session, source: str, reference: str, signals: tuple[Signal, ...], rules: RiskRules
    ) -> None:
        """Note what is new, weigh everything that counts, and raise the posture."""
        now_us = self._clock.wall_us()
        fresh = tuple(signal for signal in signals if self._is_fresh(session, signal, now_us))
        if not fresh:
            return
        try:
            body = RiskNoted(source=source, reference=reference, signals=fresh)
            event = draft(body, ids=self._ids, call_id=reference if reference.startswith("call_") else "")
            counting = await self._rows.note(session, fresh, event, forget_after_s=rules.forget_after_s)
            assessment = assess(counting, rules)
            if assessment.posture is not Posture.NORMAL:
                await self._ratchet(session, assessment.posture, reason(assessment), assessment)
        except BaseException:
            # INVARIANT: what was not noted and acted upon is news when it is seen again.
            for signal in fresh:
                self._noted.pop(_key(session, signal))
            raise

    def _is_fresh(self, session: Session, signal: Signal, now_us: int) -> bool:
        """Whether a signal says more than was noted of this lineage in the last minute, so that none can fill the ledger."""
        key = _key(session, signal)
        at_us, score = self._noted.get(key) or (0, -1)
        if signal.score <= score and now_us - at_us < NOTED_AGAIN_US:
            return False
        self._noted.put(key, (now_us, signal.score))
        return True

    async def _ratchet(self, session: Session, to: Posture, why: str, assessment: Assessment | None) -> None:
        """Raise a lineage's posture, if it is not as high already.

        INVARIANT: nothing here lowers a posture.
        """
        while True:
            found = await self._postures.get(session.lineage.id)
            if found is None or _ORDER.index(to) <= _ORDER.index(found.posture):
                return
            below = await self._postures.less_worried_below(found.lineage_id, to)
            body = PostureChanged(
                lineage_id=found.lineage_id,
                previous=found.posture.value,
                posture=to.value,
                reason=why,
                by=BY,
                roles=(),
                below=below,
                score=0 if assessment is None else assessment.score,
                signals=() if assessment is None else assessment.counted,
            )
            event = draft(body, ids=self._ids)
            became = await self._postures.set(found, to, by=BY, reason=why, raised=below, event=event)
            if became is SetPosture.SET:
                return
            # Somebody was quicker; without a person it only ever gets higher, so this ends.

    async def _work(self) -> None:
        while True:
            session, done, call = await self._calls.get()
            try:
                await self._take_up(session, done, call)
            except StoreError:
                _log.warning(
                    "how a call ended could not be weighed", extra={"event": "risk.not_weighed", "call_id": done.call_id}
                )
                self._not_weighed(session)
            except Exception:  # noqa: BLE001  # one odd call must not end the watch
                _log.exception(
                    "how a call ended could not be weighed", extra={"event": "risk.not_weighed", "call_id": done.call_id}
                )
                self._not_weighed(session)
            finally:
                self._calls.task_done()

    def _not_weighed(self, session: Session) -> None:
        """Note a lineage of which something could not be looked at, so that `tend` says so."""
        if len(self._overrun) < MAX_LINEAGES:
            self._overrun.setdefault(session.lineage.id, session)

    async def _take_up(self, session: Session, done: Done, call: CalledAs) -> None:
        lineage = session.lineage
        window = self._windows.of(lineage.id)
        baseline = await self._baseline(lineage.tenant, lineage.agent)
        about, aim = aimed(call.operation, call.arguments, call.object, call.targets)
        of_call = Done(
            at_us=done.at_us,
            call_id=done.call_id,
            operation=done.operation,
            outcome=done.outcome,
            features=features(window.last, done.operation, call.arguments),
            about=about,
            aim=aim,
            contrary=call.contrary,
        )
        self._windows.add(lineage.id, of_call)
        signals = unusual(of_call, window, baseline)
        # What looks odd teaches nothing: else whoever does it often enough makes it usual.
        if done.outcome == "made" and not signals:
            for feature in (*of_call.features, rate_feature(window, done.at_us)):
                baseline[feature] = baseline.get(feature, 0) + 1
                self._learnt[(lineage.tenant, lineage.agent, feature)] += 1
        if signals:
            await self._found(session, "calls", done.call_id, signals, self.rules())

    async def _baseline(self, tenant: str, agent: str) -> dict[str, int]:
        key = (tenant, agent)
        found = self._baselines.get(key)
        if found is None:
            found = await self._rows.habits(tenant, agent)
        self._baselines.put(key, found)
        return found


async def _in_time(detector: SlowDetector, text: str) -> tuple[Signal, ...]:
    """What a slow detector finds. That it fails, or takes too long, is a signal with the score that the release gives it."""
    try:
        async with asyncio.timeout(detector.timeout_ms / 1000):
            return await detector.look(text[:MAX_TEXT_CHARS])
    except TimeoutError:
        return (_failed(detector.name, f"no answer in {detector.timeout_ms} ms", detector.failing),)
    except asyncio.CancelledError:
        if is_ended():
            raise
        # It was the detector that was ended: neither the call nor the evidence may end with it.
        return (_failed(detector.name, "it was ended", detector.failing),)
    except Exception as error:  # noqa: BLE001  # whatever breaks a detector must not look like a harmless text
        extra = {"event": "risk.detector_failed", "detector": detector.name}
        _log.warning("a detector failed: %s", type(error).__name__, extra=extra)
        return (_failed(detector.name, type(error).__name__, detector.failing),)


def _failed(what: str, why: str, score: int = FAILED_SCORE) -> Signal:
    return Signal(kind=SignalKind.DETECTOR, subject=what, score=score, evidence=why)


def _key(session: Session, signal: Signal) -> tuple[str, str, str]:
    return session.lineage.id, signal.kind.value, signal.subject
