"""The slow detectors that the release in force names, made once and kept while it names them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from interlock.app.detectors.embedding import Classifier, ModelMissingError
from interlock.app.detectors.service import ServiceDetector
from interlock.core.risk import DetectorRule, RiskRules

_log = logging.getLogger(__name__)

Made: TypeAlias = Classifier | ServiceDetector


class Detectors:
    """Gives the detectors for some rules, in the order in which they are written."""

    def __init__(self, make: Callable[[DetectorRule], Made] | None = None) -> None:
        self._make = make or _made
        self._known: dict[DetectorRule, Made] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, rules: RiskRules) -> tuple[Made, ...]:
        """The detectors that these rules name."""
        wanted = set(rules.detectors)
        for rule in [rule for rule in self._known if rule not in wanted]:
            task = asyncio.create_task(self._known.pop(rule).close(), name="detector-close")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for rule in rules.detectors:
            if rule not in self._known:
                self._known[rule] = self._make(rule)
        return tuple(self._known[rule] for rule in rules.detectors)

    async def prepare(self, rules: RiskRules) -> None:
        """Load what has to be loaded before texts come. What is missing is said, and is evidence when a text comes."""
        for detector in self.of(rules):
            if isinstance(detector, Classifier):
                try:
                    await detector.prepare()
                except ModelMissingError as error:
                    extra = {"event": "risk.detector_missing", "detector": detector.name}
                    _log.warning("a detector cannot look at anything: %s", error, extra=extra)

    async def close(self) -> None:
        """Close them all."""
        await asyncio.gather(*(made.close() for made in self._known.values()), *self._closing, return_exceptions=True)
        self._known.clear()


def _made(rule: DetectorRule) -> Made:
    return ServiceDetector(rule) if rule.url else Classifier(rule)
