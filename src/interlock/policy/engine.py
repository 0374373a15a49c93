"""The decision point: Facts and a Release in, a Decision out. No I/O, no clock, no randomness.

The seven questions are asked in order and the first No stops the call. A layer says yes when one of its permits holds and
no forbid is left standing; a forbid that names an approval or an obligation is lifted by it, and all that fire apply.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Final

import msgspec

from interlock.core.canonical import digest
from interlock.core.contract import Contract
from interlock.core.decision import Allow, Decision, Deny, Facts, PolicyRef, Reason, RequireApproval
from interlock.core.terms import Effect, Posture, Question
from interlock.core.who import AttributeValue
from interlock.policy.case import Case, StoppedError, invalid_facts
from interlock.policy.codes import Code
from interlock.policy.encoding import RESERVED_ENTITY_TYPES, check_user_attributes
from interlock.policy.errors import FactsRefusedError, UnusableReleaseError
from interlock.policy.evaluate import MEMO_MAX_ENTRIES, Memo
from interlock.policy.explain import Explanation, explain
from interlock.policy.graver import calmer_than, may_widen, stricter
from interlock.policy.prepared import Prepared
from interlock.policy.reads import WHOLE
from interlock.policy.slices import EFFECT_GROUPS, Slices
from interlock.policy.visible import VISIBLE_MEMO_MAX_ENTRIES, VISIBLE_TIME_STEP_US, Viewer, reads_the_time, visible
from interlock.release.model import Release

__all__ = ["ENGINE", "Engine", "FactsRefusedError", "deny_without_release", "digest_of"]

ENGINE: Final = f"cedarpy {importlib.metadata.version('cedarpy')}/interlock-policy 1"


class Engine:
    """Decides by one release. Make a new one for a new release; nothing in it ever changes but what it remembers."""

    def __init__(self, release: Release) -> None:
        """Index the release. Slow (milliseconds per thousand policies), so make it before the release goes live.

        Raises:
            UnusableReleaseError: the release cannot decide; the message says what to correct.
        """
        check_user_attributes(release.user_attributes)
        for contract in release.contracts.values():
            if contract.resource is not None and contract.resource.type in RESERVED_ENTITY_TYPES:
                raise UnusableReleaseError(
                    f"the resource type {contract.resource.type!r} of {contract.operation} is reserved; rename it"
                )
        self.release = release
        self.prepared = Prepared(release=release, slices=Slices(release), memo=Memo(MEMO_MAX_ENTRIES))
        self._reads_the_time: bool | None = None
        self._may_widen: dict[tuple[str, frozenset[Effect], str], frozenset[str]] = {}
        self._visible: Memo[tuple[str, ...]] = Memo(VISIBLE_MEMO_MAX_ENTRIES)

    def warm(self) -> None:
        """Take the policies of every operation apart now instead of on first use, so that no early call pays for it.

        Raises:
            UnusableReleaseError: Cedar does not accept a policy.
        """
        for contract in self.release.contracts.values():
            for agent in ("", *self.prepared.slices.named_agents):
                self.prepared.apart(self.prepared.slices.of(contract, contract.effects, agent))

    def reads(self, contract: Contract, sections: frozenset[str]) -> bool:
        """Whether a policy that may speak about this operation reads one of these parts of the context."""
        named = {contract.operation, f"tool:{contract.tool}", *(EFFECT_GROUPS[effect] for effect in Effect)}
        return any(
            (rule.scope.actions is None or named & rule.scope.actions) and sections & rule.reads().context.keys()
            for rule in self.prepared.slices.rules.values()
        )

    def history_read(self, contract: Contract) -> frozenset[str]:
        """The names of the facts about the past that policies read which may speak about this operation."""
        named = {contract.operation, f"tool:{contract.tool}", *(EFFECT_GROUPS[effect] for effect in Effect)}
        read: frozenset[str] = frozenset().union(
            *(
                rule.reads().context.get("history", frozenset())
                for rule in self.prepared.slices.rules.values()
                if rule.scope.actions is None or named & rule.scope.actions
            )
        )
        declared = frozenset(fact.name for fact in self.release.history)
        return declared if WHOLE in read else read & declared

    def decide(self, facts: Facts) -> Decision:
        """Answer the seven questions for one proposed call. Never raises; whatever cannot be decided is a Deny."""
        try:
            facts_digest = digest_of(facts)
        except (ValueError, TypeError) as error:
            return self._deny(facts_digest="", question=Question.WHICH_TOOL, reasons=(invalid_facts(str(error)),))
        decision = self._once(facts, facts_digest)
        if isinstance(decision, Deny) or (facts.posture is Posture.NORMAL and not facts.tainted):
            return decision
        # INVARIANT: whatever policies say of posture and taint, what is refused or asked for without them, is with them too.
        for calmer in calmer_than(facts, self._widening(facts)):
            other = self._once(calmer, facts_digest)
            if isinstance(other, Deny):
                return other
            decision = stricter(decision, other)
        return decision

    def admits(self, facts: Facts) -> bool:
        """Whether the agent may run the operation at all, whatever the call's object is: only then may that be looked up.

        False for whatever else stops the call before that is known, too. Never raises; `decide` says why it is False.
        """
        try:
            digest_of(facts)
            Case(self.prepared, facts).identify()
            if facts.posture is not Posture.NORMAL or facts.tainted:
                for calmer in calmer_than(facts, self._widening(facts)):
                    Case(self.prepared, calmer).identify()
        except Exception:  # noqa: BLE001 whatever goes wrong here, nothing is looked up
            return False
        return True

    def _widening(self, facts: Facts) -> frozenset[str]:
        """Which of posture and taint may widen what policies say about this call. For calls that were not denied."""
        key = (facts.operation, facts.effects, facts.agent)
        found = self._may_widen.get(key)
        if found is None:
            slices = self.prepared.slices.of(self.release.contracts[facts.operation], facts.effects, facts.agent)
            found = may_widen(rule for piece in slices.layers.values() for rule in piece.rules)
            self._may_widen[key] = found
        return found

    def _once(self, facts: Facts, facts_digest: str) -> Decision:
        """The answer under just this posture."""
        case = Case(self.prepared, facts)
        try:
            case.answer()
        except StoppedError as stop:
            return self._deny(
                facts_digest=facts_digest, question=stop.question, reasons=stop.reasons, policies=tuple(case.policies)
            )
        except Exception as error:  # noqa: BLE001 whatever goes wrong while deciding, the answer is no
            reason = Reason(code=Code.EVALUATION_ERROR, detail=f"{type(error).__name__}: {error}")
            return self._deny(
                facts_digest=facts_digest, question=case.question, reasons=(reason,), policies=tuple(case.policies)
            )
        if case.requirements:
            return RequireApproval(
                release_digest=self.release.digest,
                facts_digest=facts_digest,
                engine=ENGINE,
                policies=tuple(case.policies),
                requirements=tuple(case.requirements),
                reasons=tuple(case.asks),
                obligations=case.obligations,
            )
        return Allow(
            release_digest=self.release.digest,
            facts_digest=facts_digest,
            engine=ENGINE,
            policies=tuple(case.policies),
            obligations=case.obligations,
            approvals=tuple(sorted(set(case.lifted))),
        )

    def visible(
        self,
        *,
        agent: str,
        user: str,
        tenant: str,
        environment: str,
        task: str,
        purpose: str,
        roles: tuple[str, ...],
        attributes: Mapping[str, AttributeValue],
        posture: Posture,
        tainted: bool,
        confidentiality: int,
        now_us: int,
    ) -> tuple[str, ...]:
        """The names of the operations worth showing to a session, sorted. A hint for lists: each call is decided in full.

        Remembered by these inputs; the time counts by the minute, and only where policies read it.
        """
        if self._reads_the_time is None:
            self._reads_the_time = reads_the_time(self.prepared.slices)
        viewer = Viewer(
            agent=agent,
            user=user,
            tenant=tenant,
            environment=environment,
            task=task,
            purpose=purpose,
            roles=roles,
            attributes=attributes,
            posture=posture,
            tainted=tainted,
            confidentiality=confidentiality,
            now_us=now_us - now_us % VISIBLE_TIME_STEP_US if self._reads_the_time else 0,
        )
        key = msgspec.json.encode(viewer, order="sorted")
        known = self._visible.get(key)
        if known is None:
            known = visible(self.prepared, viewer)
            self._visible.put(key, known)
        return known

    def explain(self, facts: Facts) -> Explanation:
        """The decision about these facts, with what every policy of every layer had to say. Slow; for people."""
        return explain(self.prepared, facts, self.decide(facts))

    def _deny(
        self, *, facts_digest: str, question: Question, reasons: tuple[Reason, ...], policies: tuple[PolicyRef, ...] = ()
    ) -> Deny:
        return Deny(
            release_digest=self.release.digest,
            facts_digest=facts_digest,
            engine=ENGINE,
            policies=policies,
            question=question,
            reasons=reasons,
        )


def digest_of(facts: Facts) -> str:
    """`sha256:` of the facts in one byte form: compact JSON with all keys and sets sorted."""
    return digest(msgspec.json.encode(facts, order="sorted"))


def deny_without_release(facts: Facts) -> Deny:
    """The decision when no release is active: nothing may run."""
    return Deny(
        release_digest="",
        facts_digest=digest_of(facts),
        engine=ENGINE,
        question=Question.WHICH_TOOL,
        reasons=(Reason(code=Code.NO_RELEASE),),
    )
