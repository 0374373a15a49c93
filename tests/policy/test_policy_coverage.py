"""Coverage says what no test would notice, and never more than the tests really show."""

import pytest

from interlock.core.terms import Question
from interlock.policy.coverage import coverage_of, detail, summary
from interlock.policy.engine import Engine
from interlock.policy.testing import explanations
from interlock.release.load import from_files
from tests.support.golden import golden
from tests.support.shop import FILES

REFUND = (
    'call: shop.refund, as: Staff, attributes: {teams: [north]}, resource: {team: north}, args: {order_id: A1, amount: "%s"}'
)
STOCK = "call: shop.stock, as: Staff, args: {item: nut}"


def cover(*tests, **more):
    lines = "".join(f"- {{{test}}}\n" for test in tests)
    release = from_files({**FILES, **more, "tests/a.yaml": lines})
    return coverage_of(release, explanations(Engine(release), release.tests))


def lacking(coverage, text):
    return {policy.id: policy.lacks for policy in coverage.policies if policy.lacks and text in policy.id}


def test_without_tests_nothing_is_exercised():
    coverage = cover()
    assert (coverage.exercised, coverage.percent, coverage.tests) == (0, 0, 0)
    assert set(coverage.untested) == {
        f"shop.{name}" for name in ["boom", "hurried", "note", "order", "pay", "person", "refund", "slow", "stock", "wild"]
    }
    assert coverage.unasked == tuple(Question)


def test_a_permit_is_exercised_by_a_call_it_lets_through():
    coverage = cover(f"{STOCK}, expect: allow")
    assert lacking(coverage, ":shop.stock:") == {}
    assert set(lacking(coverage, ":shop.pay:").values()) == {"never said yes"}
    assert coverage.ends == {"allow": 1}


def test_a_call_that_was_stopped_is_no_test_of_the_layers_after():
    coverage = cover(f"{STOCK}, expect: deny 3".replace("Staff", "Nobody"))
    assert set(lacking(coverage, ":shop.stock:")) == {
        f"grant:bot:1:shop.stock:{layer}" for layer in ("delegation", "capability", "data")
    }


def test_a_forbid_needs_a_test_in_which_it_fires_and_one_in_which_it_is_silent():
    small, large = REFUND % "20.00", REFUND % "80.00"
    ask = "grant:bot:5:shop.refund:guard:ask"
    assert lacking(cover(f"{small}, expect: allow"), ask) == {ask: "never fired"}
    assert lacking(cover(f"{large}, expect: ask refunds"), ask) == {ask: "never silent"}
    assert lacking(cover(f"{small}, expect: allow", f"{large}, expect: ask refunds"), ask) == {}
    assert lacking(cover(), ask) == {ask: "never fired, never silent"}


def test_what_a_grant_always_obliges_need_not_be_seen_silent():
    hurried = cover("call: shop.hurried, as: Staff, args: {text: a}, expect: allow")
    assert lacking(hurried, "rate:2/60s") == {}


def test_a_forbid_written_by_hand_is_exercised_by_its_posture():
    pay = 'call: shop.pay, as: Staff, args: {order_id: A1, amount: "1.00"}'
    coverage = cover(f"{pay}, expect: allow", f"{pay}, session: {{posture: guarded}}, expect: deny 7")
    assert lacking(coverage, "worried") == {}
    assert coverage.ends == {"7": 1, "allow": 1}
    assert Question.WHAT_IS_FORBIDDEN not in coverage.unasked


def test_a_posture_that_stops_everything_exercises_no_policy():
    coverage = cover(f"{STOCK}, session: {{posture: halted}}, expect: deny 7")
    assert coverage.exercised == 0
    assert coverage.ends == {"7": 1}


def test_a_test_that_cannot_be_run_shows_nothing():
    coverage = cover(f"{STOCK}, session: {{mood: good}}, expect: allow")
    assert (coverage.tests, coverage.exercised) == (0, 0)


def test_a_read_only_obligation_that_stops_a_write_has_had_its_say():
    rule = '@id("calm")\n@owner("security")\n@obligation("read-only")\nforbid (principal, action == Action::"shop.note", resource);\n'
    coverage = cover("call: shop.note, as: Staff, args: {text: a}, expect: deny 7", **{"policies/guard/calm.cedar": rule})
    assert lacking(coverage, "calm") == {"calm": "never silent"}


@pytest.mark.parametrize("number", [1, 2])
def test_the_report_for_people(number):
    tests = [f"{STOCK}, expect: allow", f"{REFUND % '80.00'}, expect: ask refunds"][:number]
    coverage = cover(*tests)
    golden(f"policy/golden/coverage-{number}.txt", f"{summary(coverage)}\n{detail(coverage)}\n")
