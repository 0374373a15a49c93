"""The chains of a first release: each stops what the others let through, for tools that nobody had named when it was written."""

import pytest

from interlock.core.terms import Origin
from interlock.policy.engine import Engine
from interlock.policy.testing import run_test, run_tests
from interlock.release.load import from_files
from interlock.release.model import PolicyTest
from interlock.release.review.starter import Names, first_release

NAMES = Names(release="desk", tool="desk", agent="assistant", user="ana", approver="kim", environment="prod")
REVIEWED = 'reviewed: {by: ana, on: "2026-11-25"}'
TOOL = f"""
command: [desk]
operations:
  list_notes: {{effects: [read], input: {{}}, output: {{notes: [string]}}, {REVIEWED}}}
  drop_note: {{effects: [destructive], input: {{name: string}}, output: {{}}, targets: [name], {REVIEWED}}}
  send_mail: {{effects: [egress], input: {{to: string, text: string}}, output: {{}}, targets: [to], content: [text], {REVIEWED}}}
  add_role: {{effects: [write], input: {{who: string, role: string}}, output: {{}}, targets: [who, role], {REVIEWED}}}
  write_note: {{effects: [write], input: {{name: string}}, output: {{}}, targets: [name], {REVIEWED}}}
"""
FILES = first_release(NAMES, TOOL)
CHAINS = "policies/guard/chains.cedar"
# Somebody allows it all, one by one: nothing asks any more, and nothing is forbidden by what it does.
LIFTED = {name: text for name, text in FILES.items() if name != "policies/guard/first.cedar" and not name.startswith("tests/")}
LIFTED["agents.yaml"] = LIFTED["agents.yaml"].replace("      ask: {rule: changes}\n", "")
DROP = {"call": "desk.drop_note", "args": '{"name":"tea"}'}
SEND = {"call": "desk.send_mail", "args": '{"text":"hello","to":"nora@customers.example"}'}
WRITE = {"call": "desk.write_note", "args": '{"name":"tea"}'}
BOTH = {"session": {"confidentiality": 2, "tainted": True}}
CASES = [
    ("private-data-does-not-leave-unseen", {**SEND, "session": {"confidentiality": 2}}, "ask changes", "allow"),
    ("untrusted-content-destroys-nothing-unseen", {**DROP, "session": {"tainted": True}}, "ask changes", "allow"),
    (
        "private-data-and-untrusted-content-send-nothing",
        {**SEND, **BOTH, "provenance": {"to": Origin.UNTRUSTED}},
        "deny 7",
        "ask changes",
    ),
    ("no-sweeps", {**DROP, "history": {"listed": True, "destroyed": 4}}, "deny 7", "allow"),
    ("changed-permissions-are-not-used-unseen", {**WRITE, "history": {"changed_permissions": True}}, "ask changes", "allow"),
]


def decided(files, case, expect):
    made = PolicyTest(name="chain", expect=expect, roles=("User",), tenant="local", environment="prod", **case)
    return run_test(Engine(from_files(files)), made)


def without(policy):
    kept = [part for part in LIFTED[CHAINS].split("\n@id(") if not part.startswith(f'"{policy}"')]
    assert len(kept) == LIFTED[CHAINS].count("\n@id(")
    return {**LIFTED, CHAINS: "\n@id(".join(kept)}


@pytest.mark.parametrize(("policy", "case", "with_it", "without_it"), CASES, ids=[case[0] for case in CASES])
def test_each_chain_is_stopped_by_its_policy_and_by_nothing_else(policy, case, with_it, without_it):
    assert (found := decided(LIFTED, case, with_it)).passed, found.why
    assert (found := decided(without(policy), case, without_it)).passed, found.why


def test_every_chain_has_its_case_and_each_step_is_allowed_alone():
    assert {part.split('"')[1] for part in LIFTED[CHAINS].split("\n@id(")[1:]} == {case[0] for case in CASES}
    for case in (DROP, SEND, WRITE):
        assert (found := decided(LIFTED, case, "allow")).passed, found.why


def test_a_tool_that_comes_later_is_in_the_chains_without_being_named():
    names = ("drop_note", "forget"), ("send_mail", "tell")
    lines = [line for line in TOOL.splitlines() if any(line.startswith(f"  {old}:") for old, _ in names)]
    later, grants = "\n".join(["command: [other]", "operations:", *lines]) + "\n", LIFTED["agents.yaml"]
    for old, new in names:
        later, grants = later.replace(f"  {old}:", f"  {new}:"), grants.replace(f"desk.{old}", f"desk.{old}, other.{new}")
    files = {**LIFTED, "agents.yaml": grants, "tools/other.yaml": later}
    for _, case, with_it, _ in CASES[:4]:
        of_later = case["call"].replace("desk.drop_note", "other.forget").replace("desk.send_mail", "other.tell")
        assert (found := decided(files, {**case, "call": of_later}, with_it)).passed, found.why


def test_a_first_release_passes_its_own_tests_whatever_its_tools_do():
    lines = TOOL.strip().splitlines()
    for kept in ([3], [4], [5], [2], [2, 3], [2, 4], [4, 5], [2, 3, 4, 5, 6]):
        made = from_files(first_release(NAMES, "\n".join([*lines[:2], *(lines[number] for number in kept)]) + "\n"))
        failed = [result.why for result in run_tests(made) if not result.passed]
        assert not failed, (kept, failed)
        assert made.risk.thresholds
