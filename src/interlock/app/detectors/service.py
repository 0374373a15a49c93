"""A detector that runs elsewhere, behind a small HTTP interface: docs/how-to/detectors.md says what it is asked and answers."""

from __future__ import annotations

from typing import Annotated, Final

import httpx2
import msgspec

from interlock.core.risk import DetectorRule, Signal, SignalKind
from interlock.identity.fetch import secret_of

MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_TEXT_CHARS: Final = 100_000
MAX_AT_ONCE: Final = 16


class _Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signal of an answer."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9 ._-]+$")]
    score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    evidence: Annotated[str, msgspec.Meta(max_length=2_000)] = ""


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that may be answered: something else is no answer, and so a failure."""

    signals: Annotated[list[_Found], msgspec.Meta(max_length=20)]


class ServiceError(RuntimeError):
    """The service gave no answer that can be used."""


class ServiceDetector:
    """Implements `SlowDetector`. Asks once for each text, without redirects; the text is all that it is told."""

    def __init__(self, rule: DetectorRule) -> None:
        self.name = rule.name
        self.timeout_ms = rule.timeout_ms
        self.failing = rule.failing
        self._url = rule.url
        self._credential = rule.credential
        limits = httpx2.Limits(max_connections=MAX_AT_ONCE)
        self._http = httpx2.AsyncClient(timeout=rule.timeout_ms / 1000, limits=limits, trust_env=False)

    async def look(self, text: str) -> tuple[Signal, ...]:
        """What the service finds. Raises `ServiceError`, `httpx2.HTTPError`; `OSError`, `ValueError` for its credential."""
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self._credential:
            headers["authorization"] = f"Bearer {secret_of(self._credential)}"
        body = msgspec.json.encode({"text": text[:MAX_TEXT_CHARS]})
        content = b""
        async with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise ServiceError(f"it answered {answer.status_code}")
            # Raw: a small body that unpacks into a large one would pass the limit otherwise.
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ServiceError(f"it answered more than {MAX_ANSWER_BYTES} bytes")
        try:
            found = msgspec.json.decode(content, type=_Answer).signals
        except msgspec.DecodeError as error:
            raise ServiceError("its answer is not what was agreed upon") from error
        signals = [
            Signal(
                kind=SignalKind.INJECTION,
                subject=f"{self.name}: {item.subject}",
                score=item.score,
                evidence=_plain(item.evidence),
            )
            for item in found
        ]
        if len(text) > MAX_TEXT_CHARS:
            told = f"only {MAX_TEXT_CHARS} characters of {len(text)} were looked at"
            signals.append(Signal(kind=SignalKind.DETECTOR, subject=f"{self.name}-length", score=self.failing, evidence=told))
        return tuple(signals)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()


def _plain(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:80]
