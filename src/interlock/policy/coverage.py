"""Which policies the tests of a release exercise: what no test would notice if it were gone or always spoke.

A policy counts where a decision got as far as its layer: what it would have said to a call that was stopped before is
no test of it. A permit is exercised when it said yes; a forbid when it fired in one test and stayed silent in another,
but for what a grant obliges with no condition of its own, which fires whenever the grant permits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from interlock.core.decision import Allow, Decision, Deny, RequireApproval
from interlock.core.terms import LAYER_QUESTION, Layer, Question
from interlock.policy.explain import Explanation, LayerVoice
from interlock.release.model import Policy, Release

_COMPLETE: Final = 100


class PolicyCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """How often one policy spoke and kept silent. `lacks` says what no test shows; empty when it is exercised."""

    id: str
    layer: Layer
    effect: str
    owner: str
    place: str
    fired: int
    silent: int
    lacks: str


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of tests shows of a release.

    `untested` are operations that no test calls (internal ones, which nobody can call, are left out); `ends` counts tests
    by the question they end at, `allow` among them; `unasked` are the questions at which none ends.
    """

    tests: int
    policies: tuple[PolicyCoverage, ...]
    untested: tuple[str, ...]
    operations: int
    ends: Mapping[str, int]
    unasked: tuple[Question, ...]

    @property
    def exercised(self) -> int:
        """How many policies the tests exercise."""
        return sum(not policy.lacks for policy in self.policies)

    @property
    def percent(self) -> int:
        """Exercised policies in whole percent, rounded down; 100 when there are no policies at all."""
        return self.exercised * _COMPLETE // len(self.policies) if self.policies else _COMPLETE


def coverage_of(release: Release, explained: Iterable[Explanation]) -> Coverage:
    """The coverage of a release by tests, each given as the explanation of its decision."""
    fired: dict[str, int] = {}
    silent: dict[str, int] = {}
    called: set[str] = set()
    ends: dict[str, int] = {}
    tests = 0
    for explanation in explained:
        tests += 1
        called.add(explanation.operation)
        end = _end(explanation.decision)
        ends[end] = ends.get(end, 0) + 1
        for voice in explanation.layers:
            if not _was_asked(voice, explanation.decision):
                continue
            for policy in voice.policies:
                heard = silent if policy.said == "silent" else fired
                if policy.said != "error":
                    heard[policy.id] = heard.get(policy.id, 0) + 1
    always = _always_fire(release)
    open_to_all = [name for name, contract in release.contracts.items() if not contract.internal]
    return Coverage(
        tests=tests,
        policies=tuple(
            _policy(policy, fired.get(policy.id, 0), silent.get(policy.id, 0), always=policy.id in always)
            for policy in release.policies
        ),
        untested=tuple(sorted(set(open_to_all) - called)),
        operations=len(open_to_all),
        ends=dict(sorted(ends.items())),
        unasked=tuple(question for question in Question if str(question.value) not in ends),
    )


def _end(decision: Decision) -> str:
    match decision:
        case Allow():
            return "allow"
        case RequireApproval(question=question) | Deny(question=question):
            return str(question.value)


def _was_asked(voice: LayerVoice, decision: Decision) -> bool:
    """Whether the decision got as far as this layer."""
    if not isinstance(decision, Deny):
        return True
    asked = LAYER_QUESTION[voice.layer]
    if decision.question != asked:
        return decision.question > asked
    # A question has other ways to stop a call than its layer (an unknown task, arguments that do not fit).
    named = {reason.policy_id for reason in decision.reasons}
    return voice.answer in {"no", "error"} or any(policy.id in named for policy in voice.policies)


def _always_fire(release: Release) -> frozenset[str]:
    """The duties of grants that have no condition of their own: they fire whenever their grant permits."""
    conditions = {policy.id: msgspec.json.decode(policy.est)["conditions"] for policy in release.policies}
    found = set()
    for policy in release.policies:
        grant, _, duty = policy.id.rpartition(f":{policy.layer.value}:")
        permit = f"{grant}:{Layer.CAPABILITY.value}"
        if policy.id.startswith("grant:") and duty and conditions.get(permit) == conditions[policy.id]:
            found.add(policy.id)
    return frozenset(found)


def _policy(policy: Policy, fired: int, silent: int, *, always: bool) -> PolicyCoverage:
    missing = []
    if not fired:
        missing.append("never said yes" if policy.effect == "permit" else "never fired")
    if policy.effect == "forbid" and not silent and not always:
        missing.append("never silent")
    return PolicyCoverage(
        id=policy.id,
        layer=policy.layer,
        effect=policy.effect,
        owner=policy.owner,
        place=f"{policy.file}:{policy.line}" if policy.file else "",
        fired=fired,
        silent=silent,
        lacks=", ".join(missing),
    )


def summary(coverage: Coverage) -> str:
    """The coverage in one line."""
    parts = [f"{coverage.exercised} of {len(coverage.policies)} policies exercised ({coverage.percent} %)"]
    if coverage.untested:
        parts.append(f"{len(coverage.untested)} of {coverage.operations} operations have no test")
    if coverage.unasked:
        parts.append(f"no test ends at question {', '.join(str(question.value) for question in coverage.unasked)}")
    return "coverage: " + "; ".join(parts)


def detail(coverage: Coverage) -> str:
    """What the tests do not show, line by line: policies by the place they were written at, operations, questions."""
    lines: list[str] = []
    place = ""
    for policy in sorted((policy for policy in coverage.policies if policy.lacks), key=_by_place):
        if policy.place != place:
            place = policy.place
            lines.append(f"  {place}  (owner {policy.owner})")
        lines.append(f"      {policy.layer.value:<10} {policy.effect:<6} {policy.lacks:<26} {policy.id}")
    if lines:
        lines.insert(0, "not exercised:")
    lines += [f"no test calls {name}" for name in coverage.untested]
    lines += [f"no test ends at question {question.value}: {_ASKED[question]}" for question in coverage.unasked]
    return "\n".join(lines) or "everything is exercised"


def _by_place(policy: PolicyCoverage) -> tuple[str, int, str]:
    file, _, line = policy.place.rpartition(":")
    return file, int(line) if line.isdecimal() else 0, policy.id


_ASKED: Final = {
    Question.WHICH_TOOL: "which tool is this",
    Question.MAY_THE_AGENT: "may this agent run it at all",
    Question.FOR_THIS_USER: "may it for this user",
    Question.WHICH_OPERATION: "with these arguments",
    Question.WHICH_DATA: "this data",
    Question.WHO_APPROVES: "who must approve",
    Question.WHAT_IS_FORBIDDEN: "what is forbidden under this risk",
}
