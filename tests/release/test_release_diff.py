"""The structural diff: nothing is overlooked, and a direction is said only where it is sure."""

import json

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from interlock.policy.engine import Engine
from interlock.policy.testing import facts_of
from interlock.policy.whatif import direction_of, what_would_change
from interlock.policy.whatif import render as render_decisions
from interlock.release.diff import compare
from interlock.release.diff.changes import Direction, together
from interlock.release.diff.compare import diff, render, widening_lines
from interlock.release.diff.schemas import schema_direction
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.model import PolicyTest
from tests.support.golden import golden
from tests.support.shop import FILES

W, N, S, U = "widens", "narrows", "neutral", "unknown"
PIN = "sha256:" + "a" * 64
MAX_LIST = "    - {on: [shop.stock, shop.pay, shop.slow, shop.note, shop.boom, shop.wild], for: &staff {roles: [Staff], task: selling}}"
BOARD = '@id("board")\n@owner("security")\n%s (principal, action == Action::"shop.pay", resource)%s;\n'
OWNERS = "owners: {platform: [tools], product: [agents.yaml, tasks.yaml], security: [policies, approvals.yaml]}\n"


def between(*edits, before=FILES, **more):
    after = {**before, **more}
    for file, old, new in edits:
        assert old in after[file], (file, old)
        after[file] = after[file].replace(old, new)
    return diff(from_files(before), from_files({name: text for name, text in after.items() if text is not None}))


def said(found):
    return [(change.direction.value, change.kind, change.what) for change in found.changes]


def test_the_same_release_does_not_differ():
    assert between().changes == ()
    assert render(between()) == "no difference"


CASES = [
    # Grants, in their own words.
    ("agents.yaml", 'max: "100.00"', 'max: "150.00"', [(W, "grant", 'amount: {"max": "100.00"} → {"max": "150.00"}')]),
    ("agents.yaml", 'max: "100.00"', 'max: "99.9999"', [(N, "grant", 'amount: {"max": "100.00"} → {"max": "99.9999"}')]),
    ("agents.yaml", 'max: "100.00"', 'max: "100.0"', [(S, "grant", 'amount: {"max": "100.00"} → {"max": "100.0"}')]),
    ("agents.yaml", 'max: "100.00"', 'under: "100.00"', [(U, "grant", 'amount: {"max": "100.00"} → {"under": "100.00"}')]),
    ("agents.yaml", '      where: {amount: {max: "100.00"}}\n', "", [(W, "grant", 'amount: {"max": "100.00"} → no limit')]),
    ("agents.yaml", 'max: "100.00"', 'max: "100.00", min: "1.00"', [(N, "grant", 'amount: {"max": "100.00"} → {"max": "100.00", "min": "1.00"}')]),
    ("agents.yaml", 'over: "50.00"', 'over: "70.00"', [(W, "grant", 'ask when amount: {"over": "50.00"} → {"over": "70.00"}')]),
    ("agents.yaml", 'over: "50.00"', 'over: "5.00"', [(N, "grant", 'ask when amount: {"over": "50.00"} → {"over": "5.00"}')]),
    ("agents.yaml", ', when: {amount: {over: "50.00"}}', "", [(N, "grant", 'ask when amount: {"over": "50.00"} → no limit')]),
    ("agents.yaml", '      ask: {rule: refunds, when: {amount: {over: "50.00"}}}\n', "", [(W, "grant", 'ask refunds when {"amount": {"over": "50.00"}}: no longer asked')]),
    ("agents.yaml", 'rate: "2/60s"', 'rate: "1/60s"', [(N, "grant", "rate: 2/60s → 1/60s")]),
    ("agents.yaml", 'rate: "2/60s"', 'rate: "2/30s"', [(W, "grant", "rate: 2/60s → 2/30s")]),
    ("agents.yaml", 'rate: "2/60s"', 'rate: "1/30s"', [(U, "grant", "rate: 2/60s → 1/30s")]),
    ("agents.yaml", ', rate: "2/60s"', "", [(W, "grant", "rate: 2/60s → nothing")]),
    ("agents.yaml", "redact: [email]", "redact: [email, pii]", [(N, "grant", "redact: +pii")]),
    ("agents.yaml", ", redact: [email]", "", [(W, "grant", "redact: -email")]),
    ("agents.yaml", "for: *staff, rate", "for: {roles: [Staff, Boss], task: selling}, rate", [(W, "grant", "roles: +Boss")]),
    ("agents.yaml", "for: *staff, rate", "for: {roles: [Staff]}, rate", [(W, "grant", 'task: ["selling"] → any')]),
    ("agents.yaml", "for: *staff, rate", "for: {roles: [Staff], task: selling, tenant: any}, rate", [(W, "grant", "tenant: same → any")]),
    ("agents.yaml", "for: *staff, rate", "until: 2030-01-01, for: *staff, rate", [(N, "grant", "until: nothing → 2030-01-01")]),
    # Everything else.
    ("tasks.yaml", "open_to: [Staff]", "open_to: [Staff, Boss]", [(W, "task", "open_to: +Boss")]),
    ("tasks.yaml", "purpose: sell", "purpose: sell more", [(U, "task", "purpose: sell → sell more")]),
    ("tasks.yaml", "selling:", "# said otherwise\nselling:", [(S, "file", "written differently; nothing that decides is different")]),
    ("approvals.yaml", "role: Lead", "role: Lead, holds_s: 1800", [(W, "approval rule", "holds_s: 900 → 1800")]),
    ("approvals.yaml", "role: Lead", "role: Boss", [(U, "approval rule", "role: Lead → Boss")]),
    ("release.yaml", "kill: [Operator]", "kill: [Operator, Boss]", [(W, "administration", "+Boss")]),
    ("release.yaml", "operated_by: [acme]", "operated_by: [acme], enforcement_points: {idle: [acme]}", [(W, "administration", "idle: +acme")]),
    ("release.yaml", "user_attributes", "guarded: refunds\nuser_attributes", [(W, "guarded posture", "writes are refused → asked about by refunds")]),
    ("release.yaml", "operated_by: [acme]", "operated_by: []", [(N, "administration", "-acme")]),
    ("release.yaml", "name: shop", "name: shoppe", [(S, "release", "shop → shoppe")]),
    ("tools/shop.yaml", "note?: string", "note?: string, tip?: decimal", [(W, "operation", "input: +tip")]),
    ("tools/shop.yaml", ", note?: string", "", [(N, "operation", "input: -note")]),
    ("tools/shop.yaml", "once_per: [order_id, amount]", "once_per: [order_id]", [(U, "operation", "once_per: -amount")]),
    ("tools/shop.yaml", "stock:\n    {effects: [read]", "stock:\n    {effects: [read], degrade: {cache_s: 60}, breaker: {open_s: 10}", [(W, "operation", "degrade cache_s: 0 → 60"), (N, "operation", "breaker open_s: 5 → 10")]),
    ("tools/shop.yaml", "note: {effects: [write]", "note: {effects: [write], entities: 5", [(N, "operation", "entities: 1 → 5")]),
    ("tools/shop.yaml", "person:\n    effects: [read]", "person:\n    effects: [read]\n    entities: person_id", [(U, "operation", "entities: 1 → person_id")]),
    ("tools/shop.yaml", "note?: string}", "note?: string, items: [string]}\n    entities: len(items)", [(U, "operation", "entities: 1 → len(items)"), (U, "operation", "input: +items")]),
    ("tools/shop.yaml", "amount: decimal}, output: {n: integer}, reviewed: {by: a}", f"amount: decimal}}, output: {{n: integer}}, reviewed: {{by: a, digest: {PIN}}}", [(N, "operation", f"pin of shop.pay: nothing → {PIN}")]),
    ("tools/shop.yaml", "timeout_ms: 200,", "timeout_ms: 300,", [(S, "operation", "timeout_ms: 200 → 300")]),
    ("tools/shop.yaml", "email: [pii, email]", "email: [email]", [(W, "operation", "tags: -email: pii")]),
    ("tools/shop.yaml", "classification: pii", "classification: confidential", [(W, "operation", "classification: pii → confidential")]),
    ("tools/shop.yaml", "note: {effects: [write]", "note: {effects: [read, write]", [(U, "operation", "effects: +read")]),
    ("tools/shop.yaml", "note: {effects: [write]", "note: {effects: [write, egress]", [(N, "operation", "effects: +egress")]),
    ("tools/shop.yaml", "note: {effects: [write]", "note: {effects: [read]", [(W, "operation", "effects: +read, -write")]),
    ("tools/shop.yaml", "stock:\n    {effects: [read]", "stock:\n    {effects: [write]", [(N, "operation", "effects: +write, -read")]),
    ("tools/shop.yaml", 'python: "shop:"', 'python: "shop:"\nstateless: false', [(N, "tool", "stateless: true → false")]),
    ("policies/guard/rules.cedar", 'when { context.session.posture != "normal" }', 'when { context.session.posture != "normal" && context.session.tainted }', [(W, "policy", "conditions: 1 new, 0 gone")]),
    ("policies/guard/rules.cedar", ' when { context.session.posture != "normal" }', "", [(N, "policy", "conditions: 0 new, 1 gone")]),
    ("policies/guard/rules.cedar", '"normal"', '"guarded"', [(U, "policy", "conditions: 1 new, 1 gone")]),
    ("policies/guard/rules.cedar", ', Action::"egress"', "", [(W, "policy", "operations: -egress")]),
    ("policies/guard/rules.cedar", '@say("Only reading now.")', '@say("Reading only.")', [(S, "policy", "say: Only reading now. → Reading only.")]),
    ("policies/guard/rules.cedar", '@say("Only reading now.")', '@approval("refunds")', [(S, "policy", "say: Only reading now. → nothing"), (W, "policy", "lifted by: +approval refunds")]),
    ("policies/guard/rules.cedar", '@owner("security")', '@owner("platform")', [(S, "policy", "owner: security → platform")]),
    ("policies/guard/rules.cedar", "forbid (principal,", "forbid\n  (principal,", [(S, "file", "written differently; nothing that decides is different")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"), CASES, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_each_change_is_told_in_its_own_words_with_its_direction(file, old, new, expected):
    assert sorted(said(between((file, old, new)))) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (BOARD % ("forbid", ""), N),
        (BOARD.replace("@owner", '@approval("refunds")\n@owner') % ("forbid", ""), N),
        (BOARD.replace("@owner", '@obligation("log")\n@owner') % ("forbid", " when { context.session.tainted }"), N),
    ],
)
def test_a_forbid_that_comes_narrows_and_one_that_goes_widens(text, came):
    with_it = {**FILES, "policies/guard/board.cedar": text}
    assert [change.direction for change in between(**{"policies/guard/board.cedar": text}).changes] == [came]
    gone = between(before=with_it, **{"policies/guard/board.cedar": None})
    assert [change.direction for change in gone.changes] == [W]
    assert gone.changes[0].place == "policies/guard/board.cedar:1"


def test_a_permit_that_comes_widens():
    text = BOARD % ("permit", "")
    assert [change.direction for change in between(**{"policies/capability/board.cedar": text}).changes] == [W]


def test_a_new_grant_widens_and_one_taken_away_narrows():
    more = MAX_LIST + "\n    - {on: shop.stock, for: {roles: [Guest], task: selling}}"
    found = between(("agents.yaml", MAX_LIST, more))
    assert said(found) == [(W, "grant", "granted to Guest; in test; for task selling; up to internal data")]
    back = diff(from_files({**FILES, "agents.yaml": FILES["agents.yaml"].replace(MAX_LIST, more)}), from_files(FILES))
    assert [change.direction for change in back.changes] == [N]


def test_a_grant_whose_duties_may_bind_what_another_grant_gives_is_unknown():
    more = MAX_LIST + '\n    - {on: shop.stock, for: {roles: [Guest], task: selling}, rate: "1/60s"}'
    assert [change.direction for change in between(("agents.yaml", MAX_LIST, more)).changes] == [U]


def test_widening_whom_a_grant_with_duties_covers_is_unknown_where_another_grant_permits_the_same():
    twice = MAX_LIST + '\n    - {on: shop.stock, for: {roles: [Guest], task: selling}, rate: "1/60s"}'
    before = {**FILES, "agents.yaml": FILES["agents.yaml"].replace(MAX_LIST, twice)}
    found = between(("agents.yaml", "roles: [Guest]", "roles: [Guest, Staff]"), before=before)
    assert said(found) == [(U, "grant", "roles: +Staff")]


def test_regrouping_and_reordering_grants_changes_nothing():
    apart = "".join(f"    - {{on: shop.{name}, for: *staff}}\n" for name in ("wild", "boom", "note", "slow", "pay"))
    first = "    - {on: shop.stock, for: &staff {roles: [Staff], task: selling}}\n"
    found = between(("agents.yaml", MAX_LIST + "\n", first + apart))
    assert said(found) == [(S, "file", "written differently; nothing that decides is different")]


def test_one_change_for_several_operations_is_told_once():
    found = between(("agents.yaml", "for: &staff {roles: [Staff], task", "for: &staff {roles: [Staff, Boss], task"))
    names = {change.name for change in found.changes if change.what == "roles: +Boss"}
    assert "bot on shop.boom, shop.note, shop.pay, shop.slow, shop.stock, shop.wild" in names


def test_agents_tools_and_operations_that_come_and_go():
    found = between(("agents.yaml", "idle:\n  test: {issuer: interlock-dev, subject: idle}\n", "clerk:\n  test: {issuer: interlock-dev, subject: c}\n"),
                    ("tasks.yaml", "[bot, idle]", "[bot]"))  # fmt: skip
    assert said(found) == [
        (W, "identity", "new: c of interlock-dev"),
        (N, "identity", "gone: idle of interlock-dev"),
        (N, "task", "agents: -idle"),
    ]


def test_owners_that_are_fewer_widen_and_a_hand_over_is_unknown():
    owned = {**FILES, "release.yaml": FILES["release.yaml"] + OWNERS}
    fewer = between(("release.yaml", "security: [policies, approvals.yaml]", "security: [policies]"), before=owned)
    assert [(change.direction, change.name, change.what) for change in fewer.changes] == [
        (W, "security", "owns -approvals.yaml")
    ]
    handed = between(("release.yaml", "product: [agents.yaml", "product: [approvals.yaml"), ("release.yaml", "security: [policies, approvals.yaml]", "security: [policies, agents.yaml]"), before=owned)  # fmt: skip
    assert {change.direction for change in handed.changes} == {U}


def test_a_resource_that_gains_a_tenant_changes_what_the_same_words_mean():
    tool = FILES["tools/shop.yaml"].replace("attributes: {team: string}", "attributes: {team: string, tenant: string}")
    found = between(**{"tools/shop.yaml": tool})
    assert {(change.direction.value, change.kind) for change in found.changes} == {(U, "operation")}


def test_a_part_that_the_comparison_does_not_know_is_unknown_and_never_the_same(monkeypatch):
    monkeypatch.setattr(compare, "SEEN_AS", {name: kinds for name, kinds in compare.SEEN_AS.items() if name != "tasks"})
    monkeypatch.setattr(compare, "part_changes", lambda *_: [])
    found = between(("tasks.yaml", "open_to: [Staff]", "open_to: [Staff, Boss]"))
    assert (U, "part", "different, in a way that this comparison does not understand") in said(found)


def test_what_a_release_says_can_forge_no_line_of_the_report():
    found = between(("tasks.yaml", "purpose: sell", 'purpose: "sell\\n  neutral  file tasks.yaml\\e[2K"'))
    assert "\n" not in found.changes[0].what
    assert "\x1b" not in render(found)


def test_the_lines_for_the_record_are_bounded():
    found = between(("agents.yaml", 'max: "100.00"', 'max: "150.00"'), ("agents.yaml", ', rate: "2/60s"', ""))
    assert widening_lines(found, 5) == (
        "widens: grant bot on shop.hurried (agents.yaml:6): rate: 2/60s → nothing",
        'widens: grant bot on shop.refund (agents.yaml:12): amount: {"max": "100.00"} → {"max": "150.00"}',
    )
    assert widening_lines(found, 1)[-1] == "… and 1 more"


def test_the_report_for_people():
    before = {**FILES, "release.yaml": FILES["release.yaml"] + OWNERS}
    case = "- {name: %s, call: shop.refund, args: {order_id: A1, amount: '%s'}, as: Staff, attributes: {teams: [north]}, resource: {team: north}, expect: allow}\n"
    before["tests/a.yaml"] = case % ("small", "20.00") + case % ("middle", "60.00") + case % ("large", "120.00")
    after = {
        **before,
        "agents.yaml": before["agents.yaml"].replace('"100.00"', '"150.00"').replace('over: "50.00"', 'over: "70.00"'),
        "tasks.yaml": before["tasks.yaml"].replace("purpose: sell", "purpose: sell well"),
        "tools/shop.yaml": before["tools/shop.yaml"].replace("repeat: allow, ", "", 1),
        "policies/guard/rules.cedar": "",
    }
    was, now = from_files(before), from_files(after)
    decided = what_would_change(Engine(was), Engine(now), (*was.tests, *now.tests))
    golden("release/golden/diff.txt", f"{render(diff(was, now))}\n{render_decisions(decided)}\n")
    assert decided.asked == 3


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        ({"type": "string"}, {"type": "string", "maxLength": 5}, N),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 9}, W),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 0}, W),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, W),
        ({"enum": ["a", "c"]}, {"enum": ["a", "b"]}, U),
        ({"type": "string"}, {"type": "integer"}, U),
        ({"type": "string"}, {"type": "string", "description": "x"}, S),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"type": "object", "properties": {"a": {}}}, W),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, {"type": "array", "items": {"enum": ["a"]}}, N),
        ({"type": "object", "properties": {}, "additionalProperties": False}, {"type": "object", "properties": {"a": {}}, "additionalProperties": False, "required": ["a"]}, U),
        ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, U),
    ],
)  # fmt: skip
def test_schemas_are_compared_by_few_and_sure_rules(old, new, direction):
    assert schema_direction(json.dumps(old), json.dumps(new)) == direction


def test_directions_that_mix_are_unknown():
    assert together([]) is Direction.NEUTRAL
    assert together([Direction.WIDENS, Direction.NEUTRAL]) is Direction.WIDENS
    assert together([Direction.WIDENS, Direction.NARROWS]) is Direction.UNKNOWN
    assert together([Direction.WIDENS, Direction.UNKNOWN]) is Direction.UNKNOWN


# Random releases against random requests: what the diff is sure of holds for every decision.

AMOUNTS = ["10.00", "50.00", "90.00"]
conditions = (
    st.none() | st.sampled_from(AMOUNTS).map(lambda value: {"amount": {"max": value}}) | st.just({"order_id": ["A", "B"]})
)
grants = st.fixed_dictionaries(
    {
        "on": st.sampled_from([["shop.refund"], ["shop.pay"], ["shop.pay", "shop.refund"]]),
        "for": st.fixed_dictionaries(
            {"roles": st.sampled_from([["Staff"], ["Lead"], ["Staff", "Lead"]])}, optional={"task": st.just("selling")}
        ),
    },
    optional={
        "where": conditions.filter(bool),
        "ask": st.sampled_from([{"rule": "refunds"}, *({"rule": "refunds", "when": {"amount": {"over": a}}} for a in AMOUNTS)]),
        "rate": st.sampled_from(["1/60s", "2/60s", "2/30s"]),
        "data": st.sampled_from([{"redact": ["email"]}, {"max": "pii"}, {"redact": ["email", "pii"]}]),
        "until": st.sampled_from(["2025-01-01", "2030-01-01"]),
    },
)
forbids = st.fixed_dictionaries(
    {
        "action": st.sampled_from(['== Action::"shop.pay"', 'in [Action::"shop.pay", Action::"shop.refund"]', 'in Action::"writes"']),
        "lift": st.sampled_from(["", '@approval("refunds")\n', '@obligation("log")\n']),
        "when": st.lists(st.sampled_from(["context.session.tainted", 'context.session.posture != "normal"', 'context.agent.id == "bot"']), max_size=2, unique=True),
    }
)  # fmt: skip
releases = st.tuples(st.lists(grants, max_size=3), st.lists(forbids, max_size=2))


@st.composite
def changes_of_one_thing(draw):
    """A release, and the same with one grant or forbid more, less or edited."""
    old = draw(releases)
    new = [list(part) for part in old]
    which = draw(st.integers(0, 1))
    more = draw(grants if which == 0 else forbids)
    if new[which] and draw(st.booleans()):
        at = draw(st.integers(0, len(new[which]) - 1))
        kept = draw(st.sets(st.sampled_from(sorted(more))))
        edited = {**new[which][at], **{key: value for key, value in more.items() if key in kept}}
        new[which][at : at + 1] = draw(st.sampled_from([[], [edited]]))
    else:
        new[which].append(more)
    return old, tuple(new)


requests = st.tuples(
    st.sampled_from(["shop.pay", "shop.refund"]),
    st.sampled_from(["1.00", "50.00", "60.00", "100.00"]),
    st.sampled_from(["A", "C"]),
    st.sampled_from(["Staff", "Lead"]),
    st.booleans(),
    st.sampled_from(["normal", "guarded"]),
)
REST = "    - {on: [shop.stock, shop.slow, shop.note, shop.boom, shop.wild, shop.hurried, shop.order], for: {roles: [Other]}}\n    - {on: [shop.person], for: {roles: [Other]}, data: {max: pii}}\n    - {on: [shop.pay, shop.refund], for: {roles: [Nobody]}}\n"


def written(parts):
    given_grants, given_forbids = parts
    agents = "bot:\n  test: {issuer: interlock-dev, subject: bot}\n  grants:\n" + REST
    agents += "".join(f"    - {json.dumps(grant)}\n" for grant in given_grants)
    cedar = ""
    for number, rule in enumerate(given_forbids):
        when = f"when {{ {' && '.join(rule['when'])} }}" if rule["when"] else ""
        cedar += f'@id("f{number}")\n@owner("security")\n{rule["lift"]}forbid (principal, action {rule["action"]}, resource) {when};\n'
    tasks = "selling: {purpose: sell, open_to: [Staff, Lead], agents: [bot]}\n"
    files = {**FILES, "agents.yaml": agents, "tasks.yaml": tasks, "policies/guard/rules.cedar": cedar}
    try:
        return from_files(files)
    except ReleaseError:
        assume(False)
        raise


def asked(request):
    call, amount, order, role, tainted, posture = request
    return PolicyTest(
        name="x", call=call, args=json.dumps({"order_id": order, "amount": amount}), roles=(role,), expect="", agent="bot",
        environment="test", task="selling", attributes={"teams": ["north"]}, resource={"team": "north"} if call == "shop.refund" else None,
        session={"tainted": tainted, "posture": posture},
    )  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(changes_of_one_thing(), st.lists(requests, min_size=8, max_size=20))
def test_no_decision_goes_the_other_way_than_the_diff_is_sure_of(pair, many):
    was, now = (written(parts) for parts in pair)
    found = diff(was, now)
    directions = {change.direction for change in found.changes} - {Direction.NEUTRAL}
    before, after = Engine(was), Engine(now)
    decided = [(before.decide(facts_of(before, asked(item))), after.decide(facts_of(after, asked(item)))) for item in many]
    seen = {direction_of(a, b) for a, b in decided} - {Direction.NEUTRAL}
    if directions <= {Direction.NARROWS}:
        assert seen <= {Direction.NARROWS}, render(found)
    if directions <= {Direction.WIDENS}:
        assert seen <= {Direction.WIDENS}, render(found)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(changes_of_one_thing() | st.tuples(releases, releases))
def test_whatever_changes_a_compiled_policy_is_told(pair):
    was, now = (written(parts) for parts in pair)

    def compiled(release):
        return sorted(
            msgspec.json.encode(
                (policy.layer, policy.effect, policy.approval, policy.obligations, json.loads(policy.est)["conditions"])
            )
            for policy in release.policies
        )

    found = diff(was, now)
    if compiled(was) != compiled(now):
        assert found.of(Direction.WIDENS, Direction.NARROWS, Direction.UNKNOWN), render(found)
    assert bool(found.changes) == (was.files != now.files)
    assert diff(was, was).changes == ()
