"""The chain policies of the demo release, and the one on what has run out: what each stops, and that without it the same call is not stopped so."""

from pathlib import Path

import pytest

from interlock.core.terms import Origin
from interlock.policy.engine import Engine
from interlock.policy.testing import run_test
from interlock.release.load import from_files
from interlock.release.model import PolicyTest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "acme" / "release"
CHAINS = "policies/guard/chains.cedar"
SOURCES = "policies/guard/sources.cedar"
FILES = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
MAIL = {"call": "mail.send", "args": '{"to":"nora@customers.example","subject":"hello","text":"hello"}', "roles": ("Support",)}
SWEEP = {"call": "tickets.delete", "args": '{"ticket_id":7}', "roles": ("Operator",), "environment": "staging"}

# policy, the call, what is decided with it, and without it
CASES = [
    ("private-data-does-not-leave-unseen", {**MAIL, "session": {"confidentiality": 3}}, "ask doubtful", "allow"),
    ("untrusted-content-deletes-nothing", {**SWEEP, "session": {"tainted": True}}, "ask doubtful", "allow"),
    (
        "private-data-and-untrusted-content-send-nothing",
        {**MAIL, "session": {"tainted": True, "confidentiality": 3}, "provenance": {"to": Origin.UNTRUSTED}},
        "deny 7",
        "ask doubtful",
    ),
    (
        "changed-permissions-are-not-used-unseen",
        {**SWEEP, "history": {"changed_permissions": True}},
        "ask config-change",
        "allow",
    ),
    ("no-sweeps", {**SWEEP, "history": {"listed": True, "deleted": 4}}, "deny 7", "allow"),
    ("outside-the-plan", {**MAIL, "session": {"tainted": True}, "plan": {"operation": False}}, "ask doubtful", "allow"),
]


def decided(files, case, expect):
    known = {"tenant": "acme", "environment": "prod", **case}
    return run_test(Engine(from_files(files)), PolicyTest(name="chain", expect=expect, **known))


def without(policy, place=CHAINS):
    """The release with this policy really taken out, and its tests, which would miss it."""
    kept = [part for part in FILES[place].split("\n@id(") if not part.startswith(f'"{policy}"')]
    assert len(kept) == FILES[place].count("\n@id(")
    return {**FILES, place: "\n@id(".join(kept)}


@pytest.mark.parametrize(("policy", "case", "with_it", "without_it"), CASES, ids=[case[0] for case in CASES])
def test_each_chain_is_stopped_by_its_policy_and_by_nothing_else(policy, case, with_it, without_it):
    found = decided(FILES, case, with_it)
    assert found.passed, found.why
    lacking = decided(without(policy), case, without_it)
    assert lacking.passed, lacking.why


def test_every_chain_policy_has_its_case():
    named = {part.split('"')[1] for part in FILES[CHAINS].split("\n@id(")[1:]}
    assert named == {case[0] for case in CASES}


def test_each_step_of_a_chain_is_allowed_alone():
    for case in (MAIL, SWEEP, {**SWEEP, "history": {"listed": True, "deleted": 1}}, {**SWEEP, "history": {"deleted": 9}}):
        assert decided(FILES, case, "allow").passed


def test_what_has_run_out_is_not_relied_upon_unseen_and_it_is_one_policy_that_says_so():
    article = {"call": "articles.get", "args": '{"article_id":2}', "roles": ("Support",)}
    lacking = without("no-silent-reliance-on-what-ran-out", SOURCES)
    today = {"session": {"now": "2026-11-25T12:00:00Z"}}
    for until, expected in (("2026-11-25", "ask stale"), ("2026-11-26", "allow"), ("2026-11-25T14:00:01+02:00", "allow")):
        case = {**article, **today, "resource": {"valid_until": until}}
        assert decided(FILES, case, expected).passed, until
        assert decided(lacking, case, "allow").passed
    for unknown in ("soon", "2027-01-01T00:00:00", ""):
        found = decided(FILES, {**article, **today, "resource": {"valid_until": unknown}}, "deny 7")
        assert found.passed, (unknown, found.why)
