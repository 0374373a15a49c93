"""Raising a risk score never widens what is allowed: of evidence and scores, and of decisions under generated policies."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.decision import Allow, Deny, RequireApproval
from interlock.core.risk import RiskRules, Signal, SignalKind
from interlock.core.terms import Posture
from interlock.policy.engine import Engine
from interlock.policy.graver import may_widen
from interlock.policy.testing import facts_of
from interlock.release.load import from_files
from interlock.release.model import PolicyTest
from interlock.risk.combine import assess, reason
from tests.support.shop import FILES

ORDER = list(Posture)
SIGNALS = st.builds(
    Signal,
    kind=st.sampled_from(list(SignalKind)),
    subject=st.sampled_from(["a", "b", "c"]),
    score=st.integers(0, 100),
)


@st.composite
def some_rules(draw):
    least = sorted(draw(st.lists(st.integers(1, 100), min_size=3, max_size=3)))
    named = dict(zip([Posture.GUARDED, Posture.READ_ONLY, Posture.HALTED], least, strict=True))
    weights = draw(st.dictionaries(st.sampled_from(list(SignalKind)), st.integers(0, 100)))
    return RiskRules(thresholds=named, weights=weights)


@given(st.lists(SIGNALS, max_size=12), SIGNALS, some_rules())
@settings(max_examples=50)
def test_more_evidence_never_gives_a_lower_posture(signals, another, rules):
    before, after = assess(signals, rules), assess([*signals, another], rules)
    assert after.score >= before.score
    assert ORDER.index(after.posture) >= ORDER.index(before.posture)


@given(st.lists(SIGNALS, min_size=1, max_size=8), st.integers(0, 100), st.data(), some_rules())
@settings(max_examples=50)
def test_a_higher_score_never_gives_a_lower_posture(signals, more, data, rules):
    at = data.draw(st.integers(0, len(signals) - 1))
    raised = list(signals)
    raised[at] = msgspec.structs.replace(raised[at], score=max(raised[at].score, more))
    before, after = assess(signals, rules), assess(raised, rules)
    assert after.score >= before.score
    assert ORDER.index(after.posture) >= ORDER.index(before.posture)


@given(st.lists(SIGNALS, max_size=6), some_rules(), st.randoms())
@settings(max_examples=50)
def test_the_same_evidence_comes_to_the_same_in_any_order_and_any_number(signals, rules, random):
    shuffled = [*signals, *signals]
    random.shuffle(shuffled)
    assert assess(shuffled, rules).score == assess(signals, rules).score
    assert assess(shuffled, rules).posture is assess(signals, rules).posture


def test_the_score_is_exact_and_its_reason_tells_the_gravest():
    rules = RiskRules(thresholds={Posture.GUARDED: 40, Posture.READ_ONLY: 70})
    signals = [
        Signal(kind=SignalKind.INJECTION, subject="override", score=60),
        Signal(kind=SignalKind.DENIALS, subject="ratio", score=50),
        Signal(kind=SignalKind.DENIALS, subject="ratio", score=20),
    ]
    found = assess(signals, rules)
    assert (found.score, found.posture) == (80, Posture.READ_ONLY)  # 1 - 0.4 x 0.5
    assert reason(found) == "risk 80: injection (override), denials (ratio)"
    halved = msgspec.structs.replace(rules, weights={SignalKind.INJECTION: 50})
    assert (assess(signals, halved).score, assess(signals, halved).posture) == (65, Posture.GUARDED)


# What a policy may say of the posture, sensible or not.
CONDITIONS = [
    'context.session.posture == "normal"',
    'context.session.posture != "normal"',
    'context.session.posture == "guarded"',
    'context.session.posture == "read_only"',
    '["guarded", "read_only"].contains(context.session.posture)',
]


def release_with(forbid, permit, approval):
    notes = '@approval("refunds")' if approval else ""
    return from_files(
        {
            **FILES,
            "release.yaml": FILES["release.yaml"] + "guarded: refunds\n",
            "policies/guard/rules.cedar": f'@id("f") @owner("security") {notes}\n'
            f"forbid (principal, action, resource) when {{ {forbid} }};\n",
            "policies/capability/odd.cedar": '@id("p") @owner("security")\n'
            f'permit (principal == Agent::"bot", action == Action::"shop.refund", resource) when {{ {permit} }};\n',
        }
    )


@pytest.mark.parametrize(("forbid", "permit", "approval"), [*itertools.product(CONDITIONS, CONDITIONS[2:4], [False, True])])
def test_no_policy_allows_more_under_a_graver_posture(forbid, permit, approval):
    """Not even one that is written the wrong way round."""
    engine = Engine(release_with(forbid, permit, approval))
    for call, args in (("shop.stock", '{"item":"x"}'), ("shop.note", '{"text":"x"}'), ("shop.refund", REFUND)):
        asked = PolicyTest(
            name="law", call=call, args=args, roles=("Staff",), expect="allow", agent="bot", tenant="acme",
            attributes={"teams": ["north"]}, resource={"team": "north"} if call == "shop.refund" else None,
        )  # fmt: skip
        facts = facts_of(engine, asked)
        strictness = [_strictness(engine.decide(msgspec.structs.replace(facts, posture=posture))) for posture in Posture]
        assert strictness == sorted(strictness), (call, strictness)


def test_a_forbid_that_just_demands_taint_or_worry_is_known_to_be_harmless():
    """So the common policies cost no second decision; whatever says more is decided twice."""

    def widening(condition, kind="when"):
        files = {**FILES, "policies/guard/rules.cedar": f'@id("f") @owner("security")\n'
            f"forbid (principal, action, resource) {kind} {{ {condition} }};\n"}  # fmt: skip
        rules = Engine(from_files(files)).prepared.slices.rules
        return may_widen([rules["f"]])

    assert widening("context.session.tainted && context.call.entities > 3") == frozenset()
    assert widening('context.session.posture != "normal" && context.session.tainted') == frozenset()
    assert widening("context.session.tainted || context.call.entities > 3") == {"tainted"}
    assert widening("context.session.tainted && !(context.session.tainted && context.call.entities > 3)") == {"tainted"}
    assert widening("context.session.tainted", kind="unless") == {"tainted"}
    assert widening('context.session.posture == "guarded"') == {"posture"}


TAINTED = [
    "context.session.tainted",
    "!context.session.tainted",
    'context.session.tainted && context.session.posture == "normal"',
    '!context.session.tainted || context.session.posture != "normal"',
]


@pytest.mark.parametrize(("forbid", "permit", "approval"), [*itertools.product(TAINTED, TAINTED[:2], [False, True])])
def test_no_policy_allows_more_when_there_is_taint(forbid, permit, approval):
    engine = Engine(release_with(forbid, permit, approval))
    for call, args in (("shop.stock", '{"item":"x"}'), ("shop.note", '{"text":"x"}'), ("shop.refund", REFUND)):
        asked = PolicyTest(
            name="law", call=call, args=args, roles=("Staff",), expect="allow", agent="bot", tenant="acme",
            attributes={"teams": ["north"]}, resource={"team": "north"} if call == "shop.refund" else None,
        )  # fmt: skip
        for posture in Posture:
            facts = msgspec.structs.replace(facts_of(engine, asked), posture=posture)
            clean = _strictness(engine.decide(facts))
            assert _strictness(engine.decide(msgspec.structs.replace(facts, tainted=True))) >= clean, (call, posture)


REFUND = '{"amount":"90.00","order_id":"A1"}'


def _strictness(decision):
    match decision:
        case Allow():
            return 0
        case RequireApproval(requirements=requirements):
            return len({need.policy_id for need in requirements})
        case Deny():
            return 100
