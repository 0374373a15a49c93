"""`risk.yaml`: from which score on a lineage is guarded, read-only or halted, what weighs how much, and planted secrets."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from interlock.core.risk import Canary, DetectorRule, RiskRules, SignalKind
from interlock.core.terms import Posture
from interlock.release.documents import Node, Problems

MAX_CANARIES: Final = 200
MIN_CANARY_CHARS: Final = 20
MAX_CANARY_CHARS: Final = 200
MAX_WEIGHT: Final = 100
MAX_TEXT_MS: Final = 1_000
MAX_DETECTORS: Final = 8
MAX_DETECTOR_MS: Final = 60_000
BUILT_IN: Final = "classifier"
STARTS_CHARS: Final = 4
_STARTS: Final = re.compile(rf"[a-z0-9]{{{STARTS_CHARS}}}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_WINDOW: Final = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_CREDENTIAL: Final = re.compile(r"(env|file):\S+")
_LOCAL: Final = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?")
_RAISED: Final = (Posture.GUARDED, Posture.READ_ONLY, Posture.HALTED)


class CanarySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `canaries`."""

    starts: str
    chars: int
    sha256: str
    posture: Posture = Posture.HALTED


class DetectorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `detectors`."""

    url: str = ""
    credential: str = ""
    timeout_ms: int = 2_000
    failing: int = 20


class RiskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`risk.yaml`."""

    thresholds: dict[Posture, int] = {}
    weights: dict[SignalKind, int] = {}
    forget_after: str = ""
    text_ms: int = 20
    canaries: dict[str, CanarySpec] = {}
    detectors: dict[str, DetectorSpec] = {}


def read_risk(node: Node, problems: Problems) -> RiskRules:
    """The rules, with every problem noted. No file: nothing is looked for."""
    if not node.value:
        return RiskRules()
    spec = problems.convert(node, RiskSpec)
    if spec is None:
        return RiskRules()
    _check_thresholds(spec, node, problems)
    for kind, weight in spec.weights.items():
        if not 0 <= weight <= MAX_WEIGHT:
            problems.add(node.at("weights"), f"the weight of {kind.value} is 0 to {MAX_WEIGHT} percent")
    if not 1 <= spec.text_ms <= MAX_TEXT_MS:
        problems.add(node.at("text_ms"), f"`text_ms` is 1 to {MAX_TEXT_MS}")
    forget = _WINDOW.fullmatch(spec.forget_after) if spec.forget_after else None
    if spec.forget_after and forget is None:
        problems.add(node.at("forget_after"), "`forget_after` is written 90m, 24h or 7d; leave it out and nothing is forgotten")
    if len(spec.canaries) > MAX_CANARIES:
        problems.add(node.at("canaries"), f"more than {MAX_CANARIES} canaries")
    canaries = []
    for name, canary in spec.canaries.items():
        wrong = _wrong_canary(name, canary)
        if wrong:
            problems.add(node.at("canaries").at(name), f"canary {name}: {wrong}")
        canaries.append(
            Canary(name=name, starts=canary.starts, chars=canary.chars, sha256=canary.sha256, posture=canary.posture)
        )
    if len(spec.detectors) > MAX_DETECTORS:
        problems.add(node.at("detectors"), f"more than {MAX_DETECTORS} detectors")
    if spec.detectors and not spec.thresholds:
        problems.add(
            node.at("detectors"), "without `thresholds` no text is looked at; say from which score on something follows"
        )
    detectors = []
    for name, detector in spec.detectors.items():
        if wrong := _wrong_detector(name, detector):
            problems.add(node.at("detectors").at(name), f"detector {name}: {wrong}")
        detectors.append(DetectorRule(name=name, **msgspec.structs.asdict(detector)))
    return RiskRules(
        thresholds=spec.thresholds,
        weights=spec.weights,
        forget_after_s=0 if forget is None else int(forget[1]) * _SECONDS[forget[2]],
        text_ms=spec.text_ms,
        canaries=tuple(canaries),
        detectors=tuple(detectors),
    )


def _check_thresholds(spec: RiskSpec, node: Node, problems: Problems) -> None:
    known = [spec.thresholds[posture] for posture in _RAISED if posture in spec.thresholds]
    where = node.at("thresholds")
    if Posture.NORMAL in spec.thresholds:
        problems.add(where, "there is no threshold for normal: only a person lowers a posture")
    if any(not 1 <= value <= 100 for value in known) or known != sorted(known):  # noqa: PLR2004  # a score is at most 100
        problems.add(where, "thresholds are 1 to 100 and rise from guarded over read_only to halted")


def _wrong_canary(name: str, spec: CanarySpec) -> str:
    if not _NAME.fullmatch(name):
        return "its name is of small letters, digits and dashes"
    if not _STARTS.fullmatch(spec.starts) or not _DIGEST.fullmatch(spec.sha256):
        return "`starts` are its first four characters and `sha256` 64 hexadecimal digits; `interlock canary` writes both"
    if not MIN_CANARY_CHARS <= spec.chars <= MAX_CANARY_CHARS:
        return f"it is {MIN_CANARY_CHARS} to {MAX_CANARY_CHARS} characters long"
    if spec.posture not in _RAISED:
        return "`posture` is guarded, read_only or halted"
    return ""


def _wrong_detector(name: str, spec: DetectorSpec) -> str:
    if not _NAME.fullmatch(name):
        return "its name is of small letters, digits and dashes"
    if (name == BUILT_IN) == bool(spec.url):
        return f"`{BUILT_IN}` is the one that comes with Interlock and has no `url`; every other one needs its own"
    if spec.url and not (re.fullmatch(r"https://\S+", spec.url) or _LOCAL.fullmatch(spec.url)):
        return "`url` is https, or http on this machine: texts of sessions go there"
    if spec.credential and not (spec.url and _CREDENTIAL.fullmatch(spec.credential)):
        return "`credential` is the name of a bearer token for its `url`: env:NAME or file:PATH"
    if not 1 <= spec.timeout_ms <= MAX_DETECTOR_MS:
        return f"`timeout_ms` is 1 to {MAX_DETECTOR_MS}"
    if not 1 <= spec.failing <= 100:  # noqa: PLR2004  # a score is at most 100
        return "`failing` is the score that counts when it fails, 1 to 100"
    return ""
