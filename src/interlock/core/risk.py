"""The words of risk: evidence, how it is weighed, and secrets that nobody has a reason to send."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from interlock.core.terms import Posture


class SignalKind(StrEnum):
    """What the evidence is of. `detector`: a detector failed or was too slow, and nobody knows what it would have found."""

    INJECTION = "injection"
    HIDDEN = "hidden"
    RATE = "rate"
    NOVELTY = "novelty"
    DENIALS = "denials"
    OUTLIER = "outlier"
    MALFORMED = "malformed"
    CONTRADICTION = "contradiction"
    DISAGREEMENT = "disagreement"
    DETECTOR = "detector"


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of evidence. `score` is 0 to 100: how likely something is wrong, were this all there is.

    Of several of one kind about one `subject` (a rule, an operation) the highest counts. `evidence` is for people, and short;
    `reference` is the call or input it was seen in.
    """

    kind: SignalKind
    subject: str
    score: int
    evidence: str = ""
    reference: str = ""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A planted secret, known by its digest: no call has a reason to carry it.

    `starts` are its first characters, by which it is looked for, `chars` how long it is, `sha256` the digest of all of it; it
    is of small letters and digits only. Whoever sends it off is taken to `posture`.
    """

    name: str
    starts: str
    chars: int
    sha256: str
    posture: Posture = Posture.HALTED


class DetectorRule(msgspec.Struct, frozen=True, kw_only=True):
    """A detector of hostile text that takes its time: the built-in classifier, or with a `url` a service elsewhere.

    `credential` is the name of its bearer token (`env:NAME`, `file:PATH`). `timeout_ms` is how long it may take for a text;
    `failing` is the score of the signal that it failed, is missing or took longer.
    """

    name: str
    url: str = ""
    credential: str = ""
    timeout_ms: int = 2_000
    failing: int = 20


class RiskRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a release weighs evidence. Without `thresholds` nothing is looked for but canaries.

    `thresholds` say from which score on a lineage is at least in which posture. `weights` are percent by kind of signal, 100
    when nothing is said. `forget_after_s` is how long a signal counts; 0, when nothing is said: until a person has looked at
    the lineage and lowered its posture. `text_ms` is the most that a text is looked at before it is released.
    """

    thresholds: Mapping[Posture, int] = {}
    weights: Mapping[SignalKind, int] = {}
    forget_after_s: int = 0
    text_ms: int = 20
    canaries: tuple[Canary, ...] = ()
    detectors: tuple[DetectorRule, ...] = ()
